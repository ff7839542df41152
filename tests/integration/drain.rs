//! The end of the process: who may still come, who goes first, who is cut.
