//! One socket between two regions: the proof that both know the key, then frames both ways.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use mesh::Lane;
use mesh::handshake::{Agreed, Handshake, HandshakeError};
use mesh::link::SocketId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The WebSocket sub-protocol. The number is [`mesh::handshake::VERSION`], and changes when frames do.
pub const PROTOCOL: &str = "tributary-mesh.3";

/// How long both sides may take to prove that they know the key.
pub const PROVE_WITHIN: Duration = Duration::from_secs(5);
/// How many bytes a socket may bring before it has proved anything.
const UNPROVEN_BYTES_MAX: usize = 4 << 10;
/// How many frames may wait for one socket. What a link makes is bounded in bytes by what it may have
/// on the way; this bounds the number of tiny frames.
const FRAMES_MAX: usize = 4096;
/// How many frames are put together into one write to the socket.
const FRAMES_AT_ONCE: usize = 64;
/// How many events of one lane may wait for the link. A socket whose event does not fit waits, and
/// does not read.
pub const EVENTS_MAX: usize = 64;
/// How long to wait until the other side has read our last words.
const LINGER: Duration = Duration::from_secs(1);
/// The largest message on a socket: a piece, with room to spare.
const MESSAGE_BYTES_MAX: usize = 2 * mesh::frame::PIECE_BYTES_MAX;
/// Small buffers; a larger frame grows the buffer it needs.
const READ_BUFFER_BYTES: usize = 16 << 10;
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// Close codes between regions: what went wrong is said in the reason.
pub mod code {
    /// The region stops or starts again.
    pub const RESTART: u16 = 1012;
    /// The link was closed because of what came on it.
    pub const BROKEN: u16 = 4000;
    /// The socket is not needed; not an error.
    pub const SPARE: u16 = 4001;
    /// Another process has the region's name, or one that died had it a moment ago.
    pub const TAKEN: u16 = 4002;
    /// The regions do not belong together: key, name or version. Only an operator mends that.
    pub const REFUSED: u16 = 4003;
}

/// Anything that carries bytes both ways.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A WebSocket between two regions, whoever dialled, with TLS or without.
pub type Socket = WebSocketStream<Metered<Box<dyn Bytes>>>;

/// Bytes that stop when more have come than is allowed.
pub struct Metered<S> {
    inner: S,
    allowance: Arc<AtomicUsize>,
}

impl<S> Metered<S> {
    /// Lets only what a proof takes through, until [`prove`] has seen one.
    pub fn new(inner: S) -> Self {
        Self { inner, allowance: Arc::new(AtomicUsize::new(UNPROVEN_BYTES_MAX)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        let left = self.allowance.load(Ordering::Relaxed);
        if left == usize::MAX {
            return Poll::Ready(Ok(()));
        }
        match left.checked_sub(read) {
            Some(left) => {
                self.allowance.store(left, Ordering::Relaxed);
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(io::Error::other("too much is said before the key is proved"))),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How a WebSocket between regions is set up.
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// The server's side of a WebSocket whose HTTP answer has been given.
pub async fn accepted(bytes: Box<dyn Bytes>) -> Socket {
    let config = Some(websocket_config());
    WebSocketStream::from_raw_socket(Metered::new(bytes), Role::Server, config).await
}

/// Why a socket came to nothing before it carried anything.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// What the other side said does not prove that it belongs here.
    #[error("{0}")]
    Refused(#[from] HandshakeError),
    /// The other side is another region than the one that was expected.
    #[error("the region there is called '{found}', not '{expected}'")]
    Stranger {
        /// As it is configured here.
        expected: String,
        /// As it calls itself.
        found: String,
    },
    /// The other side has closed the socket, and said why.
    #[error("the other side says: {reason}")]
    Told {
        /// Its close code.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// There are as many other regions as there may be.
    #[error("there are {0} other regions already")]
    TooMany(usize),
    /// Too slow.
    #[error("no proof of the key within {} s", PROVE_WITHIN.as_secs())]
    Slow,
    /// The connection ended.
    #[error("the connection ended before the key was proved")]
    Gone,
}

impl Unproven {
    /// In one word, to count by.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "handshake",
            Self::Stranger { .. } => "name",
            Self::Told { .. } => "told",
            Self::TooMany(_) => "too_many",
            Self::Slow => "slow",
            Self::Gone => "gone",
        }
    }

    /// Whether trying again soon is of no use.
    pub fn is_for_an_operator(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Stranger { .. } | Self::TooMany(_) => true,
            Self::Told { code, .. } => *code == code::REFUSED,
            Self::Slow | Self::Gone => false,
        }
    }
}

/// Goes through the handshake. If it fails the socket is closed, and the other side told why.
///
/// `accept` judges who is there once that is proved.
///
/// # Errors
/// When the other side does not prove that it belongs here.
pub async fn prove(
    mut socket: Socket,
    mut handshake: Handshake,
    accept: impl FnOnce(&Agreed) -> Result<(), Unproven>,
) -> Result<(Socket, Agreed), Unproven> {
    let agreed = match timeout(PROVE_WITHIN, shake(&mut socket, &mut handshake, accept)).await {
        Ok(agreed) => agreed,
        Err(_) => Err(Unproven::Slow),
    };
    match agreed {
        Ok(agreed) => {
            socket.get_ref().allowance.store(usize::MAX, Ordering::Relaxed);
            Ok((socket, agreed))
        }
        Err(unproven) => {
            if !matches!(unproven, Unproven::Told { .. } | Unproven::Gone) {
                refuse(&mut socket, &unproven.to_string()).await;
            }
            Err(unproven)
        }
    }
}

async fn shake(
    socket: &mut Socket,
    handshake: &mut Handshake,
    accept: impl FnOnce(&Agreed) -> Result<(), Unproven>,
) -> Result<Agreed, Unproven> {
    if let Some(first) = handshake.first() {
        socket.send(Message::Binary(first.into())).await.map_err(|_| Unproven::Gone)?;
    }
    loop {
        let frame = match socket.next().await {
            Some(Ok(Message::Binary(frame))) => frame,
            Some(Ok(Message::Close(Some(said)))) => {
                let reason = said.reason.to_string();
                return Err(Unproven::Told { code: said.code.into(), reason });
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            // Not a single text is part of the protocol; its bytes are no proof.
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(Unproven::Gone),
        };
        let step = handshake.handle(&frame)?;
        // Before the last word, which makes the other side believe that all is well.
        if let Some(agreed) = &step.agreed {
            accept(agreed)?;
            if let Some(last) = step.send {
                socket.send(Message::Binary(last.into())).await.map_err(|_| Unproven::Gone)?;
            }
            return Ok(agreed.clone());
        }
        if let Some(answer) = step.send {
            socket.send(Message::Binary(answer.into())).await.map_err(|_| Unproven::Gone)?;
        }
    }
}

async fn refuse(socket: &mut Socket, reason: &str) {
    let said = async {
        socket.close(Some(close_frame(code::REFUSED, reason))).await?;
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<_, Error>(())
    };
    let _ = timeout(LINGER, said).await;
}

fn close_frame(code: u16, reason: &str) -> CloseFrame {
    // A close frame has room for 123 bytes of text.
    let end = reason.floor_char_boundary(reason.len().min(120));
    CloseFrame { code: CloseCode::from(code), reason: reason[..end].to_owned().into() }
}

/// What a socket tells its link.
pub enum SocketEvent {
    /// It is there.
    Up {
        /// Which.
        socket: SocketId,
        /// What both sides have agreed on.
        agreed: Agreed,
        /// Whether we dialled.
        dialled: bool,
        /// The way to it.
        out: Out,
    },
    /// A frame has come in.
    Frame(SocketId, Vec<u8>),
    /// So many bytes have been handed to the network.
    Written(SocketId, usize),
    /// It is gone, and why.
    Closed(SocketId, Ended),
}

/// How a socket ended.
#[derive(Debug, Clone)]
pub enum Ended {
    /// The network, without a word.
    Lost(String),
    /// The other side closed it.
    Told {
        /// Its close code.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// We closed it.
    Ours(Closing),
}

/// Why we close a socket.
#[derive(Debug, Clone)]
pub struct Closing {
    /// The close code that the other side gets.
    pub code: u16,
    /// In one word, to count by.
    pub kind: &'static str,
    /// In a sentence, for both sides' logs.
    pub reason: String,
}

impl Closing {
    /// Something is wrong with what came, or with how it came.
    pub fn broken(kind: &'static str, reason: String) -> Self {
        Self { code: code::BROKEN, kind, reason }
    }

    /// The region stops.
    pub fn stop() -> Self {
        Self { code: code::RESTART, kind: "stop", reason: "the region stops".to_owned() }
    }
}

enum Outgoing {
    Frame(Vec<u8>),
    Close(Closing),
}

/// The way to one socket.
pub struct Out {
    frames: mpsc::Sender<Outgoing>,
    /// Fired when the socket is to end even if it cannot write any more.
    ending: Option<oneshot::Sender<()>>,
}

impl Out {
    /// Puts a frame on its way; false when too many wait.
    pub fn send(&self, frame: Vec<u8>) -> bool {
        self.frames.try_send(Outgoing::Frame(frame)).is_ok()
    }

    /// Ends the socket after what is on its way, or without if that takes too long.
    pub fn close(&mut self, closing: Closing) {
        let _ = self.frames.try_send(Outgoing::Close(closing));
        if let Some(ending) = self.ending.take() {
            let _ = ending.send(());
        }
    }
}

/// Carries frames between a proven socket and its link until one of them ends it.
pub async fn carry(
    socket: Socket,
    id: SocketId,
    agreed: Agreed,
    dialled: bool,
    events: mpsc::Sender<SocketEvent>,
) -> Ended {
    let (frames, mut outbox) = mpsc::channel(FRAMES_MAX);
    let (ending, mut end) = oneshot::channel();
    let out = Out { frames, ending: Some(ending) };
    let (mut sink, mut stream) = socket.split();
    let up = SocketEvent::Up { socket: id, agreed, dialled, out };
    if events.send(up).await.is_err() {
        return Ended::Ours(Closing::stop());
    }
    let ended = {
        let reading = read(&mut stream, id, &events);
        let writing = write(&mut sink, id, &mut outbox, &events);
        tokio::pin!(reading, writing);
        tokio::select! {
            ended = &mut reading => ended,
            ended = &mut writing => ended,
            // Dropped without being fired when the link has ended.
            _ = &mut end => match timeout(LINGER, &mut writing).await {
                Ok(ended) => ended,
                Err(_) => Ended::Lost("the other side does not read any more".to_owned()),
            },
        }
    };
    if let Ended::Ours(Closing { code, reason, .. }) = &ended {
        let said = async {
            sink.send(Message::Close(Some(close_frame(*code, reason)))).await?;
            while let Some(Ok(_)) = stream.next().await {}
            Ok::<_, Error>(())
        };
        let _ = timeout(LINGER, said).await;
    }
    let _ = events.send(SocketEvent::Closed(id, ended.clone())).await;
    ended
}

async fn read(
    stream: &mut SplitStream<Socket>,
    id: SocketId,
    events: &mpsc::Sender<SocketEvent>,
) -> Ended {
    loop {
        let bytes = match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(Some(said)))) => {
                return Ended::Told { code: said.code.into(), reason: said.reason.to_string() };
            }
            Some(Ok(Message::Close(None))) | None => {
                return Ended::Lost("the connection was closed".to_owned());
            }
            Some(Ok(Message::Text(_))) => {
                let reason = "a text frame: regions speak in binary frames".to_owned();
                return Ended::Ours(Closing::broken("text", reason));
            }
            Some(Err(Error::Capacity(error))) => {
                let reason = format!("a frame is too large: {error}");
                return Ended::Ours(Closing::broken("too_large", reason));
            }
            Some(Err(error)) => return Ended::Lost(error.to_string()),
        };
        if events.send(SocketEvent::Frame(id, bytes.into())).await.is_err() {
            return Ended::Ours(Closing::stop());
        }
    }
}

async fn write(
    sink: &mut SplitSink<Socket, Message>,
    id: SocketId,
    outbox: &mut mpsc::Receiver<Outgoing>,
    events: &mpsc::Sender<SocketEvent>,
) -> Ended {
    let mut batch = Vec::new();
    loop {
        if outbox.recv_many(&mut batch, FRAMES_AT_ONCE).await == 0 {
            return Ended::Ours(Closing::stop());
        }
        let (mut bytes, mut close) = (0, None);
        for outgoing in batch.drain(..) {
            match outgoing {
                Outgoing::Frame(frame) => {
                    bytes += frame.len();
                    if let Err(error) = sink.feed(Message::Binary(frame.into())).await {
                        return Ended::Lost(error.to_string());
                    }
                }
                Outgoing::Close(closing) => {
                    close = Some(Ended::Ours(closing));
                    break;
                }
            }
        }
        if let Err(error) = sink.flush().await {
            return Ended::Lost(error.to_string());
        }
        if let Some(ended) = close {
            return ended;
        }
        let _ = events.send(SocketEvent::Written(id, bytes)).await;
    }
}

/// The lane's name in logs and figures.
pub fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Live => "live",
        Lane::Bulk => "bulk",
    }
}
