//! A reset of one side arrives as a reset on the other, and is recorded.
