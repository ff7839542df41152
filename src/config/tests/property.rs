//! No text makes the parser panic, and every duration survives its text.

use proptest::prelude::*;

use super::*;
use crate::config::scalar::GatewayDuration;

const FULL: &str = include_str!("../../../config/full.yaml");

fn never_panics(text: &str) -> Result<(), TestCaseError> {
    if let Err(errors) = parse(text) {
        prop_assert!(!errors.is_empty());
        for error in &errors {
            let line = error.to_string();
            prop_assert!(line.starts_with("t.yaml"), "{line}");
            prop_assert!(line.lines().count() == 1, "{line}");
            prop_assert!(line.contains(';'), "no advice: {line}");
        }
        let order: Vec<_> = errors.iter().map(|error| error.line().unwrap_or(0)).collect();
        prop_assert!(order.is_sorted() || errors.len() > errors::MAX_ERRORS);
    }
    Ok(())
}

/// A value that may stand where another was.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("~".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("-1".to_owned()),
        Just(".inf".to_owned()),
        Just("*a".to_owned()),
        Just("&a [1]".to_owned()),
        Just("\"".to_owned()),
        Just("|".to_owned()),
        "[ -~]{0,12}",
        "[0-9]{0,6}(h|m|s|ms|d)?",
        "\\PC{0,8}",
    ]
}

fn mutate(base: &str, edits: &[(u8, prop::sample::Index, String)]) -> String {
    let mut lines: Vec<String> = base.lines().map(str::to_owned).collect();
    for (kind, index, value) in edits {
        if lines.is_empty() {
            break;
        }
        let i = index.index(lines.len());
        match kind % 5 {
            0 => drop(lines.remove(i)),
            1 => lines.insert(i, lines[i].clone()),
            2 => lines[i] = format!("  {}", lines[i]),
            3 => {
                let j = (i + value.len()) % lines.len();
                lines.swap(i, j);
            }
            _ => {
                let key = lines[i].split_once(": ").map_or("", |(key, _)| key);
                lines[i] = format!("{key}: {value}");
            }
        }
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        never_panics(&text)?;
    }

    #[test]
    fn any_text_of_yaml_signs(text in "[-a-c:,&*!|>'\"%@#{}\\[\\]\\n \\t?0-9.~<]{0,80}") {
        never_panics(&text)?;
    }

    #[test]
    fn a_small_file_with_changes(edits in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), value()), 1..6)) {
        never_panics(&mutate(BASE, &edits))?;
    }

    #[test]
    fn a_full_file_with_changes(edits in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), value()), 1..6)) {
        never_panics(&mutate(FULL, &edits))?;
    }

    #[test]
    fn any_scalar(address in "\\PC{0,20}|[0-9a-f:.\\[\\]]{0,24}") {
        let quoted = serde_json::to_string(&address).unwrap();
        never_panics(&endpoint(&format!("{{address: {quoted}}}")))?;
        never_panics(&listener(&format!("allow: [{quoted}]")))?;
        never_panics(&top(&format!("drain: {{delay: {quoted}}}")))?;
        never_panics(&edit("listener: pg", &format!("listener: {quoted}")))?;
    }

    #[test]
    fn a_duration_survives_its_text(millis in 0_u64..=99_999 * 3_600_000) {
        let duration = GatewayDuration(Duration::from_millis(millis));
        prop_assert_eq!(duration.to_string().parse(), Ok(duration));
    }

    /// The pattern is that of GEP-2257.
    #[test]
    fn every_gateway_duration_is_one(text in "([0-9]{1,5}(h|m|s|ms)){1,4}") {
        let duration: GatewayDuration = text.parse().map_err(TestCaseError::fail)?;
        prop_assert!(duration.0 <= Duration::from_secs(4 * 99_999 * 3_600));
    }

    #[test]
    fn nothing_else_is_a_duration(text in "[0-9]{6,8}s|([0-9]{1,5}s){5,7}|[0-9]{1,5}(us|d|S|)|(h|m|s|ms)[0-9]{0,5}") {
        prop_assert!(text.parse::<GatewayDuration>().is_err());
    }
}
