//! OpenMetrics text, read line by line: the samples, without what types and help say.

use std::borrow::Cow;

/// One line. Its labels are looked at only when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    labels: &'a str,
    pub(super) value: f64,
}

/// All samples of the text; a line that cannot be read is none.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => {
            let end = labels_end(inside)?;
            (&inside[..end], &inside[end + 1..])
        }
        None => ("", rest),
    };
    // A timestamp or an exemplar may follow.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// Where the brace is that closes the labels: not one within a value.
fn labels_end(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

impl<'a> Sample<'a> {
    /// The value of a label, if the sample has it.
    pub(super) fn label(&self, wanted: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.labels;
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let end = value_end(after)?;
            if name.trim_start_matches([',', ' ']) == wanted {
                return Some(unescape(&after[..end]));
            }
            rest = &after[end + 1..];
        }
    }
}

fn value_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => text.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            (c, false) => text.push(c),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn samples_are_read_with_labels_exemplars_and_timestamps() {
        let text = "# HELP a Words {of=\"help\"} 1\n# TYPE a counter\na_total 3\n\
                    b_bucket{le=\"0.1\",upstream=\"p\\\"}g\"} 7 # {trace_id=\"0af7\"} 0.05 1.5\n\
                    c{} +Inf 1700000000.5\nhalf{a=\"b\nhalf\n\n# EOF\n";
        let all: Vec<_> = samples(text).collect();
        assert_eq!(all.len(), 3, "{all:?}");
        assert_eq!((all[0].name, all[0].value, all[0].label("le")), ("a_total", 3.0, None));
        assert_eq!((all[1].name, all[1].value), ("b_bucket", 7.0));
        assert_eq!(all[1].label("le").as_deref(), Some("0.1"));
        assert_eq!(all[1].label("upstream").as_deref(), Some("p\"}g"));
        assert_eq!(all[1].label("trace_id"), None);
        assert_eq!((all[2].name, all[2].value), ("c", f64::INFINITY));
    }

    proptest! {
        #[test]
        fn whatever_a_label_holds_comes_back(first in any::<String>(), second in any::<String>(), value in 0..1000_u32) {
            let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            // A line ends with what `lines` takes for an end too; no encoder of ours writes it raw.
            let (first, second) = (first.replace('\r', ""), second.replace('\r', ""));
            let line = format!("name{{a=\"{}\",b=\"{}\"}} {value}", escape(&first), escape(&second));
            let samples: Vec<_> = samples(&line).collect();
            prop_assert_eq!(samples.len(), 1);
            let label = |name| samples[0].label(name).map(Cow::into_owned);
            prop_assert_eq!((label("a"), label("b")), (Some(first), Some(second)));
            prop_assert_eq!(samples[0].value, f64::from(value));
        }

        #[test]
        fn any_text_is_read_without_harm(text in any::<String>()) {
            for sample in samples(&text) {
                sample.label("a");
            }
        }
    }
}
