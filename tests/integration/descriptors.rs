//! Few file descriptors and many clients: nobody is dropped.
