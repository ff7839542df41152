//! IPv4, IPv6 and dual stack; addresses that cannot be had.
