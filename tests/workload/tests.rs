//! The clients against endpoints of their own kind, on this machine: a load that lies would make every test pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::conversation::{Conversation, kind};
use crate::endpoint::{Serve, serve};
use crate::load::{Aim, exchange, open};
use crate::report::Target;
use crate::tally::Tally;
use crate::{held, pace};

const DEADLINE: Duration = Duration::from_secs(20);

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(DEADLINE, test).await.expect("within the deadline") });
}

fn aim(address: SocketAddr, more: &str) -> Aim {
    format!("web={address}{more}").parse().unwrap()
}

/// An endpoint on a port that was free a moment ago; on another one if somebody was faster.
async fn start(mode: &str) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (terminate, terminated) = oneshot::channel();
        let terminated = async {
            // Dropped with the test's own value, which ends the endpoint too.
            terminated.await.ok();
        };
        let endpoint = tokio::spawn(serve(Serve::new(port, "pod-1", mode), terminated));
        // Looked at before each connect: who answers on a port that it did not get is an endpoint of another test.
        loop {
            tokio::task::yield_now().await;
            if endpoint.is_finished() {
                break;
            }
            match tokio::net::TcpStream::connect(address).await {
                // Where nobody listens yet, a connection can meet itself.
                Ok(stream) if stream.local_addr().is_ok_and(|local| local != address) => {
                    return (address, terminate, endpoint);
                }
                _ => {}
            }
        }
    }
}

async fn until(tally: &Tally, is_so: impl Fn(&Target) -> bool) -> Target {
    loop {
        let target = tally.report().targets["web"].clone();
        if is_so(&target) {
            return target;
        }
        timeout(Duration::from_millis(5), std::future::pending::<()>()).await.unwrap_err();
    }
}

#[test]
fn clients_of_a_healthy_endpoint_report_no_failure() {
    block_on(async {
        for (mode, more) in [("echo", ",rate=200,held=5"), ("greet", ",rate=200,held=5,greet")] {
            let (address, _running, endpoint) = start(mode).await;
            let aim = aim(address, more);
            let tally = Arc::new(Tally::new(std::slice::from_ref(&aim)));
            let new = tokio::spawn(open(aim.clone(), DEADLINE, Arc::clone(&tally)));
            let held: Vec<_> =
                (0..5).map(|_| tokio::spawn(held::hold(aim.clone(), DEADLINE, Arc::clone(&tally)))).collect();
            let seen = until(&tally, |target| target.ok >= 100 && target.held.now == 5).await;
            assert_eq!((seen.failed, seen.untidy_ends, seen.held.ended.len()), (0, 0, 0), "{seen:?}");
            assert_eq!(seen.pods.keys().collect::<Vec<_>>(), ["pod-1"], "{seen:?}");
            assert!(seen.latency.max > 0.0 && seen.attempted >= seen.ok, "{seen:?}");
            new.abort();
            held.iter().for_each(JoinHandle::abort);
            endpoint.abort();
        }
    });
}

#[test]
fn failures_are_told_apart() {
    block_on(async {
        let patience = Duration::from_millis(200);
        let (address, _running, endpoint) = start("reset").await;
        let failure = exchange(&aim(address, ""), 1, DEADLINE).await.err().unwrap();
        assert_eq!(failure.kind, "reset", "{:?}", failure.sample);
        endpoint.abort();

        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let failure = exchange(&aim(address, ""), 1, patience).await.err().unwrap();
        assert_eq!(
            (failure.kind, failure.sample.stage.as_str()),
            ("timeout", "answer"),
            "{:?}",
            failure.sample
        );

        let aim_there = aim(address, "");
        let (closes, _) = tokio::join!(exchange(&aim_there, 1, DEADLINE), async {
            // Once for the client above, whose connection still waits in the queue.
            drop(silent.accept().await.unwrap());
            let client = Conversation::new(silent.accept().await.unwrap().0);
            client.end(DEADLINE).await.ok();
        });
        assert_eq!(closes.err().unwrap().kind, "closed");

        drop(silent);
        let failure = exchange(&aim(address, ""), 1, DEADLINE).await.err().unwrap();
        assert_eq!(
            (failure.kind, failure.sample.stage.as_str()),
            ("refused", "connect"),
            "{:?}",
            failure.sample
        );
    });
}

#[test]
fn an_endpoint_that_leaves_announces_the_end_of_held_connections() {
    block_on(async {
        let (address, terminate, endpoint) = start("echo").await;
        let aim = aim(address, ",held=3");
        let tally = Arc::new(Tally::new(std::slice::from_ref(&aim)));
        for _ in 0..3 {
            tokio::spawn(held::hold(aim.clone(), DEADLINE, Arc::clone(&tally)));
        }
        until(&tally, |target| target.held.now == 3).await;
        let signalled = pace::now();
        terminate.send(()).unwrap();
        endpoint.await.unwrap().unwrap();
        let lived = pace::now() - signalled;
        let seen = until(&tally, |target| target.held.ended_by_pod.contains_key("announced")).await;
        assert_eq!(seen.held.ended["announced"].count, 3, "{seen:?}");
        assert_eq!(seen.held.ended_by_pod["announced"]["pod-1"], 3, "{seen:?}");
        assert!(lived >= 600, "grace and linger are 300 ms each, it left after {lived} ms");
    });
}

#[test]
fn a_cut_of_a_held_connection_is_no_announced_end() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let aim = aim(listener.local_addr().unwrap(), ",held=1");
        let tally = Arc::new(Tally::new(std::slice::from_ref(&aim)));
        tokio::spawn(held::hold(aim, DEADLINE, Arc::clone(&tally)));
        for how in ["closed", "reset"] {
            let mut client = Conversation::new(listener.accept().await.unwrap().0);
            let line = client.line().await.unwrap().unwrap();
            client.say(&format!("pod-1 {line}")).await.unwrap();
            until(&tally, |target| target.held.now == 1).await;
            match how {
                "closed" => {
                    client.end(DEADLINE).await.unwrap_or_else(|error| assert_eq!(kind(&error), "reset"))
                }
                _ => client.reset().unwrap(),
            }
            until(&tally, |target| target.held.ended.contains_key(how)).await;
        }
        let seen = tally.report().targets["web"].clone();
        assert!(!seen.held.ended.contains_key("announced"), "{seen:?}");
    });
}
