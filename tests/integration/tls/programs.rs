//! Real programs on either side: OpenSSL's client and server, and curl.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{
    Authority, DEADLINE, Driver, Endpoint, Proxy, Settings, eventually_some, on_both_drivers,
};

use super::{encrypting, terminating};

on_both_drivers!(
    openssl_speaks_both_versions,
    openssl_resumes_what_it_remembers,
    old_versions_and_renegotiation_are_refused,
    a_client_that_can_check_no_certificate_is_told,
    a_trailing_dot_is_no_part_of_the_name,
    openssl_changes_its_keys,
    curl_gets_its_page,
    openssl_is_an_endpoint,
);

/// Runs OpenSSL, with this on its standard input as soon as it has said that; in the end it is left alone.
fn openssl(arguments: &[&str], steps: &[(&str, &str)]) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl; scripts/setup installs what the tests need");
    let mut stdin = child.stdin.take().unwrap();
    let (output, errors) =
        (Said::follow(child.stdout.take().unwrap()), Said::follow(child.stderr.take().unwrap()));
    for (input, until) in steps {
        // It may have ended already.
        let _ended = stdin.write_all(input.as_bytes());
        eventually_some(&format!("{until:?} of openssl {arguments:?}"), || {
            let has_ended = child.try_wait().unwrap().is_some();
            (has_ended || output.get().contains(until) || errors.get().contains(until)).then_some(())
        });
    }
    drop(stdin);
    eventually_some("the end of openssl", || child.try_wait().unwrap());
    format!("{}\n{}", output.whole(), errors.whole())
}

/// What a program says, as it says it.
struct Said(std::sync::Arc<std::sync::Mutex<Vec<u8>>>, std::thread::JoinHandle<()>);

impl Said {
    fn follow(mut stream: impl Read + Send + 'static) -> Self {
        let said = std::sync::Arc::default();
        let text = std::sync::Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let text: &std::sync::Mutex<Vec<u8>> = &text;
                text.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self(said, reader)
    }

    fn get(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn whole(self) -> String {
        self.1.join().unwrap();
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

fn s_client<'a>(address: &'a str, authority: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["s_client", "-connect", address, "-servername", "a.test", "-CAfile", authority];
    [&base[..], &["-verify_return_error", "-verify_hostname", "a.test"], more].concat()
}

struct Served {
    authority: Authority,
    proxy: Proxy,
    _endpoint: Endpoint,
}

fn serve(driver: Driver) -> Served {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let mut settings = terminating(driver, &certificate, &endpoint);
    settings.listener = settings.listener.replace("mode:", "alpnProtocols: [one, two], mode:");
    Served { proxy: Proxy::start(&settings), authority, _endpoint: endpoint }
}

impl Served {
    /// What s_client says, with these arguments, if it asks this and that and waits for its answers.
    fn ask(&self, more: &[&str], steps: &[(&str, &str)]) -> String {
        let (address, file) = (self.proxy.address.to_string(), self.authority.file());
        openssl(&s_client(&address, file.to_str().unwrap(), more), steps)
    }
}

/// A line, and what comes back.
const FOX: (&str, &str) = ("the quick brown fox\n", "\nthe quick brown fox\n");

fn openssl_speaks_both_versions(driver: Driver) {
    let served = serve(driver);
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = served.ask(&[option, "-alpn", "two,three"], &[FOX]);
        assert!(said.contains(FOX.1), "{said}");
        assert!(said.contains("ALPN protocol: two") && said.contains(&format!("New, {version}")), "{said}");
    }
    let records = served.proxy.records(2);
    let versions: Vec<_> = records.iter().map(|r| r["tls"]["downstream"]["version"].as_str()).collect();
    assert_eq!(versions, [Some("TLSv1.2"), Some("TLSv1.3")]);
}

fn openssl_resumes_what_it_remembers(driver: Driver) {
    let served = serve(driver);
    let directory = tempfile::tempdir().unwrap();
    for option in ["-tls1_2", "-tls1_3"] {
        let file = directory.path().join(option);
        let file = file.to_str().unwrap();
        let said = served.ask(&[option, "-sess_out", file], &[FOX]);
        assert!(said.contains("\nNew, "), "{said}");
        let said = served.ask(&[option, "-sess_in", file], &[FOX]);
        assert!(said.contains("\nReused, "), "{said}");
    }
    let count = |kind: &str| served.proxy.metric("sheave_listener_tls_handshakes_total", &[kind]);
    served.proxy.records(4);
    assert_eq!((count("kind=\"full\""), count("kind=\"resumed\"")), (2.0, 2.0));
}

fn old_versions_and_renegotiation_are_refused(driver: Driver) {
    let served = serve(driver);
    for option in ["-tls1", "-tls1_1"] {
        let said = served.ask(&[option, "-cipher", "DEFAULT@SECLEVEL=0"], &[]);
        assert!(said.contains("alert protocol version"), "{said}");
    }
    for record in served.proxy.records(2) {
        assert_eq!(record["outcome"], "tls_handshake_failed", "{record}");
    }
    // "R" at the beginning of a line asks for a new handshake.
    let said = served.ask(&["-tls1_2"], &[FOX, ("R\n", "no renegotiation")]);
    assert!(said.contains("no renegotiation"), "{said}");
    let said = served.ask(&["-tls1_2", "-comp"], &[FOX]);
    assert!(said.contains("Compression: NONE") && said.contains(FOX.1), "{said}");
}

fn a_client_that_can_check_no_certificate_is_told(driver: Driver) {
    let served = serve(driver);
    // The certificate has an ECDSA key.
    let said = served.ask(&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], &[]);
    assert!(said.contains("alert handshake failure"), "{said}");
    let record = served.proxy.record();
    assert_eq!(record["outcome"], "tls_handshake_failed", "{record}");
    let failure = record["tls"]["failure"].as_str().unwrap();
    assert!(failure.contains("can check the signatures of none of the certificates"), "{record}");
}

fn a_trailing_dot_is_no_part_of_the_name(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::echo();
    let settings = terminating(driver, &certificate, &endpoint)
        .route("hostnames: [a.test], backendRefs: [{upstream: main}]");
    let proxy = Proxy::start(&settings);
    let (address, file) = (proxy.address.to_string(), authority.file());
    let arguments = ["s_client", "-connect", &address, "-servername", "a.test."];
    let more = ["-CAfile", file.to_str().unwrap(), "-verify_return_error", "-verify_hostname", "a.test"];
    let said = openssl(&[&arguments[..], &more].concat(), &[FOX]);
    assert!(said.contains(FOX.1), "{said}");
    assert_eq!(proxy.record()["tls"]["server_name"], "a.test");
}

fn openssl_changes_its_keys(driver: Driver) {
    let served = serve(driver);
    // "K" alone updates the keys and asks for the same.
    let said =
        served.ask(&["-tls1_3"], &[FOX, ("K\n", "KEYUPDATE"), ("lazy\n", "\nlazy\n"), ("dog\n", "\ndog\n")]);
    assert!(said.contains("\nlazy\n") && said.contains("\ndog\n"), "{said}");
}

fn curl_gets_its_page(driver: Driver) {
    let authority = Authority::new();
    let certificate = authority.certify(&["a.test"]);
    let endpoint = Endpoint::start(|mut stream| {
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length == 1) {
            request.push(byte[0]);
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let proxy = Proxy::start(&terminating(driver, &certificate, &endpoint));
    let address = proxy.address;
    let resolve = format!("a.test:{}:127.0.0.1", address.port());
    let url = format!("https://a.test:{}/", address.port());
    let time = DEADLINE.as_secs().to_string();
    let output: Output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            &time,
            "--resolve",
            &resolve,
            "--cacert",
        ])
        .arg(authority.file())
        .arg(url)
        .output()
        .expect("curl; scripts/setup installs what the tests need");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{output:?}");
}

/// An OpenSSL that sends lines back reversed.
struct Server(Child, SocketAddr);

impl Server {
    fn start(authority: &Authority) -> Self {
        let certificate = authority.certify(&["pg.test"]);
        // It takes no port 0: one that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("openssl")
            .args(["s_server", "-rev", "-accept", &port.to_string(), "-cert"])
            .arg(&certificate.certificate)
            .arg("-key")
            .arg(&certificate.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually_some("a server", || std::net::TcpStream::connect(port).ok());
        Self(child, port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn openssl_is_an_endpoint(driver: Driver) {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let settings = Settings { endpoints: vec![server.1], ..encrypting(driver, &authority, "pg.test", &[]) };
    let proxy = Proxy::start(&settings);
    let mut client = crate::support::connect(proxy.address);
    client.write_all(b"hello\n").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"olleh\n");
}
