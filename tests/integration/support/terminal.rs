//! A program in a pseudo terminal: keys in, a screen out.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use super::{eventually, eventually_some};

/// The program is killed with its value, should it still run.
pub(crate) struct Terminal {
    master: File,
    /// Held, so that what the program leaves behind can be looked at.
    slave: OwnedFd,
    child: Child,
    seen: Arc<Mutex<Seen>>,
    modes_before: String,
}

struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    /// `sheave` with these arguments; `prepare` may change the command.
    pub(crate) fn start(
        columns: u16,
        rows: u16,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        tcsetwinsize(&slave, size(columns, rows)).unwrap();
        let modes_before = modes(&slave);
        // Makes it the controlling terminal, so that the program hears of a new size.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(env!("CARGO_BIN_EXE_sheave")).args(arguments);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        prepare(&mut command);
        let child = command.spawn().unwrap();
        let seen = Arc::new(Mutex::new(Seen { parser: parser(columns, rows), bytes: Vec::new() }));
        let master = File::from(master);
        follow(master.try_clone().unwrap(), Arc::clone(&seen));
        Self { master, slave, child, seen, modes_before }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.seen.lock().unwrap().parser.screen_mut().set_size(at_least_one(rows), at_least_one(columns));
        tcsetwinsize(&self.slave, size(columns, rows)).unwrap();
    }

    /// The screen as it is now.
    pub(crate) fn text(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    /// Everything that was ever written to it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bytes.clone()
    }

    /// Waits until the screen has this text.
    pub(crate) fn shows(&self, text: &str) -> String {
        eventually(&format!("{text:?} on the screen"), || Shown(self.text()), |shown| shown.0.contains(text))
            .0
    }

    /// Whether a character on the screen has a colour of its own.
    pub(crate) fn has_colours(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let screen = seen.parser.screen();
        let (rows, columns) = screen.size();
        let (rows, columns) = (rows.get(), columns.get());
        let mut cells =
            (0..rows).flat_map(|row| (0..columns).filter_map(move |column| screen.cell(row, column)));
        cells.any(|cell| cell.fgcolor() != vt100::Color::Default || cell.bgcolor() != vt100::Color::Default)
    }

    pub(crate) fn has_alternate_screen(&self) -> bool {
        self.seen.lock().unwrap().parser.screen().alternate_screen()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended, once it has, and has given the terminal back: as it was, with a cursor.
    pub(crate) fn ends_restored(&mut self) -> ExitStatus {
        let status = eventually_some(&format!("the end; the screen: {}", self.text()), || {
            self.child.try_wait().unwrap()
        });
        let restored = || {
            let seen = self.seen.lock().unwrap();
            let screen = seen.parser.screen();
            (screen.alternate_screen(), screen.hide_cursor(), modes(&self.slave))
        };
        eventually("a restored terminal", restored, |now| *now == (false, false, self.modes_before.clone()));
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Printed as a picture when a test fails.
struct Shown(String);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\n{}\n", self.0)
    }
}

/// Reads until the terminal is gone.
fn follow(mut master: File, seen: Arc<Mutex<Seen>>) {
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = master.read(&mut piece) {
            let mut seen = seen.lock().unwrap();
            seen.parser.process(&piece[..length]);
            seen.bytes.extend_from_slice(&piece[..length]);
        }
    });
}

fn modes(terminal: &OwnedFd) -> String {
    let modes = tcgetattr(terminal).unwrap();
    format!("{:?} {:?} {:?}", modes.input_modes, modes.output_modes, modes.local_modes)
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn parser(columns: u16, rows: u16) -> vt100::Parser {
    vt100::Parser::new(at_least_one(rows), at_least_one(columns), 0)
}

fn at_least_one(length: u16) -> NonZeroU16 {
    NonZeroU16::new(length).unwrap()
}
