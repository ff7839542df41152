//! `/metrics`: encoded on a thread of its own, and handed out in pieces meanwhile.
//!
//! The text of many endpoints is megabytes and takes a while. The control thread only passes the pieces on, of which
//! few exist at a time; a client that leaves or stops reading ends the encoding.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream;

use crate::control::metrics::{self, Dialect};

use super::Admin;

/// Bytes handed over at once.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for the client. What is smaller than all of them is encoded whoever reads how slowly.
const PIECES_MAX: usize = 16;
/// How long a client may take until the rest fits: as long as Prometheus waits by default. Others wait for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take nothing at all until then.
const STALL: Duration = Duration::from_secs(2);

pub(super) async fn show(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let dialect = wanted(&headers);
    // One at a time, so that there is never more than one helper thread and one text.
    let turn = Arc::clone(&admin.scraping).lock_owned().await;
    let control_cpu = metrics::thread_cpu();
    let (to, from) = flume::bounded(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces::new(to, Instant::now() + TIMEOUT);
        let encoded = metrics::expose(&admin.shared, control_cpu, dialect, &mut pieces);
        if encoded.and_then(|()| pieces.end()).is_err() {
            tracing::debug!("a scrape was not read to its end");
        }
        drop(turn);
    });
    ([(header::CONTENT_TYPE, dialect.content_type())], Body::from_stream(body(from))).into_response()
}

/// OpenMetrics, except for who names the older dialect and not this one.
fn wanted(headers: &HeaderMap) -> Dialect {
    let accepted = headers.get_all(header::ACCEPT);
    let accepts =
        |kind: &str| accepted.iter().any(|value| value.to_str().is_ok_and(|value| value.contains(kind)));
    match accepts("text/plain") && !accepts("application/openmetrics-text") {
        true => Dialect::Prometheus,
        false => Dialect::OpenMetrics,
    }
}

/// Gathers what is written. An empty piece is the end.
struct Pieces {
    text: String,
    to: flume::Sender<String>,
    until: Instant,
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > PIECE {
            let full = std::mem::replace(&mut self.text, String::with_capacity(PIECE));
            self.hand_over(full)?;
        }
        self.text.push_str(text);
        Ok(())
    }
}

impl Pieces {
    fn new(to: flume::Sender<String>, until: Instant) -> Self {
        Self { text: String::with_capacity(PIECE), to, until }
    }

    fn end(mut self) -> fmt::Result {
        let last = std::mem::take(&mut self.text);
        if !last.is_empty() {
            self.hand_over(last)?;
        }
        self.hand_over(String::new())
    }

    /// Fails when nobody reads on.
    fn hand_over(&self, piece: String) -> fmt::Result {
        let until = self.until.min(Instant::now() + STALL);
        self.to.send_deadline(piece, until).map_err(|_nobody_reads| fmt::Error)
    }
}

/// Fails where the pieces stop without an end, so that no client takes a part for the whole.
fn body(from: flume::Receiver<String>) -> impl Stream<Item = io::Result<String>> {
    stream::try_unfold(from, |from| async {
        match from.recv_async().await {
            Ok(end) if end.is_empty() => Ok(None),
            Ok(piece) => Ok(Some((piece, from))),
            Err(_) => Err(io::Error::other("the metrics were not read in time")),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use futures_util::TryStreamExt;

    use super::*;

    fn pieces(room: usize, patience: Duration) -> (Pieces, flume::Receiver<String>) {
        let (to, from) = flume::bounded(room);
        (Pieces::new(to, Instant::now() + patience), from)
    }

    fn read(from: flume::Receiver<String>) -> io::Result<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(body(from).try_collect())
    }

    #[test]
    fn pieces_are_the_whole_text_and_none_is_large() {
        let (mut pieces, from) = pieces(8, Duration::from_secs(3_600));
        let line = "0123456789".repeat(100);
        for _ in 0..150 {
            pieces.write_str(&line).unwrap();
        }
        pieces.end().unwrap();
        let read = read(from).unwrap();
        assert!(read.iter().all(|piece| piece.capacity() <= PIECE));
        assert_eq!((read.len(), read.concat()), (3, line.repeat(150)));
    }

    #[test]
    fn what_is_not_read_in_time_is_no_whole_text() {
        let (mut pieces, from) = pieces(1, Duration::ZERO);
        pieces.write_str("first").unwrap();
        pieces.end().unwrap_err();
        read(from).unwrap_err();
    }

    #[test]
    fn openmetrics_is_for_all_who_do_not_ask_for_the_older_dialect_alone() {
        const PROMETHEUS: &str =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, dialect) in [
            (PROMETHEUS, Dialect::OpenMetrics),
            ("*/*", Dialect::OpenMetrics),
            ("text/plain;version=0.0.4", Dialect::Prometheus),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(wanted(&headers), dialect, "{accept}");
        }
        assert_eq!(wanted(&HeaderMap::new()), Dialect::OpenMetrics);
    }

    #[test]
    fn a_client_that_left_ends_the_encoding() {
        let (mut pieces, from) = pieces(1, Duration::from_secs(3_600));
        drop(from);
        pieces.write_str("first").unwrap();
        pieces.end().unwrap_err();
    }
}
