//! Facts of the runtime that the design rests on, pinned for its version.
