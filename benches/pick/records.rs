//! A record as most connections leave it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use sheave::telemetry::{Attempt, ConnectionRecord, Outcome, Timeline, Wants, trace_id};

pub(super) fn record(id: u64) -> ConnectionRecord {
    let endpoint = SocketAddr::from(([10, 0, 0, 7], 5432));
    let at = |microseconds| Some(Duration::from_micros(microseconds));
    ConnectionRecord {
        id,
        trace: trace_id(id),
        parent: None,
        wants: Wants::default(),
        worker: 0,
        client: ([192, 0, 2, 7], 40_000).into(),
        via: None,
        local: None,
        listener: "postgres".into(),
        route: Some("postgres".into()),
        upstream: Some("postgres".into()),
        service: None,
        endpoint: Some(endpoint),
        attempts: vec![Attempt {
            endpoint,
            started: Duration::from_micros(120),
            pod: None,
            local: None,
            handshake_started: None,
            ended: Duration::from_micros(450),
            failure: None,
            reason: None,
        }],
        bytes_received: 517,
        bytes_sent: 16_384,
        tls: None,
        timeline: Timeline {
            accepted: SystemTime::UNIX_EPOCH + Duration::from_micros(1_790_000_000_123_456),
            proxy_ended: None,
            routed: at(90),
            connect_started: at(120),
            connect_ended: at(450),
            first_byte_downstream: at(470),
            first_byte_upstream: at(1_200),
            half_close_downstream: at(3_000),
            half_close_upstream: None,
            drain_started: None,
            ended: Duration::from_micros(3_120),
        },
        outcome: Outcome::DownstreamClosed,
    }
}
