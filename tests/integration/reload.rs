//! New tables under load: nothing on listeners that stay is cut.
