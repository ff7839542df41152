//! Idle timeout, maximum duration, half-close timeout, keepalive.
