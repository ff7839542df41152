//! The binary: everything is in the library.

use std::process::ExitCode;

/// Many small, short-lived allocations per connection: an allocator that is good at those is worth a dependency.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sheave::cli::main()
}
