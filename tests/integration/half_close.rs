//! Half-close in either order: FIN passes on, the other direction goes on.
