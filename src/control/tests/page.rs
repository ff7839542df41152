use super::*;

/// What a browser gets.
fn browse(control: &Control, path: &str) -> Reply {
    let mut stream = TcpStream::connect(control.handle.admin_address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: text/html\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_lowercase(), body: body.into() }
}

fn builder_of_many() -> Builder {
    let tuning = Tuning { live: Duration::from_millis(20), ..Tuning::default() };
    Builder { config: many_endpoints(10_000), tuning, ..builder() }
}

#[test]
fn of_many_endpoints_the_page_shows_the_first_and_the_way_to_the_others() {
    let control = builder_of_many().start();
    let rows = |page: &str| page.matches("<tr id=\"endpoint-pg-").count();
    let page = browse(&control, "/");
    assert_eq!((page.status, rows(&page.body)), (200, 8));
    assert!(page.body.contains("10\u{202f}000"), "all are counted");
    assert!(page.body.len() < 40_000, "{} bytes", page.body.len());
    let page = browse(&control, "/?upstream=pg&from=9950");
    assert_eq!(rows(&page.body), 50);
    assert!(page.body.contains("endpoint-pg-10.0.39.15:80"), "the last of them");
    assert!(page.body.len() < 60_000, "{} bytes", page.body.len());
    let page = browse(&control, "/?upstream=pg&from=18446744073709551615");
    assert_eq!((page.status, rows(&page.body)), (200, 0));
}

#[test]
fn what_is_wrong_comes_first_wherever_it_is() {
    let control = builder_of_many().start();
    let table = control.handle.shared.publisher.current();
    let endpoint = &table.upstreams["pg"].endpoints[7_777];
    let (row, count) =
        (format!("endpoint-pg-{}", endpoint.address), "9\u{202f}999<small> of 10\u{202f}000</small>");
    eventually("the one of 10 000", || {
        // Without a check all are well once the prober has looked at the table.
        endpoint.state.health.set(false);
        let page = browse(&control, "/").body;
        page.contains(&row) && page.contains(count)
    });
}

#[test]
fn the_page_says_when_it_is_not_all() {
    let control = builder_of_many().start();
    assert!(browse(&control, "/").body.contains("not every worker answered in time"));
}

#[test]
fn the_first_table_and_its_acknowledgement_are_told() {
    let control = Builder { acknowledging: false, ..builder_of_many() }.start();
    let page = browse(&control, "/").body;
    assert!(
        page.contains("+10\u{202f}000 endpoints") && page.contains("workers 0, 1 have an older one"),
        "{page}"
    );
    control.acknowledging.store(true, Ordering::Relaxed);
    eventually("on all workers", || browse(&control, "/").body.contains("all workers have it"));
    let status: serde_json::Value = serde_json::from_str(&control.get("/status").body).unwrap();
    assert_eq!(status["acknowledgedGenerations"], serde_json::json!([1, 1]));
    assert!(status["tables"][0]["acknowledgedAfterSeconds"].is_f64());
}
