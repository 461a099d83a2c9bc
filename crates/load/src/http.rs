//! REST clients on one thread: connections that are kept alive, each with one request under way.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::histogram::Histogram;

/// The longest answer that is read: the whole text of the longest trace is 100 KB.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const HEADERS_MAX: usize = 32;
/// An answer that has not come after so long does not come.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A request, and what must be answered.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
    status: u16,
}

/// An answer, read to its end.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What `ETag` says, with its quotes.
    pub etag: String,
    /// What `Location` says.
    pub location: String,
    /// The body.
    pub body: Vec<u8>,
}

/// How much is asked.
#[derive(Clone, Copy)]
pub struct Load {
    /// Connections.
    pub connections: usize,
    /// So many requests a second; without it each connection asks again as soon as it is answered.
    pub per_second: Option<f64>,
    /// How long.
    pub lasts: Duration,
}

/// What came of it.
pub struct Answers {
    /// From when a request was due to the last byte of its answer.
    pub latency: Histogram,
    /// How many were answered, per second.
    pub per_second: f64,
    /// Of the last answer's body.
    pub body_bytes: usize,
}

impl Request {
    /// A request that expects `status`. The headers are whole lines without their ends.
    pub fn new(method: &str, path: &str, headers: &[&str], body: &[u8], status: u16) -> Self {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
        for header in headers {
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        if !body.is_empty() {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        Self { bytes, status }
    }

    /// The same for what has no body to send.
    pub fn get(path: &str, headers: &[&str], status: u16) -> Self {
        Self::new("GET", path, headers, &[], status)
    }

    fn judge(&self, answer: &Answer) -> Result<(), String> {
        if answer.status == self.status {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&answer.body);
        Err(format!("it answers {} and not {}: {said}", answer.status, self.status))
    }
}

/// Asks one thing over a connection of its own.
///
/// # Errors
/// If something else is answered than expected, or nothing.
pub fn ask(server: SocketAddr, request: &Request) -> Result<Answer, String> {
    let mut stream = TcpStream::connect(server).map_err(text)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(text)?;
    stream.write_all(&request.bytes).map_err(text)?;
    let mut input = Vec::new();
    let mut scratch = vec![0; 64 * 1024];
    loop {
        if let Some((answer, _)) = answer(&input)? {
            request.judge(&answer)?;
            return Ok(answer);
        }
        match stream.read(&mut scratch).map_err(text)? {
            0 => return Err("the server closed the connection".to_owned()),
            count => input.extend_from_slice(&scratch[..count]),
        }
    }
}

/// Asks the requests in turns, as often as the load says.
///
/// # Errors
/// If a connection breaks or something else is answered than expected.
pub fn run(server: SocketAddr, requests: &[Request], load: Load) -> Result<Answers, String> {
    let mut poll = Poll::new().map_err(text)?;
    let mut conns = Vec::new();
    for number in 0..load.connections {
        conns.push(Conn::open(server, &poll, Token(number))?);
    }
    let mut events = Events::with_capacity(load.connections);
    let mut scratch = vec![0; 256 * 1024];
    let mut idle: VecDeque<usize> = (0..load.connections).collect();
    let mut answers = Answers { latency: Histogram::new(), per_second: 0.0, body_bytes: 0 };
    let began = Instant::now();
    let end = began + load.lasts;
    let mut asked = 0_usize;
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        let mut wait = end - now;
        while let Some(&number) = idle.front() {
            let due = match load.per_second {
                Some(rate) => began + Duration::from_secs_f64(asked as f64 / rate),
                None => now,
            };
            if due > now {
                wait = wait.min(due - now);
                break;
            }
            idle.pop_front();
            conns[number].ask(&requests[asked % requests.len()], asked % requests.len(), due)?;
            asked += 1;
        }
        match poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(text(error)),
            _ => {}
        }
        for event in &events {
            let conn = &mut conns[event.token().0];
            if let Some(answer) = conn.read(&mut scratch)? {
                requests[conn.which].judge(&answer)?;
                answers.latency.record(conn.due.elapsed());
                answers.body_bytes = answer.body.len();
                idle.push_back(event.token().0);
            }
        }
    }
    answers.per_second = answers.latency.total() as f64 / began.elapsed().as_secs_f64();
    Ok(answers)
}

struct Conn {
    stream: mio::net::TcpStream,
    input: Vec<u8>,
    which: usize,
    due: Instant,
}

impl Conn {
    fn open(server: SocketAddr, poll: &Poll, token: Token) -> Result<Self, String> {
        let stream = TcpStream::connect(server).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_nonblocking(true).map_err(text)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, token, Interest::READABLE).map_err(text)?;
        Ok(Self { stream, input: Vec::new(), which: 0, due: Instant::now() })
    }

    /// Requests are shorter than what a socket takes at once.
    fn ask(&mut self, request: &Request, which: usize, due: Instant) -> Result<(), String> {
        (self.which, self.due) = (which, due);
        self.stream.write_all(&request.bytes).map_err(text)
    }

    fn read(&mut self, scratch: &mut [u8]) -> Result<Option<Answer>, String> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(count) => self.input.extend_from_slice(&scratch[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(text(error)),
            }
        }
        let Some((answer, used)) = answer(&self.input)? else { return Ok(None) };
        self.input.drain(..used);
        Ok(Some(answer))
    }
}

/// The answer at the start of `bytes` and how long it is, if all of it is there.
fn answer(bytes: &[u8]) -> Result<Option<(Answer, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(bytes).map_err(|error| format!("an answer: {error}"))? {
        httparse::Status::Complete(start) => start,
        httparse::Status::Partial => return Ok(None),
    };
    let status = head.code.unwrap_or(0);
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let length = match header("content-length") {
        _ if matches!(status, 204 | 304) => 0,
        Some(length) => length.parse().map_err(|_| format!("a content-length of {length}"))?,
        None => return Err(format!("an answer {status} of unknown length")),
    };
    if length > ANSWER_BYTES_MAX {
        return Err(format!("an answer of {length} bytes"));
    }
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let (etag, location) = (header("etag"), header("location"));
    let (etag, location) = (etag.unwrap_or_default(), location.unwrap_or_default());
    Ok(Some((Answer { status, etag, location, body: body.to_vec() }, start + length)))
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_all_of_it_is_there_and_not_before() {
        let whole = b"HTTP/1.1 200 OK\r\nETag: \"h\"\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 304";
        for cut in 0..whole.len() - 13 - 1 {
            assert!(answer(&whole[..cut]).is_ok_and(|it| it.is_none()), "{cut}");
        }
        let (read, used) = answer(whole).expect("well formed").expect("whole");
        assert_eq!(
            (read.status, read.etag.as_str(), read.body.as_slice()),
            (200, "\"h\"", &b"{}"[..])
        );
        assert!(whole[used..].starts_with(b"HTTP/1.1 304"));
    }

    #[test]
    fn not_modified_has_no_body_whatever_length_it_names() {
        let (read, _) = answer(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n")
            .expect("well formed")
            .expect("whole");
        assert!(read.body.is_empty());
    }
}
