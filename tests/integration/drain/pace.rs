//! Idle connections go first, the longest idle before the others, and not all at once.

use std::io::Read;
use std::time::SystemTime;

use super::*;

on_both_drivers!(idle_ones_go_first_and_paced);

const IDLE: usize = 20;

fn idle_ones_go_first_and_paced(driver: Driver) {
    let echo = Endpoint::polite();
    let settings = Settings::new(driver, &[echo.address]).top("drain: {delay: 0s, timeout: 10s}");
    let mut process = Process::start(&Settings { workers: 1, ..settings }, |_| {});
    let (address, admin) = (process.listener("main"), process.admin());
    let active: Vec<Load> = (0..2).map(|_| Load::long(connect(address))).collect();
    let mut idle: Vec<TcpStream> = (0..IDLE).map(|_| connect(address)).collect();
    for stream in &mut idle {
        echoed(stream, b"hello").unwrap();
    }
    let look = || serde_json::from_str(&admin_request(admin, "GET", "/connections").1).unwrap();
    eventually("a difference in idleness", look, |answer: &Value| {
        let connections = answer["connections"].as_array().unwrap();
        connections.iter().filter(|one| one["idleSeconds"].as_f64() >= Some(0.05)).count() == IDLE
    });
    for stream in idle.iter_mut().step_by(2) {
        echoed(stream, b"once more").unwrap();
    }
    let name = |stream: &TcpStream| stream.local_addr().unwrap().to_string();
    let mut expected: Vec<String> = idle.iter().skip(1).step_by(2).map(name).collect();
    expected.extend(idle.iter().step_by(2).map(name));
    process.signal(Signal::TERM);
    let records = eventually("their records", || process.output.json(), |records| records.len() == IDLE);
    let order: Vec<&str> = records.iter().map(|record| record["client"].as_str().unwrap()).collect();
    assert_eq!(order, expected, "the longest idle first");
    assert!(records.iter().all(|record| record["outcome"] == "drain"), "{records:?}");
    let spread = ended(&records[IDLE - 1]).duration_since(ended(&records[0])).unwrap();
    // Evenly over 5 s; a few may have waited to be idle for long enough.
    assert!(spread >= Duration::from_millis(2_500), "all within {spread:?}");
    for mut stream in idle {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "FIN, not RST");
    }
    for load in active {
        load.stop().unwrap();
    }
    assert_done(&mut process);
    assert_eq!(outcomes(&process, IDLE + 2)[IDLE..], ["downstream_closed"; 2]);
}

fn ended(record: &Value) -> SystemTime {
    let accepted = humantime::parse_rfc3339(record["time"].as_str().unwrap()).unwrap();
    accepted + Duration::from_secs_f64(record["duration_ms"].as_f64().unwrap() / 1_000.0)
}
