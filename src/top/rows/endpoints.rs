//! Endpoints: whether they are used, and why not.

use crate::top::counts::{Counts, EndpointCounts};
use crate::top::format::duration;
use crate::top::reading::{Endpoint, Upstream};
use crate::top::sheet::{Cell, Column, Row, Tone, Unit, column};
use crate::top::text::Text;

use super::Since;

pub(super) const ENDPOINTS: &[Column] = &[
    column("endpoint", Unit::Text, 0),
    column("upstream", Unit::Text, 1),
    column("state", Unit::Text, 0),
    column("live", Unit::Count, 0),
    column("conn", Unit::PerSecond, 2),
    column("failed", Unit::PerSecond, 2),
    column("connect", Unit::Seconds, 4),
    column("breaker", Unit::Text, 5),
    column("weight", Unit::Count, 7),
    column("priority", Unit::Count, 8),
    column("zone", Unit::Text, 6),
    column("why", Unit::Text, 3),
];

/// The states of an endpoint, worst first; an endpoint has the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::top) enum State {
    Leaving,
    Open,
    HalfOpen,
    Ejected,
    Unhealthy,
    Full,
    SlowStart,
    Usable,
}

impl State {
    pub(in crate::top) fn label(self) -> &'static str {
        match self {
            Self::Leaving => "leaving",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
            Self::Full => "full",
            Self::SlowStart => "slow-start",
            Self::Usable => "usable",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Leaving => Tone::Faint,
            Self::Open | Self::Ejected | Self::Unhealthy => Tone::Bad,
            Self::HalfOpen | Self::Full | Self::SlowStart => Tone::Warn,
            Self::Usable => Tone::Good,
        }
    }
}

/// How many of its endpoints an upstream may use now, and in which states the others are.
pub(in crate::top) fn usable(upstream: &Upstream) -> (u64, Vec<State>) {
    let mut others = Vec::new();
    let mut usable = 0;
    for endpoint in &upstream.endpoints {
        match state(endpoint) {
            State::Usable | State::SlowStart => usable += 1,
            // Health is ignored while the upstream panics.
            State::Ejected | State::Unhealthy if upstream.panics => usable += 1,
            other => others.push(other),
        }
    }
    (usable, others)
}

pub(super) fn endpoints(since: &Since<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for upstream in &since.now.table.upstreams {
        let rows_of = |endpoint, state| row(since, upstream, endpoint, state);
        rows.extend(upstream.endpoints.iter().map(|endpoint| rows_of(endpoint, state(endpoint))));
        rows.extend(upstream.leaving.iter().map(|endpoint| rows_of(endpoint, State::Leaving)));
    }
    rows
}

fn row(since: &Since<'_>, upstream: &Upstream, endpoint: &Endpoint, state: State) -> Row {
    let counts = |counts: &Counts, count: fn(&EndpointCounts) -> f64| {
        counts.endpoints.get(&upstream.name)?.get(&endpoint.address).map(count)
    };
    let breaker: Cell = endpoint.breaker.as_ref().into();
    vec![
        (&endpoint.address).into(),
        (&upstream.name).into(),
        Cell::from(state.label()).tone(state.tone()),
        endpoint.active.into(),
        since.rate(|now| counts(now, |endpoint| endpoint.ended)).into(),
        Cell::from(since.rate(|now| counts(now, |endpoint| endpoint.failures))).tone_if_any(Tone::Bad),
        endpoint.connect_millis.map(|millis| millis / 1e3).into(),
        breaker,
        endpoint.weight.into(),
        endpoint.priority.into(),
        endpoint.zone.as_ref().into(),
        Cell::from(&why(upstream, endpoint, state)).tone(Tone::Faint),
    ]
}

fn state(endpoint: &Endpoint) -> State {
    let breaker = endpoint.breaker.as_ref().map(Text::as_str);
    let says = |check: &str| endpoint.unhealthy_by.iter().any(|by| by.as_str() == check);
    match breaker {
        Some("open") => State::Open,
        Some("half_open") => State::HalfOpen,
        _ if endpoint.ejected_for_seconds.is_some() || says("passive") => State::Ejected,
        _ if !endpoint.unhealthy_by.is_empty() => State::Unhealthy,
        _ if endpoint.limit.is_some_and(|limit| endpoint.active >= limit) => State::Full,
        _ if endpoint.slow_start_percent.is_some() => State::SlowStart,
        _ => State::Usable,
    }
}

/// Everything that keeps connections away from it, not only what its state says.
fn why(upstream: &Upstream, endpoint: &Endpoint, state: State) -> Text {
    let mut why: Vec<String> = Vec::new();
    match state {
        State::Leaving => why.push("left the table; its connections go on".to_owned()),
        State::Open => why.push("its breaker is open".to_owned()),
        State::HalfOpen => why.push("its breaker lets one attempt through".to_owned()),
        _ => {}
    }
    if let Some(seconds) = endpoint.ejected_for_seconds {
        why.push(format!("ejected for {}", duration(seconds)));
    }
    if let Some(failure) = &endpoint.probe_failure {
        why.push(format!("probe: {failure}"));
    } else if endpoint.unhealthy_by.iter().any(|by| by.as_str() == "active") {
        why.push("unhealthy by its probes".to_owned());
    }
    if upstream.panics && !endpoint.unhealthy_by.is_empty() {
        why.push("used all the same: the upstream panics".to_owned());
    }
    if let Some(limit) = endpoint.limit.filter(|limit| endpoint.active >= *limit) {
        why.push(format!("full: {} of {limit}", endpoint.active));
    }
    if let Some(percent) = endpoint.slow_start_percent {
        why.push(format!("slow start: {percent} % of its share"));
    }
    why.join("; ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(json: &str) -> Endpoint {
        let all = format!("{{\"address\": \"10.0.0.1:1\", \"weight\": 1, \"active\": 3{json}}}");
        serde_json::from_str(&all).unwrap()
    }

    #[test]
    fn the_state_is_the_worst_and_the_reasons_are_all() {
        for (json, label, reasons) in [
            ("", "usable", ""),
            (r#","breaker":"closed","limit":4"#, "usable", ""),
            (r#","limit":3"#, "full", "full: 3 of 3"),
            (r#","slowStartPercent":40"#, "slow-start", "slow start: 40 % of its share"),
            (r#","unhealthyBy":["active"],"probeFailure":"refused""#, "unhealthy", "probe: refused"),
            (r#","unhealthyBy":["active"]"#, "unhealthy", "unhealthy by its probes"),
            (
                r#","unhealthyBy":["active","passive"],"ejectedForSeconds":29.7,"probeFailure":"refused""#,
                "ejected",
                "ejected for 30 s; probe: refused",
            ),
            (
                r#","breaker":"open","unhealthyBy":["passive"],"ejectedForSeconds":90.0"#,
                "open",
                "its breaker is open; ejected for 1m 30s",
            ),
            (r#","breaker":"half_open""#, "half-open", "its breaker lets one attempt through"),
        ] {
            let endpoint = endpoint(json);
            let state = state(&endpoint);
            assert_eq!(state.label(), label, "{json}");
            assert_eq!(why(&Upstream::default(), &endpoint, state).as_str(), reasons, "{json}");
        }
    }

    #[test]
    fn an_upstream_that_panics_uses_the_unhealthy_but_no_open_breaker() {
        let endpoints = vec![
            endpoint(""),
            endpoint(r#","unhealthyBy":["active"]"#),
            endpoint(r#","unhealthyBy":["active"]"#),
            endpoint(r#","breaker":"open""#),
        ];
        let calm = Upstream { endpoints, ..Upstream::default() };
        assert_eq!(usable(&calm), (1, vec![State::Unhealthy, State::Unhealthy, State::Open]));
        let panics = Upstream { panics: true, ..calm };
        assert_eq!(usable(&panics), (3, vec![State::Open]));
        let why = why(&panics, &panics.endpoints[1], State::Unhealthy);
        assert!(why.as_str().ends_with("the upstream panics"), "{why}");
    }
}
