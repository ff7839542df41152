//! What keeps trouble small: breaker, backoff, retry budget, health verdicts, ejections, limits of
//! one client, overload, rebalancing, the pace of a drain.
//!
//! Pure but for the breaker's clock, which is failsafe's own. Nothing here dials, sleeps or spawns.

mod backoff;
mod breaker;
mod budget;
mod close_rate;
mod ejection;
mod health;
mod overload;
mod rebalance;
mod sources;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerPolicy, BreakerState, Permit};
pub use budget::{Budget, BudgetPolicy};
pub use close_rate::CloseRate;
pub use ejection::{Change, Ejection, EjectionPolicy, Ejections};
pub use health::{Health, Streak};
pub use overload::{MemoryReading, MemoryState, Watermark};
pub use rebalance::{ClosePace, Share, excess};
pub use sources::{SourcePlace, SourcePolicy, SourceRefusal, Sources};
