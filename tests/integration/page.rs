//! The status page, as a browser gets it.

mod browser;
mod hostile;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Proxy, Settings, admin_get, admin_request_with, closed_port, connect, eventually,
    on_both_drivers, round_trip,
};

on_both_drivers!(
    a_browser_gets_the_page_and_others_the_list,
    its_buttons_ask_for_what_they_say,
    the_page_tells_what_is_wrong,
);

const BROWSER: &[(&str, &str)] = &[("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];

/// The page with these parameters, such as `?sort=idle`.
fn page(proxy: &Proxy, parameters: &str) -> String {
    let answer = admin_request_with(proxy.admin, "GET", &format!("/{parameters}"), BROWSER);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn a_browser_gets_the_page_and_others_the_list(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]));
    let mut client = connect(proxy.address);
    round_trip(&mut client);
    let answer = admin_request_with(proxy.admin, "GET", "/", BROWSER);
    assert_eq!(answer.status, 200);
    for expected in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
    ] {
        assert!(answer.head.contains(expected), "{expected}: {}", answer.head);
    }
    for expected in [
        "<h2 id=\"listeners-title\">Listeners</h2>".to_owned(),
        format!("<tr id=\"endpoint-main-{}\">", echo.address),
        client.local_addr().unwrap().to_string(),
        "generation".to_owned(),
    ] {
        assert!(answer.body.contains(&expected), "{expected}: {}", answer.body);
    }
    assert!(!answer.body.contains("data-close"), "nobody may close here, so nothing offers it");
    for file in ["/page/page.js", "/page/page.css", "/page/icon.svg"] {
        assert!(answer.body.contains(file));
        let file = admin_get(proxy.admin, file);
        assert!(!file.replace("http://www.w3.org/2000/svg", "").contains("//www."), "it asks nobody else");
        assert!(!file.contains("https://"), "it asks nobody else");
    }
    let list = admin_get(proxy.admin, "/");
    assert!(list.starts_with("sheave ") && list.contains("DELETE /connections/{id}"), "{list}");
    let status: Value = serde_json::from_str(&admin_get(proxy.admin, "/status")).unwrap();
    assert_eq!((&status["phase"], &status["connections"]), (&"serving".into(), &1.into()));
    assert_eq!(status["endpoints"]["available"], 1);
    assert_eq!(status["tables"][0]["cause"], "start");
}

fn its_buttons_ask_for_what_they_say(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).with_changes());
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = connect(proxy.address);
            round_trip(&mut client);
            client
        })
        .collect();
    let live = proxy.wait_for_live(3);
    let shown = page(&proxy, "?sort=-age&filter=MAIN");
    let place = |client: &std::net::TcpStream| shown.find(&client.local_addr().unwrap().to_string()).unwrap();
    let places: Vec<usize> = clients.iter().rev().map(place).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(shown.contains("aria-sort=\"ascending\""));
    assert!(shown.contains(&format!("data-close=\"{}\"", live[0]["id"])));
    let one = page(&proxy, &format!("?filter={}", clients[1].local_addr().unwrap()));
    assert_eq!(one.matches("data-close").count(), 1);
}

fn the_page_tells_what_is_wrong(driver: Driver) {
    let (echo, nobody) = (Endpoint::echo(), closed_port());
    let settings = Settings::new(driver, &[echo.address, nobody])
        .upstream("healthCheck: {active: {type: TCP, interval: 100ms, unhealthyThreshold: 1}}");
    let proxy = Proxy::start(&settings);
    let shown = eventually("an unhealthy endpoint", || page(&proxy, ""), |page| page.contains("unhealthy"));
    assert!(shown.contains("1\u{202f}of\u{202f}2") || shown.contains("1 of 2 available"), "{shown}");
    let place = |address: &str| shown.find(&format!("endpoint-main-{address}")).unwrap();
    assert!(place(&nobody.to_string()) < place(&echo.address.to_string()), "what is wrong comes first");
    let mut more = settings.clone();
    more.endpoints.pop();
    proxy.reload(&more).unwrap();
    let shown = page(&proxy, "");
    assert!(shown.contains("configuration") && shown.contains("−1 endpoint"), "{shown}");
    std::fs::write(proxy.config(), "listeners: []").unwrap();
    proxy.instance().reload().map(|_| ()).unwrap_err();
    assert!(page(&proxy, "").contains("<p class=\"notice warn\"><strong>reload</strong>"));
}
