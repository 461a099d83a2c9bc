//! Thousands of WebSocket clients on one thread.
//!
//! The load generator shares two cores with the server it measures, so it does as little as a
//! client can: one epoll loop, one read per wake-up, no task and no allocation per message, and a
//! masking key of zero (which is legal, and makes masking a copy).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use socket2::{Domain, Socket, Type};

/// Which connection of a [`Net`]; free for re-use after [`Handler::closed`] or [`Net::close`].
pub type ConnId = usize;

const TIMER: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 * 1024;
/// The longest message a server may send: a whole document of the longest trace is 10 MB.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
const UPGRADE_BYTES_MAX: usize = 16 * 1024;

/// What a connection's messages are given to.
pub trait Handler {
    /// The WebSocket is open.
    fn opened(&mut self, id: ConnId, out: &mut Output);
    /// One whole binary message.
    fn message(&mut self, id: ConnId, data: &[u8], out: &mut Output);
    /// The server closed the connection, or it broke. Not called for [`Net::close`].
    fn closed(&mut self, id: ConnId, why: &str);
}

/// Where the frames of one connection are put; they are written when the handler returns.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// Appends one binary message, given in pieces.
    pub fn message(&mut self, parts: &[&[u8]]) {
        self.frame(0x2, parts);
    }

    /// The bytes of one binary message as a frame, for a socket that is not one of a [`Net`].
    pub fn single(message: &[u8]) -> Vec<u8> {
        let mut output = Self::default();
        output.message(&[message]);
        output.bytes
    }

    fn frame(&mut self, opcode: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes.push(0x80 | opcode);
        match length {
            0..=125 => self.bytes.push(0x80 | length as u8),
            126..=0xFFFF => {
                self.bytes.push(0x80 | 126);
                self.bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                self.bytes.push(0x80 | 127);
                self.bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(&[0; 4]);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    fn write_to(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while self.written < self.bytes.len() {
            match stream.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        if self.bytes.capacity() > 64 * 1024 {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
}

struct Conn {
    stream: TcpStream,
    phase: Phase,
    /// The start of a message whose rest has not arrived.
    input: Vec<u8>,
    /// The earlier fragments of a fragmented message.
    fragments: Vec<u8>,
    output: Output,
}

/// The connections and the loop that serves them.
pub struct Net {
    poll: Poll,
    events: Events,
    conns: Vec<Option<Conn>>,
    free: Vec<ConnId>,
    timer: OwnedFd,
    armed: Option<Instant>,
    scratch: Vec<u8>,
    connecting: usize,
}

impl Net {
    /// A loop without connections.
    ///
    /// # Errors
    /// If the kernel has no epoll instance or timer to give.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            conns: Vec::new(),
            free: Vec::new(),
            timer,
            armed: None,
            scratch: vec![0; READ_BYTES],
            connecting: 0,
        })
    }

    /// Connections that are not open yet.
    pub fn connecting(&self) -> usize {
        self.connecting
    }

    /// Starts a connection from the given loopback address; [`Handler::opened`] follows.
    ///
    /// # Errors
    /// If a socket cannot be had or bound.
    pub fn connect(&mut self, from: Ipv4Addr, to: SocketAddr) -> io::Result<ConnId> {
        assert!(from.is_loopback() && to.ip().is_loopback(), "load goes to this machine only");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if from != Ipv4Addr::LOCALHOST {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(socket.into());
        let id = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(id), interest)?;
        self.connecting += 1;
        self.conns[id] = Some(Conn {
            stream,
            phase: Phase::Connecting,
            input: Vec::new(),
            fragments: Vec::new(),
            output: Output::default(),
        });
        Ok(id)
    }

    /// Sends on a connection outside of its handler. Does nothing if it has gone.
    pub fn send(&mut self, id: ConnId, fill: impl FnOnce(&mut Output)) {
        if let Some(conn) = self.conns.get_mut(id).and_then(Option::as_mut) {
            fill(&mut conn.output);
            // A broken socket is noticed, and reported, when it is read.
            let _ = conn.output.write_to(&mut conn.stream);
        }
    }

    /// Closes a connection at once.
    pub fn close(&mut self, id: ConnId) {
        let Some(mut conn) = self.conns.get_mut(id).and_then(Option::take) else { return };
        if conn.phase == Phase::Open {
            conn.output.frame(0x8, &[&1000_u16.to_be_bytes()]);
            let _ = conn.output.write_to(&mut conn.stream);
        } else {
            self.connecting -= 1;
        }
        let _ = self.poll.registry().deregister(&mut conn.stream);
        self.free.push(id);
    }

    /// Waits until something arrives or `until` has come, and hands out what arrived.
    ///
    /// # Errors
    /// If epoll fails; a failing connection is told to the handler instead.
    pub fn turn(&mut self, handler: &mut impl Handler, until: Instant) -> io::Result<()> {
        let timeout = self.arm(until)?;
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        for event in &self.events {
            if event.token() == TIMER {
                self.armed = None;
                continue;
            }
            let id = event.token().0;
            if let Some(mut conn) = self.conns.get_mut(id).and_then(Option::take) {
                let was_open = conn.phase == Phase::Open;
                match conn.ready(id, &mut self.scratch, handler) {
                    Ok(()) => {
                        self.connecting -= usize::from(!was_open && conn.phase == Phase::Open);
                        self.conns[id] = Some(conn);
                    }
                    Err(why) => {
                        self.connecting -= usize::from(!was_open);
                        drop(conn);
                        self.free.push(id);
                        handler.closed(id, &why);
                    }
                }
            }
        }
        Ok(())
    }

    /// epoll counts in milliseconds; a writer of 2,000 changes a second needs a finer alarm.
    fn arm(&mut self, until: Instant) -> io::Result<Option<Duration>> {
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(Some(Duration::ZERO));
        }
        if wait > Duration::from_millis(50) {
            return Ok(Some(wait.min(Duration::from_millis(500))));
        }
        if self.armed != Some(until) {
            let value = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos().max(1) as _ };
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let alarm = Itimerspec { it_interval: zero, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &alarm)?;
            self.armed = Some(until);
        }
        Ok(Some(Duration::from_millis(100)))
    }
}

const EINPROGRESS: i32 = 115;

impl Conn {
    fn ready(
        &mut self,
        id: ConnId,
        scratch: &mut [u8],
        handler: &mut impl Handler,
    ) -> Result<(), String> {
        if self.phase == Phase::Connecting {
            if let Some(error) = self.stream.take_error().map_err(text)? {
                return Err(text(error));
            }
            match self.stream.peer_addr() {
                Ok(peer) => self.ask_upgrade(peer),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(text(error)),
            }
        }
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(count) => {
                    self.received(id, &scratch[..count], handler)?;
                    // A short read emptied the socket: the next bytes wake us again.
                    if count < scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(text(error)),
            }
        }
        self.output.write_to(&mut self.stream).map_err(text)
    }

    fn ask_upgrade(&mut self, peer: SocketAddr) {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {peer}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.output.bytes.extend_from_slice(request.as_bytes());
        self.phase = Phase::Upgrading;
    }

    fn received(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        handler: &mut impl Handler,
    ) -> Result<(), String> {
        if self.input.is_empty() {
            let used = self.consume(id, bytes, handler)?;
            self.input.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let used = self.consume(id, &input, handler)?;
        if used < input.len() {
            input.drain(..used);
            self.input = input;
        }
        Ok(())
    }

    /// Handles every whole message at the start of `bytes`; returns how many bytes those were.
    fn consume(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        handler: &mut impl Handler,
    ) -> Result<usize, String> {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return if bytes.len() > UPGRADE_BYTES_MAX {
                    Err("an endless answer to the upgrade".to_owned())
                } else {
                    Ok(0)
                };
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(format!("no upgrade: {}", String::from_utf8_lossy(line)));
            }
            self.phase = Phase::Open;
            handler.opened(id, &mut self.output);
            used = end + 4;
        }
        while let Some((first, start, length)) = header(&bytes[used..])? {
            let rest = &bytes[used + start..];
            if rest.len() < length {
                break;
            }
            let payload = &rest[..length];
            used += start + length;
            match (first & 0x0F, first & 0x80 != 0) {
                (0x2, true) => handler.message(id, payload, &mut self.output),
                (0x0 | 0x2, last) => {
                    self.fragments.extend_from_slice(payload);
                    if last {
                        let whole = std::mem::take(&mut self.fragments);
                        handler.message(id, &whole, &mut self.output);
                    }
                }
                (0x9, _) => self.output.frame(0xA, &[payload]),
                (0xA, _) => {}
                (0x8, _) => return Err(close_reason(payload)),
                (opcode, _) => return Err(format!("a frame with opcode {opcode}")),
            }
        }
        Ok(used)
    }
}

/// The first byte, the length of the header and the length of the payload of a server's frame.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, String> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        return Err("a masked frame from the server".to_owned());
    }
    let (start, length) = match second {
        126 => match bytes.get(2..4) {
            Some(field) => (4, u16::from_be_bytes(field.try_into().expect("two bytes")) as usize),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(field) => {
                (10, u64::from_be_bytes(field.try_into().expect("eight bytes")) as usize)
            }
            None => return Ok(None),
        },
        short => (2, short as usize),
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(format!("a frame of {length} bytes"));
    }
    Ok(Some((first, start, length)))
}

fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => format!(
            "the server closed with {} {}",
            u16::from_be_bytes([*high, *low]),
            String::from_utf8_lossy(reason)
        ),
        _ => "the server closed the WebSocket".to_owned(),
    }
}

fn text(error: io::Error) -> String {
    error.to_string()
}
