//! A reader that stops reading throttles the writer, at a bounded cost of memory.
