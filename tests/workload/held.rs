//! Connections that stay: a request and its answer about every second, until somebody ends them, and then again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::conversation::{BYE, Conversation};
use crate::load::{Aim, Answer, Attempt, Failure};
use crate::pace;
use crate::tally::Tally;

const BETWEEN_REQUESTS: Duration = Duration::from_secs(1);
const BEFORE_THE_NEXT: Duration = Duration::from_millis(200);
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(2);

pub(crate) async fn hold(aim: Aim, patience: Duration, tally: Arc<Tally>) {
    loop {
        // Spread, so that what ended at once does not come back at once.
        pace::wait(pace::about(BEFORE_THE_NEXT)).await;
        let mut attempt = Attempt::new();
        let opened = timeout(patience, attempt.run(&aim, "hold")).await;
        let mut conversation = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(conversation) => conversation,
            Err(error) => {
                tally.not_held(&aim.name, attempt.failure(&error));
                continue;
            }
        };
        tally.held(&aim.name, &attempt.pod);
        attempt.started = Instant::now();
        let end = keep(&mut conversation, &mut attempt, patience).await;
        tally.held_ended(&aim.name, end);
        conversation.end(PATIENCE_AT_THE_END).await.ok();
    }
}

/// Until it ends, and how.
async fn keep(conversation: &mut Conversation, attempt: &mut Attempt, patience: Duration) -> Failure {
    for number in 0_u64.. {
        let quiet = pace::about(BETWEEN_REQUESTS);
        // Nothing is due now but the end.
        attempt.stage = "held";
        match timeout(quiet, conversation.line()).await {
            Err(_) => {}
            Ok(Ok(Some(line))) if is_bye(&line) => return announced(conversation, attempt, patience).await,
            Ok(Ok(Some(line))) => return attempt.failure(&unasked(&line)),
            Ok(Ok(None)) => return attempt.failure(&io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(error)) => return attempt.failure(&error),
        }
        let asked = timeout(patience, attempt.ask(conversation, &format!("held {number}"))).await;
        match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Answer::Right) => {}
            // The request and the bye have met on the way.
            Ok(Answer::Bye) => return announced(conversation, attempt, patience).await,
            Err(error) => return attempt.failure(&error),
        }
    }
    unreachable!("a number of 64 bits does not end")
}

/// After the bye there is FIN, and nothing else.
async fn announced(conversation: &mut Conversation, attempt: &Attempt, patience: Duration) -> Failure {
    let end = timeout(patience, conversation.line()).await;
    match end.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(None) => Failure { kind: "announced", ..attempt.failure(&io::Error::other("bye, then FIN")) },
        Ok(Some(line)) => attempt.failure(&unasked(&line)),
        Err(error) => attempt.failure(&error),
    }
}

fn unasked(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("said {line:?} unasked"))
}

fn is_bye(line: &str) -> bool {
    line.split_once(' ').is_some_and(|(_, word)| word == BYE)
}
