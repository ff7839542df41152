//! A panic in a connection and a worker that dies.
