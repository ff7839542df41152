//! Endpoints that refuse, do not answer or reset: the next one is tried, and an end has a name.
