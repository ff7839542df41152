use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;

/// Files of these tests list an upstream's endpoints, one per line; `restart` is a change of three sections.
fn parse(file: &Path) -> Result<Config, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{}: {error}; does the file exist?", file.display()))?;
    let wrong = text.lines().filter(|line| line.starts_with("wrong"));
    let errors: Vec<&str> = wrong.collect();
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    let (notes, endpoints): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| *line == "restart");
    let mut config = config(&endpoints);
    if !notes.is_empty() {
        config.log.level = config::LogLevel::Debug;
        config.workers.pin = false;
        config.metrics.otlp.enabled = true;
    }
    Ok(config)
}

fn watching(file: &Path) -> Builder {
    let path = file.to_path_buf();
    Builder {
        config: parse(file).unwrap(),
        load: Box::new(move || parse(&path)),
        config_file: Some(file.to_path_buf()),
        ..builder()
    }
}

/// Says when the file was looked at: the first look is due before anything has changed.
fn looks(builder: &mut Builder) -> flume::Receiver<()> {
    let (looked, looks) = flume::bounded(1024);
    let load = std::mem::replace(&mut builder.load, Box::new(|| Err(String::new())));
    builder.load = Box::new(move || {
        let loaded = load();
        let _test_is_over = looked.send(());
        loaded
    });
    looks
}

fn start_and_look(mut builder: Builder) -> Control {
    let looks = looks(&mut builder);
    let control = builder.start();
    looks.recv_timeout(DEADLINE).unwrap();
    control
}

fn endpoints(control: &Control) -> Vec<String> {
    let table = control.handle.shared.publisher.current();
    let upstream = &table.upstreams["pg"];
    upstream.endpoints.iter().map(|e| e.address.to_string()).collect()
}

fn replace(file: &Path, content: &str) {
    let new = file.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, file).unwrap();
}

#[test]
fn a_changed_file_is_reloaded_however_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheave.yaml");
    fs::write(&file, "127.0.0.1:1").unwrap();
    let control = start_and_look(watching(&file));
    fs::write(&file, "127.0.0.1:2").unwrap();
    eventually("written", || endpoints(&control) == ["127.0.0.1:2"]);
    replace(&file, "127.0.0.1:3\n127.0.0.1:4");
    eventually("renamed over", || endpoints(&control) == ["127.0.0.1:3", "127.0.0.1:4"]);
    eventually("counted", || control.metric("sheave_table_propagation_seconds_count").unwrap() >= 2.0);
    assert_eq!(control.metric("sheave_config_last_reload_successful"), Some(1.0));
    let table = control.handle.config();
    assert_eq!(table.upstreams[0].members.listed().len(), 2);
}

#[test]
fn the_swap_of_a_config_map_is_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, content) in [("..1", "127.0.0.1:1"), ("..2", "127.0.0.1:2")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("sheave.yaml"), content).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/sheave.yaml", at("sheave.yaml")).unwrap();
    let control = start_and_look(watching(&at("sheave.yaml")));
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    eventually("swapped", || endpoints(&control) == ["127.0.0.1:2"]);
}

#[test]
fn a_symlink_elsewhere_on_the_way_is_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, content) in [("1", "127.0.0.1:1"), ("2", "127.0.0.1:2")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("sheave.yaml"), content).unwrap();
    }
    symlink("1", at("now")).unwrap();
    fs::create_dir(at("etc")).unwrap();
    symlink(at("now").join("sheave.yaml"), at("etc").join("sheave.yaml")).unwrap();
    let control = start_and_look(watching(&at("etc").join("sheave.yaml")));
    fs::write(at("1").join("sheave.yaml"), "127.0.0.1:4").unwrap();
    eventually("in place", || endpoints(&control) == ["127.0.0.1:4"]);
    symlink("2", at("next")).unwrap();
    fs::rename(at("next"), at("now")).unwrap();
    eventually("swapped", || endpoints(&control) == ["127.0.0.1:2"]);
    replace(&at("2").join("sheave.yaml"), "127.0.0.1:3");
    eventually("in its new place", || endpoints(&control) == ["127.0.0.1:3"]);
}

#[test]
fn a_bad_file_keeps_the_table_and_says_so_until_it_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheave.yaml");
    fs::write(&file, "127.0.0.1:1").unwrap();
    let control = start_and_look(watching(&file));
    eventually("ready", || control.get("/readyz").status == 200);
    replace(&file, "wrong: one\nwrong: two");
    eventually("failure counted", || control.metric("sheave_config_reload_failures_total") == Some(1.0));
    assert_eq!(control.metric("sheave_config_last_reload_successful"), Some(0.0));
    assert_eq!((control.generation(), endpoints(&control)), (1, vec!["127.0.0.1:1".into()]));
    let ready = control.get("/readyz?verbose");
    assert_eq!(ready.status, 200, "a bad file does not make a process unready");
    assert!(ready.body.contains("[-](does not fail the probe) reload: failed at"));
    assert!(ready.body.contains("\n    wrong: one\n    wrong: two\n"), "{}", ready.body);

    fs::remove_file(&file).unwrap();
    eventually("missing file told", || control.get("/readyz?verbose").body.contains("does the file exist?"));
    replace(&file, "127.0.0.1:1");
    eventually("mended", || control.metric("sheave_config_last_reload_successful") == Some(1.0));
    assert!(control.get("/readyz?verbose").body.contains("[+]reload"));
}

#[test]
fn the_same_content_is_no_reload_unless_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheave.yaml");
    fs::write(&file, "127.0.0.1:1").unwrap();
    let mut builder = watching(&file);
    let looks = looks(&mut builder);
    let control = builder.start();
    looks.recv_timeout(DEADLINE).unwrap();
    replace(&file, "127.0.0.1:1");
    looks.recv_timeout(DEADLINE).unwrap();
    // Triggers are taken in order, so that this one comes after all that the file caused.
    let reloaded = control.handle.reload().unwrap();
    assert_eq!((reloaded.generation, reloaded.acknowledged), (2, true));
    assert_eq!(control.metric("sheave_config_reloads_total"), Some(1.0));
}

#[test]
fn sections_that_need_a_restart_are_named_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheave.yaml");
    fs::write(&file, "127.0.0.1:1").unwrap();
    let control = Builder { config_file: None, ..watching(&file) }.start();
    fs::write(&file, "restart\n127.0.0.1:2").unwrap();
    let reloaded = control.handle.reload().unwrap();
    assert_eq!(reloaded.restart_needed, ["workers", "log", "metrics.otlp"]);
    assert_eq!(endpoints(&control), ["127.0.0.1:2"]);
    let ready = control.get("/readyz?verbose");
    assert_eq!(ready.status, 200);
    assert!(ready.body.contains("restart: needed for changes of: workers, log, metrics.otlp"));
    assert_eq!(control.metric("sheave_config_restart_needed{section=\"log\"}"), Some(1.0));
    fs::write(&file, "127.0.0.1:2").unwrap();
    assert!(control.handle.reload().unwrap().restart_needed.is_empty());
    assert!(control.get("/readyz?verbose").body.contains("[+]restart"));
}

#[test]
fn an_address_that_cannot_be_bound_leaves_the_table_standing() {
    let control = Builder {
        load: Box::new(|| Ok(config(&["127.0.0.1:2"]))),
        bind: Box::new(|current, next| {
            assert_eq!((current.generation, next.generation), (1, 2));
            Err("front: 127.0.0.1:5432 is in use".into())
        }),
        ..builder()
    }
    .start();
    let error = control.handle.reload().unwrap_err();
    assert_eq!(error, "front: 127.0.0.1:5432 is in use");
    assert_eq!((control.generation(), endpoints(&control)), (1, vec!["127.0.0.1:1".into()]));
}

#[test]
fn a_worker_that_does_not_take_the_table_does_not_hold_reloads_up() {
    let control = Builder {
        load: Box::new(|| Ok(config(&["127.0.0.1:2"]))),
        acknowledging: false,
        tuning: Tuning { acknowledge: Duration::from_millis(10), ..Tuning::default() },
        ..builder()
    }
    .start();
    let first = control.handle.reload().unwrap();
    let second = control.handle.reload().unwrap();
    assert_eq!((first.generation, first.acknowledged), (2, false));
    assert_eq!((second.generation, second.acknowledged), (3, false));
    control.acknowledging.store(true, Ordering::Relaxed);
    eventually("taken in the end", || control.get("/readyz").status == 200);
}

#[test]
fn a_process_that_drains_takes_no_new_table() {
    let control = Builder { load: Box::new(|| Ok(config(&["127.0.0.1:2"]))), ..builder() }.start();
    control.drain.drain(Duration::from_secs(60));
    assert!(control.handle.reload().unwrap_err().contains("draining"));
    assert_eq!(control.generation(), 1);
}
