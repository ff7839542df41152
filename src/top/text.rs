//! Text of others, made fit for a terminal where it comes in: names, problems, answers of a port.
//!
//! Whatever is shown is a [`Text`] or was written here, so that no escape sequence gets through.

use std::fmt;

use serde::Deserialize;

/// Printable and bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub(super) struct Text(Box<str>);

/// Characters of which nobody needs more in a line.
const LENGTH_MAX: usize = 400;

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let is_plain = text.len() <= LENGTH_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if is_plain {
            return Self(text.into());
        }
        let mut clean = String::with_capacity(text.len().min(LENGTH_MAX));
        for (at, c) in text.chars().enumerate() {
            if at == LENGTH_MAX {
                clean.push('…');
                break;
            }
            match c {
                '\n' | '\t' => clean.push(' '),
                c if is_harmless(c) => clean.push(c),
                c => clean.extend(c.escape_unicode()),
            }
        }
        Self(clean.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Letters and digits of any script, and ASCII. What else there is may move the cursor, turn the direction of writing or
/// take no room, and no name needs it.
fn is_harmless(c: char) -> bool {
    matches!(c, ' '..='~') || (c.is_alphanumeric() && !c.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        let shown = |text: &str| Text::from(text).to_string();
        assert_eq!(shown("pg-1.example [::1]:5432 \"~\""), "pg-1.example [::1]:5432 \"~\"");
        assert_eq!(shown("\u{1b}[2Jgone"), "\\u{1b}[2Jgone");
        assert_eq!(shown("\u{9b}31m\r\u{7f}"), "\\u{9b}31m\\u{d}\\u{7f}");
        assert_eq!(shown("two\nlines\tand"), "two lines and");
        assert_eq!(shown("abc\u{202e}cba\u{200b}"), "abc\\u{202e}cba\\u{200b}");
        assert_eq!(shown("münchen.例え"), "münchen.例え");
        assert_eq!(shown(&"x".repeat(401)), format!("{}…", "x".repeat(400)));
    }

    #[test]
    fn what_comes_as_json_is_cleaned_too() {
        let text: Text = serde_json::from_str(r#""\u001b]0;title\u0007""#).unwrap();
        assert_eq!(text.as_str(), "\\u{1b}]0;title\\u{7}");
    }

    proptest! {
        #[test]
        fn no_text_has_a_control_character_or_more_than_its_length(text in any::<String>()) {
            let clean = Text::from(text.as_str());
            prop_assert!(clean.as_str().chars().all(|c| is_harmless(c) || c == '…'));
            prop_assert!(clean.as_str().chars().count() <= 10 * LENGTH_MAX + 1);
        }
    }
}
