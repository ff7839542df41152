//! Tests in a network of their own, where packets can be lost and ports can be forbidden.

use std::fs::File;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `test` on a thread in a new network namespace that has nothing but a loopback interface. Threads and processes
/// that it starts are in there too; the namespace goes with the last of them.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes a network namespace, which only root may: run it as root (sudo -E make test)"
    );
    let inside = thread::spawn(move || {
        let namespace = new_namespace();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        command("ip", &["link", "set", "lo", "up"]);
        test();
    });
    if let Err(panic) = inside.join() {
        resume_unwind(panic);
    }
}

/// A namespace that has no name any more, so that nothing is left of it however the test ends.
fn new_namespace() -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sheave-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    command("ip", &["netns", "add", &name]);
    let namespace = File::open(format!("/run/netns/{name}"));
    command("ip", &["netns", "del", &name]);
    namespace.unwrap()
}

/// Runs a command in the calling thread's namespace; it has to succeed.
pub(crate) fn command(program: &str, arguments: &[&str]) {
    // Debian keeps ip and nft in sbin, which is not on every PATH.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program}: {error}; scripts/setup installs what the tests need");
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {said}", output.status);
}
