//! What strangers can put into the page stays text.

use std::io::Write;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::support::{
    Authority, Driver, Endpoint, Proxy, Settings, admin_request_with, connect, on_both_drivers,
};

use super::{BROWSER, page};

on_both_drivers!(names_of_the_configuration_are_text, what_clients_ask_for_is_text, parameters_are_text);

const MARKUP: &str = "<img src=x onerror=alert(1)>\"'&";

/// Whether some of it came through as markup.
fn is_harmed(page: &str) -> bool {
    page.contains("<img") || page.contains("\"'&\"")
}

fn names_of_the_configuration_are_text(driver: Driver) {
    let echo = Endpoint::echo();
    let mut settings = Settings::new(driver, &[]);
    let zone = MARKUP.replace('\'', "''");
    settings.upstream = format!("endpoints: [{{address: \"{}\", zone: '{zone}'}}]", echo.address);
    let yaml = settings.yaml().replace("endpoints: [], ", "");
    let proxy = Proxy::start_yaml(&yaml);
    let page = page(&proxy, "");
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;&quot;'&amp;"), "{page}");
    assert!(!is_harmed(&page), "{page}");
}

/// A ClientHello that asks for this name, which no TLS library would send.
fn hello(name: &str) -> Vec<u8> {
    let honest = format!("{}.test", "a".repeat(name.len() - ".test".len()));
    let server = ServerName::try_from(honest.clone()).unwrap();
    let mut client = ClientConnection::new(std::sync::Arc::new(Authority::new().client()), server).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    let at = bytes.windows(honest.len()).position(|part| part == honest.as_bytes()).unwrap();
    bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn what_clients_ask_for_is_text(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address]).listener("protocol: TLS, tls: {mode: Passthrough}");
    let proxy = Proxy::start(&settings);
    let mut honest = connect(proxy.address);
    honest.write_all(&hello("honest.shop.test")).unwrap();
    let mut hostile = connect(proxy.address);
    hostile.write_all(&hello(MARKUP)).unwrap();
    let shown = crate::support::eventually(
        "the name that an honest client asks for",
        || page(&proxy, ""),
        |page| page.contains("aaaa") || page.contains("honest.shop.test"),
    );
    assert!(!is_harmed(&shown), "{shown}");
    // Refused or not, nothing of it is markup, whatever shows it.
    let filtered = page(&proxy, "?filter=img");
    assert!(!is_harmed(&filtered), "{filtered}");
}

fn parameters_are_text(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]));
    let markup = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%22%27%26";
    for parameter in ["filter", "upstreams", "upstream"] {
        let shown = page(&proxy, &format!("?{parameter}={markup}"));
        assert!(shown.contains("&lt;img"), "{parameter} is shown as it is");
        assert!(!is_harmed(&shown), "{parameter}: {shown}");
    }
    for (parameter, hint) in [("from=x", "from: "), ("sort=x", "sort: "), ("fitler=x", "unknown parameter")] {
        let answer = admin_request_with(proxy.admin, "GET", &format!("/?{parameter}"), BROWSER);
        assert_eq!(answer.status, 400, "{parameter}");
        assert!(answer.body.contains(hint) && answer.head.contains("text/plain"), "{parameter}");
    }
}
