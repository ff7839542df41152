//! SIGTERM and SIGINT end the process, SIGHUP reloads.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Event;
use super::reload::Trigger;

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over from their default actions. To be called within the runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Passes signals on, each of them, for as long as somebody listens.
pub(super) async fn forward(
    signals: Option<Signals>,
    events: &flume::Sender<Event>,
    triggers: &flume::Sender<Trigger>,
) {
    let Some(mut signals) = signals else {
        return std::future::pending().await;
    };
    loop {
        let ends = tokio::select! {
            _always_some = signals.terminate.recv() => true,
            _always_some = signals.interrupt.recv() => true,
            _always_some = signals.hangup.recv() => false,
        };
        if ends {
            let _main_is_gone = events.send_async(Event::Terminate).await;
        } else if triggers.try_send(Trigger::Signal).is_err() {
            // As many reloads wait already, and each of them reads the file as it is then.
            tracing::debug!("SIGHUP adds nothing to the reloads that wait");
        }
    }
}
