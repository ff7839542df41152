use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rcgen::{Issuer, KeyPair};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;
use crate::config::CertificateRef;
use crate::tls::examples::{Wanted, authority};

const DEADLINE: Duration = Duration::from_secs(20);

/// Files that are followed, and whom their certificates are of.
struct Scene {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    source: Source,
    deliveries: flume::Receiver<Delivery>,
    _configs: watch::Sender<Arc<Config>>,
}

impl Scene {
    /// With a good pair in `folder`, which has been read.
    fn start(folder: &str, prepare: impl FnOnce(&Path, &(String, String))) -> Self {
        // Nothing is found out by looking now and then.
        Self::start_with(DEADLINE * 3, folder, prepare)
    }

    fn start_with(poll: Duration, folder: &str, prepare: impl FnOnce(&Path, &(String, String))) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let issuer = authority("ca").0;
        let base = directory.path().join(folder);
        prepare(directory.path(), &Wanted::dns(&["first.example"]).by(&issuer));
        let files = CertificateRef::Files { certificate: base.join("tls.crt"), key: base.join("tls.key") };
        let (configs, changes) = watch::channel(Arc::new(following(&files)));
        let (delivered, deliveries) = flume::bounded(16);
        let tuning = Tuning { debounce: Duration::from_millis(5), poll, ..Tuning::default() };
        let files_followed = Files::new(changes, delivered, tuning);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let followed = async { tokio::time::timeout(DEADLINE * 3, files_followed.run()).await };
            let _deaf = runtime.block_on(followed);
        });
        let scene =
            Self { directory, issuer, source: Source::Certificate(files), deliveries, _configs: configs };
        assert_eq!(scene.next().as_deref(), Ok("first.example"));
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn pair(&self, name: &str) -> (String, String) {
        Wanted::dns(&[name]).by(&self.issuer)
    }

    /// The name of the next certificate that is delivered, or why there is none.
    fn next(&self) -> Result<String, &'static str> {
        loop {
            match self.deliveries.recv_timeout(DEADLINE).unwrap() {
                Delivery::TimePassed => {}
                Delivery::Found { source, found, .. } => {
                    assert_eq!(source, self.source);
                    let name = |material: Material| format!("{material:?}");
                    let name = found.map(name).map_err(|problem| problem.reason)?;
                    let from = name.find("Dns(\"").unwrap() + 5;
                    return Ok(name[from..].split('"').next().unwrap().to_owned());
                }
            }
        }
    }
}

fn following(files: &CertificateRef) -> Config {
    let CertificateRef::Files { certificate, key } = files else { panic!("{files}") };
    let text = format!(
        "listeners: [{{name: x, address: \"127.0.0.1:1\", protocol: TLS, tls: {{certificateRefs: [{{file: {{certificate: \
         {certificate:?}, key: {key:?}}}}}]}}}}]\nroutes: [{{name: r, listener: x, backendRefs: [{{upstream: a}}]}}]\n\
         upstreams: [{{name: a, endpoints: [{{address: \"10.0.0.1:1\"}}]}}]\n",
    );
    Config::parse(&text, "t.yaml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn write(folder: &Path, (certificate, key): &(String, String)) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    fs::write(folder.join("tls.key"), key).unwrap();
}

#[test]
fn a_pair_is_taken_once_it_fits_together() {
    let scene = Scene::start("", write);
    for turn in 0..5 {
        let name = format!("turn{turn}.example");
        let (certificate, key) = scene.pair(&name);
        fs::write(scene.path("tls.crt"), certificate).unwrap();
        std::thread::yield_now();
        let renamed = scene.path("new");
        fs::write(&renamed, key).unwrap();
        fs::rename(&renamed, scene.path("tls.key")).unwrap();
        assert_eq!(scene.next(), Ok(name));
    }
}

#[test]
fn what_stays_wrong_is_said_once_and_what_gets_well_is_taken() {
    let scene = Scene::start("", write);
    let next = scene.pair("next.example");
    fs::write(scene.path("tls.crt"), &next.0).unwrap();
    assert_eq!(scene.next(), Err("mismatched"));
    fs::write(scene.path("tls.key"), &next.1).unwrap();
    assert_eq!(scene.next(), Ok("next.example".to_owned()));
    fs::remove_file(scene.path("tls.key")).unwrap();
    assert_eq!(scene.next(), Err("missing"));
    fs::write(scene.path("tls.key"), &next.1).unwrap();
    assert_eq!(scene.next(), Ok("next.example".to_owned()));
}

#[test]
fn a_link_to_another_folder_is_a_change_as_of_a_mounted_secret() {
    let scene = Scene::start("mount", |base, pair| {
        let mount = base.join("mount");
        write(&mount.join("..one"), pair);
        symlink("..one", mount.join("..data")).unwrap();
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), mount.join(file)).unwrap();
        }
    });
    for name in ["two", "three"] {
        let mount = scene.path("mount");
        write(&mount.join(format!("..{name}")), &scene.pair(&format!("{name}.example")));
        symlink(format!("..{name}"), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        assert_eq!(scene.next(), Ok(format!("{name}.example")));
    }
}

/// As ACME clients keep them: what is named are links to what was issued last.
#[test]
fn a_file_behind_a_link_changes_in_its_own_folder() {
    let link = |base: &Path, to: &str| {
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("../{to}/{file}"), base.join("new")).unwrap();
            fs::rename(base.join("new"), base.join("live").join(file)).unwrap();
        }
    };
    let scene = Scene::start("live", |base, pair| {
        write(&base.join("one"), pair);
        fs::create_dir(base.join("live")).unwrap();
        link(base, "one");
    });
    for (turn, folder) in ["one", "two", "two", "three"].into_iter().enumerate() {
        let name = format!("turn{turn}.example");
        // In place, or in another folder with links to it.
        write(&scene.path(folder), &scene.pair(&name));
        link(&scene.path(""), folder);
        assert_eq!(scene.next(), Ok(name));
        let name = format!("renamed{turn}.example");
        write(&scene.path("aside"), &scene.pair(&name));
        for file in ["tls.crt", "tls.key"] {
            fs::rename(scene.path("aside").join(file), scene.path(folder).join(file)).unwrap();
        }
        assert_eq!(scene.next(), Ok(name));
    }
}

#[test]
fn a_directory_that_is_replaced_is_watched_again() {
    let scene = Scene::start("live", |base, pair| write(&base.join("live"), pair));
    let (live, next) = (scene.path("live"), scene.path("next"));
    write(&next, &scene.pair("two.example"));
    renameat_with(CWD, &live, CWD, &next, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(scene.next(), Ok("two.example".to_owned()));
    write(&live, &scene.pair("three.example"));
    assert_eq!(scene.next(), Ok("three.example".to_owned()));
}

#[test]
fn a_directory_that_cannot_be_watched_takes_nothing_away_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("none/tls.key"));
    // Before the one that is there, and behind it.
    for (certificate, key) in [(&certificate, &key), (&key, &certificate)] {
        let files = CertificateRef::Files { certificate: certificate.clone(), key: key.clone() };
        let (_configs, changes) = watch::channel(Arc::new(following(&files)));
        let mut files = Files::new(changes, flume::bounded(1).0, Tuning::default());
        files.follow();
        let (notify, events) = flume::bounded(1);
        let watcher = files.watch(&files.directories(), &notify);
        assert!(watcher.is_some());
        fs::write(directory.path().join("tls.crt"), "x").unwrap();
        events.recv_timeout(DEADLINE).unwrap();
    }
}

#[test]
fn time_passes_however_much_happens_in_a_directory() {
    let scene = Scene::start_with(Duration::from_millis(200), "", write);
    let noise = scene.path("noise");
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        fs::write(&noise, "x").unwrap();
        if matches!(scene.deliveries.try_recv(), Ok(Delivery::TimePassed)) {
            return;
        }
    }
    panic!("no time has passed");
}

#[test]
fn what_is_wrong_in_the_same_way_again_is_not_looked_at_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let pair = Wanted::dns(&["a.example"]).by(&authority("ca").0);
    write(directory.path(), &pair);
    let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    let source = Source::Certificate(CertificateRef::Files { certificate, key: key.clone() });
    let mut followed = Followed::default();
    fs::remove_file(&key).unwrap();
    let delivered = (0..=RETRIES).filter_map(|_| followed.look(&source)).count();
    assert_eq!((delivered, followed.retries), (1, 0));
    fs::write(&key, "garbage").unwrap();
    assert!(followed.look(&source).is_none() && followed.retries > 0);
    fs::remove_file(&key).unwrap();
    assert!(followed.look(&source).is_none());
    assert_eq!(followed.retries, 0);
}
