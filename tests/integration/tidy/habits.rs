//! Unsafe code, sleeping tests and placeholders.

use super::Violation;
use super::source::Source;

/// Where `unsafe` may stand, with the reason: one small module per need.
const UNSAFE: &[(&str, &str)] =
    &[("src/worker/runtime/receive.rs", "compio marks as unsafe to say how much of a buffer was filled")];

/// The polling helpers are the places of the tests that may wait for time to pass, and the workload's pace is time.
const SLEEPERS: &[&str] = &[
    "tests/integration/support.rs",
    "tests/integration/support/eventually.rs",
    "tests/e2e/support/eventually.rs",
    "tests/workload/pace.rs",
];

pub(super) fn unsafe_code(source: &Source) -> Vec<Violation> {
    if UNSAFE.iter().any(|(path, _)| *path == source.path) {
        return Vec::new();
    }
    let why = "`unsafe` stands only in the files that tests/integration/tidy/habits.rs lists with a reason";
    let tokens = source.tokens.iter().filter(|token| token.text == "unsafe");
    tokens.map(|token| Violation::new(source, token.line, "unsafe", why)).collect()
}

/// An exception that nothing needs any more would allow the next one unseen.
pub(super) fn unused_exceptions(sources: &[Source]) -> Vec<Violation> {
    let is_used = |path: &str| {
        let mut tokens =
            sources.iter().filter(|source| source.path == path).flat_map(|source| &source.tokens);
        tokens.any(|token| token.text == "unsafe")
    };
    let unused = UNSAFE.iter().filter(|(path, _)| !is_used(path));
    unused
        .map(|(path, _)| Violation {
            path: (*path).to_owned(),
            line: 1,
            rule: "unsafe",
            why: "listed as an exception, but has no `unsafe`: take it off the list".to_owned(),
        })
        .collect()
}

pub(super) fn sleeps_in_tests(source: &Source) -> Vec<Violation> {
    if SLEEPERS.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let why =
        "a test that sleeps is slow or flaky: wait for the condition with `eventually` and its deadline";
    let paths = source.paths();
    let sleeps = paths.iter().filter(|path| {
        let name = path.segments[path.segments.len() - 1];
        path.segments.len() > 1 && matches!(name, "sleep" | "sleep_until") && source.is_test(path.line)
    });
    sleeps.map(|path| Violation::new(source, path.line, "sleep", why)).collect()
}

pub(super) fn placeholders(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for window in source.tokens.windows(3) {
        let why = match [window[0].text.as_str(), &window[1].text, &window[2].text] {
            [name @ ("todo" | "unimplemented"), "!", _] => format!("`{name}!`: finish it, or leave it out"),
            ["#", "[", "ignore"] => "an ignored test proves nothing: make it run, or delete it".to_owned(),
            _ => continue,
        };
        violations.push(Violation::new(source, window[0].line, "placeholder", why));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::lines_of;
    use super::*;

    #[test]
    fn unsafe_needs_a_place_on_the_list() {
        assert_eq!(lines_of(unsafe_code, "src/worker.rs", "fn a() {\n    unsafe { b() }\n}"), [2]);
        assert_eq!(
            lines_of(unsafe_code, "src/lib.rs", "#![deny(unsafe_code)] // unsafe \"unsafe\""),
            [0_usize; 0]
        );
    }

    #[test]
    fn tests_do_not_sleep() {
        let text = "fn a() {\n    std::thread::sleep(b);\n}";
        assert_eq!(lines_of(sleeps_in_tests, "tests/integration/relay.rs", text), [2]);
        assert_eq!(lines_of(sleeps_in_tests, "tests/integration/support.rs", text), [0_usize; 0]);
        assert_eq!(lines_of(sleeps_in_tests, "tests/a.rs", "use tokio::time::{sleep, timeout};"), [1]);
        assert_eq!(lines_of(sleeps_in_tests, "src/control.rs", "tokio::time::sleep(a)"), [0_usize; 0]);
        assert_eq!(lines_of(sleeps_in_tests, "src/a.rs", "#[cfg(test)]\nmod t {\ntime::sleep(a)\n}"), [3]);
    }

    #[test]
    fn placeholders_are_found() {
        assert_eq!(lines_of(placeholders, "src/a.rs", "fn a() {\n    todo!()\n}"), [2]);
        assert_eq!(lines_of(placeholders, "src/a.rs", "fn a() { unimplemented!(\"b\") }"), [1]);
        assert_eq!(lines_of(placeholders, "tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}"), [2]);
        assert_eq!(lines_of(placeholders, "src/a.rs", "// todo!()\nlet todo = ignore[1];"), [0_usize; 0]);
    }
}
