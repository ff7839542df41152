//! The `traceparent` of the W3C Trace Context, as the text that an extension (TLV) carries
//! (<https://www.w3.org/TR/trace-context/#traceparent-header>).

use std::fmt;

/// The trace that a connection belongs to, and the span that it is a part of. Neither is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: u128,
    pub span: u64,
    /// Whether whoever made the span keeps the trace.
    pub is_sampled: bool,
}

/// Version, trace, span and flags, with what is between them.
const LENGTH: usize = 55;

impl TraceParent {
    /// `None`: it is none, and to be ignored.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (known, more) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let version = number(parts.next()?, 2)?;
        let trace = number(parts.next()?, 32)?;
        let span = u64::try_from(number(parts.next()?, 16)?).ok()?;
        let flags = number(parts.next()?, 2)?;
        // Later versions may say more behind another dash; 255 is none.
        let is_whole = match version {
            0 => more.is_empty(),
            255 => false,
            _ => more.is_empty() || more.starts_with('-'),
        };
        let is_valid = is_whole && parts.next().is_none() && trace != 0 && span != 0;
        is_valid.then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// So many lowercase hexadecimal digits.
fn number(digits: &str, length: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_number = digits.len() == length && digits.bytes().all(is_digit);
    is_number.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const PARENT: TraceParent = TraceParent {
        trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        span: 0x00f0_67aa_0ba9_02b7,
        is_sampled: true,
    };

    #[test]
    fn the_example_of_the_specification_is_understood() {
        assert_eq!(TraceParent::parse(TEXT.as_bytes()), Some(PARENT));
        assert_eq!(PARENT.to_string(), TEXT);
        let unsampled = TEXT.replace("-01", "-00");
        assert_eq!(
            TraceParent::parse(unsampled.as_bytes()),
            Some(TraceParent { is_sampled: false, ..PARENT })
        );
        let later = format!("cc{}-what-comes", &TEXT[2..]);
        assert_eq!(TraceParent::parse(later.as_bytes()), Some(PARENT));
    }

    #[test]
    fn what_is_none_is_ignored() {
        for text in [
            "",
            "00",
            &TEXT.to_uppercase(),
            &TEXT[..54],
            &format!("{TEXT}-00"),
            &format!("cc{}.", &TEXT[2..]),
            &format!("ff{}", &TEXT[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
            "00+4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_anything_can_be(trace in 1_u128.., span in 1_u64.., is_sampled: bool, any: Vec<u8>) {
            let parent = TraceParent { trace, span, is_sampled };
            prop_assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
            prop_assert_eq!(TraceParent::parse(&any), None);
        }
    }
}
