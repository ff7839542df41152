use super::*;
use crate::config::Name;
use crate::control::kubernetes::plan::Resource;
use crate::control::kubernetes::trouble::Verb;

fn scope(namespace: &str) -> Arc<Scope> {
    let names: Vec<Name> = vec!["pg".into()];
    Arc::new(Scope { resource: Resource::EndpointSlices, namespace: namespace.into(), names })
}

fn status(code: u16) -> kube::core::Status {
    kube::core::Status { code, message: "no".into(), ..Default::default() }
}

#[test]
fn an_outage_is_visible_and_no_reason_to_be_unready_once_all_was_listed() {
    let (one, other, now) = (scope("one"), scope("other"), Instant::now());
    let health = Watches::default();
    health.expect(&[Arc::clone(&one), Arc::clone(&other)], false);
    assert!(health.not_ready(now).unwrap().starts_with("2 of 2 watches have not been listed"));
    health.listed(&one, now);
    health.opened(&one, now);
    let trouble = Trouble::silent(&other, Verb::List, Duration::from_secs(30));
    assert!(health.failed(&other, trouble.clone(), now));
    assert!(!health.failed(&other, trouble.clone(), now), "the same again is no news");
    let why = health.not_ready(now).unwrap();
    assert!(
        why.contains("1 of 2") && why.contains("no answer to listing endpointslices in namespace other"),
        "{why}"
    );
    health.listed(&other, now);
    health.opened(&other, now);
    assert!(health.recovered(&other) && !health.recovered(&one));
    assert_eq!(health.not_ready(now), None);
    health.failed(&one, trouble, now);
    assert_eq!(health.not_ready(now), None);
    let synced: Vec<bool> = health.watches().iter().map(|watch| watch.synced).collect();
    assert_eq!(synced, [false, true]);
    assert_eq!(health.errors().values().sum::<u64>(), 3);
}

#[test]
fn what_is_forbidden_for_long_holds_up_nothing_else() {
    let (refused, other, now) = (scope("one"), scope("other"), Instant::now());
    let health = Watches::default();
    health.expect(&[Arc::clone(&refused), Arc::clone(&other)], false);
    health.listed(&other, now);
    let forbidden = || Trouble::status(&refused, Verb::List, &status(403));
    let text = forbidden().text;
    assert!(text.contains("listing endpointslices in namespace one is forbidden"), "{text}");
    let rule = r#"{apiGroups: ["discovery.k8s.io"], resources: [endpointslices], verbs: [list, watch]}"#;
    assert!(text.contains(rule), "{text}");
    health.failed(&refused, forbidden(), now);
    assert!(health.not_ready(now + Duration::from_secs(9)).is_some());
    let unreachable = Trouble::silent(&refused, Verb::List, Duration::from_secs(30));
    health.failed(&refused, unreachable, now);
    assert!(health.not_ready(now + Duration::from_secs(99)).is_some(), "that is no refusal any more");
    health.failed(&refused, forbidden(), now);
    assert_eq!(health.not_ready(now + Duration::from_secs(10)), None);
}

#[test]
fn with_nothing_to_serve_nobody_is_ready() {
    let (refused, now) = (scope("one"), Instant::now());
    let later = now + Duration::from_secs(3_600);
    let health = Watches::default();
    health.expect(&[Arc::clone(&refused)], false);
    health.failed(&refused, Trouble::status(&refused, Verb::List, &status(403)), now);
    let why = health.not_ready(later).unwrap();
    assert!(why.contains("1 of 1") && why.contains("forbidden"), "{why}");
    health.expect(&[Arc::clone(&refused)], true);
    assert_eq!(health.not_ready(later), None, "there are other upstreams to serve");
}

#[test]
fn one_line_for_all_watches_of_a_namespace() {
    let part = |service: &str| Arc::new(Scope { names: vec![service.into()], ..Scope::clone(&scope("one")) });
    let (one, other, now) = (part("a"), part("b"), Instant::now());
    let health = Watches::default();
    health.expect(&[Arc::clone(&one), Arc::clone(&other)], false);
    let trouble = || Trouble::silent(&one, Verb::List, Duration::from_secs(30));
    assert!(health.failed(&one, trouble(), now));
    assert!(!health.failed(&other, trouble(), now));
}

#[test]
fn a_process_that_began_without_a_cluster_stays_ready() {
    let (later, now) = (scope("one"), Instant::now());
    let health = Watches::default();
    health.expect(&[], false);
    health.expect(&[Arc::clone(&later)], false);
    assert_eq!(health.not_ready(now), None);
}

#[test]
fn what_a_reload_adds_makes_nobody_unready_who_was_ready_unasked() {
    let (one, other, now) = (scope("one"), scope("other"), Instant::now());
    let health = Watches::default();
    health.expect(&[Arc::clone(&one)], false);
    health.listed(&one, now);
    health.expect(&[one, other], false);
    assert_eq!(health.not_ready(now), None);
}
