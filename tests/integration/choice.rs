//! Which route, which upstream, which endpoint: exact for the process.
