//! The admin port, asked over plain sockets: one request for each connection, as the port has it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::text::Text;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For a whole answer. The port itself gives one up after 30 seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// 10 000 endpoints take 9 MiB of metrics and 10 000 connections less, and beyond 20 000 endpoints have no metrics of their own.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
const PIECE: usize = 64 * 1024;

pub(super) struct Client {
    admin: SocketAddr,
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "no answer from the admin port at {admin}: {error}; does Sheave run there, and is this its admin.address? \
         --admin ADDRESS asks another one"
    )]
    Unreachable { admin: SocketAddr, error: io::Error },
    #[error(
        "{admin} is not Sheave's admin port, or one of another version: {path}: {why}; --admin ADDRESS asks another one"
    )]
    Foreign { admin: SocketAddr, path: &'static str, why: String },
}

impl Client {
    pub(super) fn new(admin: SocketAddr) -> Self {
        Self { admin }
    }

    /// The body of the answer.
    pub(super) fn get(&self, path: &'static str) -> Result<String, AskError> {
        let answer =
            self.exchange(path).map_err(|error| AskError::Unreachable { admin: self.admin, error })?;
        body(&answer).map_err(|why| self.foreign(path, &why))
    }

    /// What was understood as HTTP, and no further.
    pub(super) fn foreign(&self, path: &'static str, why: &str) -> AskError {
        AskError::Foreign { admin: self.admin, path, why: Text::from(why).to_string() }
    }

    fn exchange(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.admin, CONNECT_TIMEOUT)?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin)?;
        let mut answer = Vec::new();
        let mut piece = vec![0; PIECE];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut piece) {
                Ok(0) => return Ok(answer),
                Ok(length) => answer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // So Linux calls a timeout of a socket.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
            if answer.len() > ANSWER_MAX {
                return Err(io::Error::other("its answer is longer than any of Sheave's"));
            }
        }
    }
}

/// The body of a whole answer with status 200; otherwise what is wrong with it.
fn body(answer: &[u8]) -> Result<String, String> {
    const BLANK: &[u8] = b"\r\n\r\n";
    let end = answer.windows(BLANK.len()).position(|window| window == BLANK).ok_or("that is no HTTP")?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "that is no HTTP")?;
    let rest = &answer[end + BLANK.len()..];
    let (status, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = status.strip_prefix("HTTP/1.").and_then(|status| status.split(' ').nth(1));
    let status = status.ok_or("that is no HTTP")?;
    let header = |name: &str| {
        let mut headers = headers.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let body = if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        unchunk(rest).ok_or("the answer was cut off")?
    } else {
        let length = header("content-length").map(|length| length.parse::<usize>());
        if length.is_some_and(|length| length != Ok(rest.len())) {
            return Err("the answer was cut off".to_owned());
        }
        rest.to_vec()
    };
    let body = String::from_utf8(body).map_err(|_| "the answer is not UTF-8")?;
    if status == "200" { Ok(body) } else { Err(format!("{status} {}", body.trim())) }
}

/// The chunks put together; `None` unless all are there.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = rest.iter().position(|byte| *byte == b'\n')?;
        let size = std::str::from_utf8(&rest[..line]).ok()?.trim();
        let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
        rest = &rest[line + 1..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_whole_or_an_error() {
        let body = |text: &str| body(text.as_bytes());
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), Ok("ab".to_owned()));
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\nab"), Ok("ab".to_owned()));
        assert_eq!(
            body("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab"),
            Err("the answer was cut off".into())
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n";
        assert_eq!(body(chunked), Ok("abc".to_owned()));
        let cut = chunked.split_once("0\r\n").unwrap().0;
        assert_eq!(body(cut), Err("the answer was cut off".into()));
        assert_eq!(body("HTTP/1.1 404 Not Found\r\n\r\nnothing here\n"), Err("404 nothing here".into()));
        for foreign in ["", "SSH-2.0-OpenSSH\r\n", "220 smtp\r\n\r\n", "\r\n\r\n", "HTTP/1.1\r\n\r\n"] {
            assert_eq!(body(foreign), Err("that is no HTTP".into()), "{foreign:?}");
        }
    }

    #[test]
    fn an_answer_without_end_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        let sender = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut sent = 0;
            while let Ok(length) = stream.write(&[b'a'; PIECE]) {
                sent += length;
            }
            sent
        });
        let error = client.get("/metrics").unwrap_err().to_string();
        assert!(error.contains("longer than any of Sheave's"), "{error}");
        // Beyond it only what the sockets held.
        assert!(sender.join().unwrap() < ANSWER_MAX + 32 * 1024 * 1024);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in any::<Vec<u8>>(), chunks in any::<bool>()) {
            let head: &[u8] = if chunks { b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" } else { b"" };
            let answer = body(&[head, &bytes].concat());
            prop_assert!(answer.is_err() || chunks);
        }

        #[test]
        fn chunks_of_any_sizes_are_put_together(pieces in prop::collection::vec("[a-z\\r\\n]{1,20}", 0..8)) {
            let mut answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            for piece in &pieces {
                answer += &format!("{:x}\r\n{piece}\r\n", piece.len());
            }
            prop_assert!(body(answer.as_bytes()).is_err(), "no end");
            answer += "0\r\n\r\n";
            prop_assert_eq!(body(answer.as_bytes()), Ok(pieces.concat()));
        }
    }
}
