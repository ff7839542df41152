//! Names of connections that hold beyond this process, in the form of the W3C Trace Context
//! (<https://www.w3.org/TR/trace-context/#traceparent-header>).
//!
//! They follow from the connection's number, so that nobody has to keep them.

use std::fmt;
use std::sync::LazyLock;

/// Names one connection among those of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// One that another process has made.
    pub(crate) fn new(id: u128) -> Self {
        Self(id)
    }

    pub(crate) fn get(self) -> u128 {
        self.0
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Whether it is in this share (0 to 1) of all traces. As OpenTelemetry's `TraceIdRatioBased` has it, so that all
    /// processes that keep a share of the same traces keep the same ones.
    pub(super) fn is_within(self, share: f64) -> bool {
        const ALL: f64 = (1_u64 << 63) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let lower = self.0 as u64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it ends at the bounds")]
        let bound = (share * ALL) as u64;
        lower >> 1 < bound
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// This process; another one at each start.
static PROCESS: LazyLock<(u64, u64)> = LazyLock::new(|| (fastrand::u64(1..), fastrand::u64(..)));

/// The trace of the connection with this number.
pub fn trace_id(connection: u64) -> TraceId {
    let (process, salt) = *PROCESS;
    TraceId(u128::from(process) << 64 | u128::from(mix(connection ^ salt)))
}

/// The span of the connection itself. Never 0, which would mean none.
pub fn span_id(connection: u64) -> u64 {
    let (process, salt) = *PROCESS;
    mix(connection ^ process.rotate_left(32) ^ salt).max(1)
}

/// The `number`th span below that of the connection.
pub(super) fn child_span_id(connection: u64, number: usize) -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    mix(span_id(connection).wrapping_add(STEP.wrapping_mul(number as u64 + 1))).max(1)
}

/// Names this process among all that there are and were; its traces begin with it.
pub(super) fn instance() -> String {
    format!("{:016x}", PROCESS.0)
}

/// Different numbers stay different (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_connection_has_names_of_its_own() {
        let traces: HashSet<TraceId> = (1..10_000).map(trace_id).collect();
        let spans: HashSet<u64> = (1..10_000).map(span_id).collect();
        assert_eq!((traces.len(), spans.len()), (9_999, 9_999));
        let children: HashSet<u64> =
            (1..1_000).flat_map(|id| (0..10).map(move |number| child_span_id(id, number))).collect();
        assert_eq!(children.len(), 9_990);
        assert!(children.is_disjoint(&spans));
        assert!(trace_id(7).to_string().starts_with(&instance()));
        assert_eq!(trace_id(7), trace_id(7));
        assert_eq!(trace_id(7).to_string().len(), 32);
    }
}
