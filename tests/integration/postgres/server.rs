//! The same with a real server and psql, in a network of their own.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{
    Authority, Certificate, DEADLINE, Driver, Program, Proxy, Settings, eventually_some, in_namespace,
    on_both_drivers,
};

use super::listener;

on_both_drivers!(psql_reaches_its_server);

const SERVER: &str = "127.0.0.1:5432";
/// Nobody: the server refuses to run as root.
const USER: u32 = 65_534;

/// A server with an empty database, for everyone on this machine.
struct Server {
    _program: Program,
    _data: tempfile::TempDir,
}

impl Server {
    fn start(certificate: &Certificate) -> Self {
        let data = tempfile::tempdir().unwrap();
        let owned = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            if rustix::process::geteuid().is_root() {
                chown(path, Some(USER), Some(USER)).unwrap();
            }
        };
        owned(data.path(), 0o700);
        let directory = data.path().join("pg");
        let mut initdb = Command::new(program("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "-D"]).arg(&directory);
        as_nobody(&mut initdb, data.path());
        succeed(&mut initdb);
        for (file, copy) in [(&certificate.certificate, "tls.crt"), (&certificate.key, "tls.key")] {
            let copy = data.path().join(copy);
            std::fs::copy(file, &copy).unwrap();
            owned(&copy, 0o600);
        }
        let at = |file: &str| data.path().join(file).display().to_string();
        let (crt, key) = (at("tls.crt"), at("tls.key"));
        let program = Program::start(&program("postgres").display().to_string(), &[], |command, _| {
            command.arg("-D").arg(&directory);
            for setting in [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "fsync=off",
                "ssl=on",
                &format!("ssl_cert_file={crt}"),
                &format!("ssl_key_file={key}"),
            ] {
                command.args(["-c", setting]);
            }
            as_nobody(command, data.path());
        });
        let address: SocketAddr = SERVER.parse().unwrap();
        eventually_some("a PostgreSQL server", || {
            std::net::TcpStream::connect_timeout(&address, DEADLINE).ok()
        });
        Self { _program: program, _data: data }
    }
}

/// Debian keeps the server's programs beside its PATH, by their version.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} of PostgreSQL is missing; scripts/setup installs what the tests need")
    })
}

fn as_nobody(command: &mut Command, home: &Path) {
    command.current_dir(home);
    if rustix::process::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Asks through Sheave, as a client that checks the certificate.
fn psql(proxy: &Proxy, settings: &str, query: &str) -> Output {
    let port = proxy.address.port();
    let connection =
        format!("host=pg.test hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres {settings}");
    let mut command = Command::new("psql");
    command.args(["-X", "-At", "-c", query, "-d", &connection]);
    command.output().expect("psql; scripts/setup installs what the tests need")
}

fn answer(proxy: &Proxy, settings: &str, query: &str) -> String {
    let output = psql(proxy, settings, query);
    assert!(output.status.success(), "{}\n{:#?}", String::from_utf8_lossy(&output.stderr), proxy.lines.all());
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

const IS_ENCRYPTED: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";

fn psql_reaches_its_server(driver: Driver) {
    in_namespace(move || {
        let authority = Authority::new();
        let certificate = authority.certify(&["pg.test"]);
        let _server = Server::start(&certificate);
        let verify = format!("sslmode=verify-full sslrootcert={}", authority.file().display());
        let settings = Settings::new(driver, &[SERVER.parse().unwrap()]);
        let tls = format!(
            "tls: {{validation: {{caCertificateRefs: [{{file: {}}}], hostname: pg.test}}}}",
            authority.file().display()
        );
        for (what, listener, upstream, is_encrypted) in [
            ("terminated", listener(Some(&certificate)), "", "f"),
            ("encrypted again", listener(Some(&certificate)), &tls, "t"),
            ("passed through", listener(None), "", "t"),
        ] {
            let proxy = Proxy::start(&settings.clone().listener(&listener).upstream(upstream));
            assert_eq!(answer(&proxy, &verify, IS_ENCRYPTED), is_encrypted, "{what}");
            let long = answer(&proxy, &verify, "select repeat('x', 5000000)");
            assert_eq!(long.len(), 5_000_000, "{what}");
            let records = proxy.records(2);
            for record in &records {
                assert_eq!(record["tls"]["server_name"], "pg.test", "{what}: {record}");
                // psql and its server both leave after the last message without reading the other's goodbye of TLS,
                // which resets the connection on whichever side it reaches late.
                let outcome = record["outcome"].as_str().unwrap();
                let expected = ["downstream_closed", "upstream_closed", "downstream_reset", "upstream_reset"];
                assert!(expected.contains(&outcome), "{what}: {record}");
            }
            // A client that would do without TLS reads why it may not.
            let refused = psql(&proxy, "sslmode=disable", "select 1");
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(said.contains("TLS is required here"), "{what}: {said}");
            assert_eq!(proxy.records(3)[2]["outcome"], "plaintext_refused");
        }
    });
}
