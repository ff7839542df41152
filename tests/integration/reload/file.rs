//! What makes a reload: SIGHUP, a changed file, a swapped ConfigMap; and what a bad file does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::*;

fn listener_limit(admin: SocketAddr) -> Value {
    table(admin)["listeners"][0]["limit"].clone()
}

fn limited(endpoint: &Endpoint, limit: usize) -> String {
    let settings = Settings::new(Driver::Epoll, &[endpoint.address]);
    settings.listener(&format!("connection: {{limit: {limit}}}")).yaml()
}

#[test]
fn a_changed_file_is_a_reload() {
    let echo = Endpoint::polite();
    let process = Process::start(&Settings::new(Driver::Epoll, &[echo.address]), |_| {});
    let admin = process.admin();
    replace(&process, &limited(&echo, 7));
    eventually("the file that was renamed over it", || listener_limit(admin), |limit| *limit == 7);
    fs::write(&process.config, limited(&echo, 8)).unwrap();
    eventually("the file that was written in place", || listener_limit(admin), |limit| *limit == 8);
    exchange(process.listener("main")).unwrap();
}

#[test]
fn a_sighup_is_a_reload_also_when_nothing_changed() {
    let echo = Endpoint::polite();
    let process = Process::start(&Settings::new(Driver::Epoll, &[echo.address]), |_| {});
    let admin = process.admin();
    let live = connect(process.listener("main"));
    let mut long = Load::long(live);
    for generation in 2..=5 {
        process.signal(Signal::HUP);
        eventually("the next table", || self::generation(&table(admin)), |now| *now == generation);
    }
    assert!(!long.is_over());
    long = {
        long.stop().unwrap();
        Load::short(process.listener("main"))
    };
    eventually("new connections", || long.exchanges(), |exchanges| *exchanges > 0);
}

/// As the kubelet does it: the file is a link to `..data/sheave.yaml`, `..data` a link that is swapped.
#[test]
fn a_swapped_config_map_is_a_reload() {
    let echo = Endpoint::polite();
    let mount = |command: &mut Command| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        let directory = file.parent().unwrap();
        let first = directory.join("..2026_1");
        fs::create_dir(&first).unwrap();
        fs::rename(&file, first.join("sheave.yaml")).unwrap();
        symlink("..2026_1", directory.join("..data")).unwrap();
        symlink("..data/sheave.yaml", &file).unwrap();
    };
    let process = Process::start(&Settings::new(Driver::Epoll, &[echo.address]), mount);
    let admin = process.admin();
    for number in 2..=4 {
        swap(process.config.parent().unwrap(), number, &limited(&echo, number));
        eventually("the swapped file", || listener_limit(admin), |limit| *limit == number);
    }
    exchange(process.listener("main")).unwrap();
    let failed: Vec<Value> = process.log.json().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn swap(directory: &Path, number: usize, yaml: &str) {
    let next = format!("..2026_{number}");
    fs::create_dir(directory.join(&next)).unwrap();
    fs::write(directory.join(&next).join("sheave.yaml"), yaml).unwrap();
    symlink(&next, directory.join("..data_tmp")).unwrap();
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
    fs::remove_dir_all(directory.join(format!("..2026_{}", number - 1))).unwrap();
}

#[test]
fn a_bad_file_keeps_the_last_good_table_and_a_good_one_recovers() {
    let echo = Endpoint::polite();
    let process = Process::start(&Settings::new(Driver::Epoll, &[echo.address]), |_| {});
    let (address, admin) = (process.listener("main"), process.admin());
    let long = Load::long(connect(address));
    let bad = limited(&echo, 7).replace("maxConnections", "").replace("limit: 7", "limt: 7");
    replace(&process, &bad);
    process.signal(Signal::HUP);
    let line = eventually_some("the error in the log", || {
        process.log.json().into_iter().find(|line| line["level"] == "ERROR")
    });
    assert!(line["errors"].as_str().unwrap().contains("limt"), "{line}");
    assert_eq!(line["generation"], 1, "{line}");
    let successful = |admin| {
        let metrics = admin_get(admin, "/metrics");
        let mut lines = metrics.lines();
        lines.find(|line| line.starts_with("sheave_config_last_reload_successful ")).unwrap().to_owned()
    };
    assert!(successful(admin).ends_with(" 0"), "{}", successful(admin));
    let ready = admin_get(admin, "/readyz?verbose");
    assert!(ready.contains("the table of") && ready.contains("limt"), "{ready}");
    assert_eq!(admin_get(admin, "/readyz"), "ok\n");
    assert_eq!(generation(&table(admin)), 1);
    exchange(address).unwrap();
    replace(&process, &limited(&echo, 9));
    eventually("the good file", || listener_limit(admin), |limit| *limit == 9);
    eventually("the metric's recovery", || successful(admin), |line| line.ends_with(" 1"));
    let ready = admin_get(admin, "/readyz?verbose");
    assert!(!ready.contains("limt"), "{ready}");
    assert!(long.stop().unwrap() > 0);
}

/// A port in use is found before anything changes.
#[test]
fn a_new_listener_that_cannot_be_bound_changes_nothing() {
    let (echo, taken) = (Endpoint::polite(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let settings = Settings::new(Driver::Epoll, &[echo.address]);
    let proxy = Proxy::start(&settings);
    let mut changed = settings.clone();
    let address = taken.local_addr().unwrap();
    changed.more_listeners.push(format!("{{name: guest, address: \"{address}\"}}"));
    changed.more_routes.push("{name: guest, listener: guest, backendRefs: [{upstream: main}]}".to_owned());
    let error = proxy.reload(&changed).unwrap_err();
    assert!(error.contains(&format!("listener guest cannot listen on {address}")), "{error}");
    assert_eq!(generation(&table(proxy.admin)), 1);
    exchange(proxy.address).unwrap();
    drop(taken);
    proxy.reload(&changed).unwrap();
    exchange(address).unwrap();
}
