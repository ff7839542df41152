//! Files that are made to hurt: each is an error, quickly.

use super::*;

fn one(text: &str) -> String {
    let lines = lines(text);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.concat()
}

#[test]
fn deep_nesting_ends_early() {
    let n = 100_000;
    for (text, expected) in [
        ("[".repeat(n), "recursion limit exceeded"),
        ("{a: ".repeat(n), "recursion limit exceeded"),
        ("[{".repeat(n), "recursion limit exceeded"),
        ("- ".repeat(n), "nested more than 32 deep"),
        (format!("{}{}", "[".repeat(40), "]".repeat(40)), "nested more than 32 deep"),
    ] {
        let line = one(&text);
        assert!(line.contains(expected), "{line}");
    }
    let blocks: String = (0..500).map(|i| " ".repeat(i) + "a:\n").collect();
    assert_eq!(one(&blocks), "t.yaml:34: nested more than 32 deep; write it flatter");
}

#[test]
fn a_billion_laughs_are_none() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..20 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    assert_eq!(one(&text), "t.yaml:6: the file has more than 1000000 values; write fewer, without aliases");
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    assert_eq!(
        one("a: &a {b: [*a]}"),
        "t.yaml:1: this alias stands inside what it names; write the value out"
    );
}

#[test]
fn a_flood_of_mistakes_is_counted() {
    let text: String = (0..5_000).map(|i| format!("unknown{i}: 1\n")).collect();
    let lines = lines(&text);
    assert_eq!(lines.len(), errors::MAX_ERRORS + 1);
    // The three missing lists count too.
    assert_eq!(lines.last().map(String::as_str), Some("t.yaml: 4803 more mistakes; correct these first"));
}

#[test]
fn long_values_are_cut_short() {
    let text = top(&format!("log: {{level: {}}}", "x".repeat(10_000)));
    let line = one(&text);
    assert!(line.len() < 200, "{line}");
    let line = one(&top(&format!("? {}\n: 1", "k".repeat(10_000))));
    assert!(line.len() < 400, "{line}");
    assert!(one(&top("log: {level: \"a\\nb\\e[31m\"}")).contains(r#""a\nb\u{1b}[31m""#));
}

#[test]
fn too_many_of_anything_is_said() {
    let mut text = "listeners:\n".to_owned();
    for i in 0..5_001 {
        text += &format!("- {{name: l{i}, address: 127.0.0.1:{}}}\n", i + 1);
    }
    text += "routes:\n";
    for i in 0..5_001 {
        text += &format!("- {{name: l{i}, listener: l{i}, backendRefs: [{{upstream: u}}]}}\n");
    }
    text += "upstreams: [{name: u, endpoints: [{address: 10.0.0.7:1}]}]\n";
    assert_eq!(
        one(&text),
        "t.yaml:1: listeners: 5001 listeners and 5001 routes are too many; write at most 10000 together"
    );
}

#[test]
fn pairs_of_hostnames_and_sources_are_counted_and_not_made() {
    let hostnames: String = (0..20_000).map(|i| format!("{i}.example,")).collect();
    let sources: String = (0..10_000).map(|i| format!("10.{}.{}.{}/32,", i >> 8, i & 0xff, i % 7)).collect();
    let text = format!(
        "listeners: [{{name: l, address: 127.0.0.1:1, protocol: TLS, tls: {{mode: Passthrough}}}}]\n\
         routes: [{{name: l, listener: l, hostnames: [{hostnames}], sources: [{sources}], backendRefs: [{{upstream: u}}]}}]\n\
         upstreams: [{{name: u, endpoints: [{{address: 10.0.0.7:1}}]}}]\n",
    );
    // To look at each of them would take minutes.
    assert_eq!(
        one(&text),
        "t.yaml:2: routes: they name 200000000 combinations of a hostname, a source and a protocol; write at most 1000000"
    );
}

#[test]
fn a_name_has_a_longest_length() {
    let name = |n: usize| edit("name: pg\n    endpoints", &format!("name: {}\n    endpoints", "a".repeat(n)));
    assert!(!lines(&name(253)).iter().any(|line| line.contains("characters")));
    assert!(
        lines(&name(254)).contains(
            &"t.yaml:9: upstreams[0].name: the name has 254 characters; write at most 253".to_owned()
        )
    );
}

#[test]
fn a_text_has_a_longest_length() {
    let text = " ".repeat(MAX_FILE_BYTES + 1);
    assert_eq!(one(&text), format!("t.yaml: {TOO_LONG}"));
}
