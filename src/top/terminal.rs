//! The loop between the terminal and the process. Reading happens on a thread of its own, so that keys are heard
//! while an answer is awaited.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::client::{AskError, Client};
use super::reading::{Reading, Who};
use super::rows::View;
use super::screen::{Screen, Wish};
use super::view::{self, Look};

/// How long a reading or a signal may go unseen.
const TICK: Duration = Duration::from_millis(50);
/// Of the time, a reading takes at most a fourth: the process has better things to do.
const PACE: u32 = 4;

type Answer = Result<Reading, AskError>;

/// Shows the process until the person or a signal ends it. The terminal is as it was afterwards, also after a panic.
pub(super) fn watch(
    client: Client,
    interval: Duration,
    view: View,
    colours: bool,
    first: Reading,
) -> io::Result<()> {
    let ended = end_by_signal()?;
    let mut reader = Reader::start(client, interval)?;
    let mut screen = Screen::new(view, first);
    let mut terminal = Restored(ratatui::try_init()?);
    let mut is_stale = true;
    while !ended.load(Ordering::Relaxed) {
        if is_stale {
            terminal.0.draw(|frame| {
                let area = frame.area();
                screen.fit(view::page(&screen, area));
                view::draw(&screen, Look { colours }, area, frame.buffer_mut());
            })?;
        }
        is_stale = reader.turn(&mut screen)?;
        if event::poll(TICK)? {
            is_stale = true;
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match screen.press(key) {
                    Wish::Quit => break,
                    Wish::Read => reader.hurry(),
                    Wish::Nothing => {}
                },
                _ => {}
            }
        }
    }
    Ok(())
}

/// Gives the terminal back. For a panic, [`ratatui::try_init`] has seen to it already, before it is reported.
struct Restored(DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        // Fails where the terminal is gone.
        let _nothing_left_to_do = ratatui::try_restore();
    }
}

/// Set by the first signal that asks for the end. A second one ends the process by itself, should the terminal be stuck.
fn end_by_signal() -> io::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        flag::register_conditional_default(signal, Arc::clone(&ended))?;
        flag::register(signal, Arc::clone(&ended))?;
    }
    Ok(ended)
}

/// The reading thread, and when it has its next turn.
struct Reader {
    questions: flume::Sender<Who>,
    answers: flume::Receiver<Answer>,
    interval: Duration,
    asked_at: Option<Instant>,
    due: Instant,
    /// Whether it does not matter when that is.
    hurried: bool,
}

impl Reader {
    fn start(client: Client, interval: Duration) -> io::Result<Self> {
        let (questions, asked) = flume::bounded::<Who>(1);
        let (answer, answers) = flume::bounded(1);
        thread::Builder::new().name("sheave-top-reader".into()).spawn(move || {
            for who in asked {
                if answer.send(Reading::take(&client, who)).is_err() {
                    return;
                }
            }
        })?;
        let due = Instant::now() + interval;
        Ok(Self { questions, answers, interval, asked_at: None, due, hurried: false })
    }

    /// Takes what has come and asks when it is time; whether there is anything new to be seen.
    fn turn(&mut self, screen: &mut Screen) -> io::Result<bool> {
        let answer = match self.answers.try_recv() {
            Ok(answer) => Some(answer),
            Err(flume::TryRecvError::Empty) => None,
            Err(flume::TryRecvError::Disconnected) => {
                return Err(io::Error::other("the thread that reads has ended"));
            }
        };
        let has_come = answer.is_some();
        if let Some(asked_at) = self.asked_at.take_if(|_| has_come) {
            self.due = asked_at + self.interval.max(asked_at.elapsed() * PACE);
        }
        match answer {
            Some(Ok(reading)) => screen.take(reading),
            Some(Err(error)) => screen.trouble = Some(error.to_string().into()),
            None => {}
        }
        let is_due = self.hurried || (Instant::now() >= self.due && !screen.paused);
        if is_due && self.asked_at.is_none() && self.questions.try_send(screen.who()).is_ok() {
            self.asked_at = Some(Instant::now());
            self.hurried = false;
        }
        Ok(has_come)
    }

    /// Asks as soon as it can, even while the screen stands still.
    fn hurry(&mut self) {
        self.hurried = true;
    }
}
