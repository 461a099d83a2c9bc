//! One connection: from its first byte to its last.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use model::{DocumentId, PeerId};
use node::{DocumentMessage, SessionId};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use wire::Message as Said;

use crate::machine::{Admission, FRAMES_MAX, Machine, Outbox, Outgoing, PresenceOrder};
use crate::metrics::Metrics;
use crate::progress::Progress;

/// How many frames are put together into one write to the socket.
const FRAMES_AT_ONCE: usize = 64;
/// Room is given back to a shard in pieces of this many bytes, to spare it an event per frame.
const WRITTEN_BYTES: usize = 32 << 10;

/// How long to wait until a peer has read our last words. A socket that is closed with bytes still
/// unread is reset, and the reset overtakes what was written before it.
const LINGER: Duration = Duration::from_secs(1);
/// The close code for a message over the limit.
const TOO_LARGE: u16 = 1009;
/// The close code for whoever does not read.
const SLOW: u16 = 1008;

/// What a connection needs besides its socket.
pub struct Surroundings {
    /// The machine.
    pub machine: Arc<Machine>,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
    /// How long it may take to say `join`.
    pub join_within: Duration,
    /// How often it is pinged; it is closed when it was silent for two of these.
    pub ping_every: Duration,
    /// How long a write may take.
    pub write_within: Duration,
    /// Ends connections that have not joined: the server stops.
    pub stopping: CancellationToken,
}

/// Serves a connection until it ends.
pub async fn serve(
    socket: WebSocket,
    around: Arc<Surroundings>,
    progress: Progress,
    _place: Admission,
) {
    let (mut sink, mut stream) = socket.split();
    let (frames, mut outbox) = mpsc::channel(FRAMES_MAX);
    let overrun = CancellationToken::new();
    let way = Outbox { frames, overrun: overrun.clone() };
    let joins = timeout(around.join_within, first_message(&mut stream));
    let first = tokio::select! {
        first = joins => first.unwrap_or_else(|_| Err(Ended::peer(1008, "no join message in time"))),
        () = around.stopping.cancelled() => {
            Err(Ended::Ours { code: 1012, reason: "the server restarts".to_owned() })
        }
    };
    let first = match first {
        Ok(first) => first,
        Err(ended) => return ended.say(&mut sink, &mut stream, &around, None).await,
    };
    let joined = match wire::decode(&first) {
        Ok(message) => match around.machine.join(&message, way).await {
            Ok((session, answer)) => message.sender().cloned().map(|peer| (session, peer, answer)),
            Err(refused) => {
                let target = message.sender().cloned();
                let ended = Ended::peer(1002, &refused.to_string());
                return ended.say(&mut sink, &mut stream, &around, target.as_ref()).await;
            }
        },
        Err(error) => {
            return Ended::peer(1007, &error.to_string())
                .say(&mut sink, &mut stream, &around, None)
                .await;
        }
    };
    let Some((session, peer, answer)) = joined else { return };
    drop(first);
    tracing::debug!(session = session.0, %peer, "joined");

    let ended = match sink.send(Message::Binary(answer.into())).await {
        Ok(()) => {
            let reading = read(&mut stream, &around, &progress, session, &peer);
            let writing = write(&mut sink, &mut outbox, &around, &progress, session);
            // One of them ends the connection. What the other was in the middle of does not matter
            // any more: a frame is either delivered to its shard or was never acknowledged.
            tokio::select! {
                ended = reading => ended,
                ended = writing => ended,
                () = overrun.cancelled() => slow_reader(),
            }
        }
        Err(_) => Ended::Gone,
    };
    tracing::debug!(session = session.0, %peer, ?ended, "ended");
    around.machine.leave(session, &peer).await;
    ended.say(&mut sink, &mut stream, &around, Some(&peer)).await;
}

/// How a connection ended.
#[derive(Debug)]
enum Ended {
    /// The peer closed it, or the network did.
    Gone,
    /// We close it because of what the peer did: it is told in an `error` message.
    Peer { code: u16, reason: String },
    /// We close it for a reason of ours, or one that the machine has already logged.
    Ours { code: u16, reason: String },
}

impl Ended {
    fn peer(code: u16, reason: &str) -> Self {
        Self::Peer { code, reason: reason.to_owned() }
    }

    async fn say(
        self,
        sink: &mut SplitSink<WebSocket, Message>,
        stream: &mut SplitStream<WebSocket>,
        around: &Surroundings,
        target: Option<&PeerId>,
    ) {
        let (code, mut reason) = match self {
            Self::Gone => return,
            Self::Peer { code, reason } => {
                closes_for_cause(around, code, &reason, target);
                let error = Said::Error {
                    sender: Some(around.machine.me().peer.clone()),
                    target: target.cloned(),
                    message: reason.clone(),
                };
                let mut frame = Vec::new();
                wire::encode(&error, &mut frame);
                let _ =
                    timeout(around.write_within, sink.send(Message::Binary(frame.into()))).await;
                (code, reason)
            }
            Self::Ours { code, reason } => {
                if code == SLOW {
                    closes_for_cause(around, code, &reason, target);
                }
                (code, reason)
            }
        };
        // The control frame has room for 123 bytes of text.
        reason.truncate(reason.floor_char_boundary(120));
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = timeout(around.write_within, async {
            let _ = sink.send(close).await;
        })
        .await;
        if code == TOO_LARGE {
            // The rest of the message cannot be read as frames, so only time is left.
            tokio::time::sleep(LINGER).await;
        } else {
            let _ = timeout(LINGER, async { while let Some(Ok(_)) = stream.next().await {} }).await;
        }
    }
}

async fn first_message(stream: &mut SplitStream<WebSocket>) -> Result<axum::body::Bytes, Ended> {
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(frame))) => return Ok(frame),
            Some(Ok(Message::Text(_))) => return Err(text_frame()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => return Err(Ended::Gone),
            Some(Err(error)) => return Err(broken(&error, None, None)),
        }
    }
}

/// Reads frames until the connection ends, or has been silent for too long.
async fn read(
    stream: &mut SplitStream<WebSocket>,
    around: &Surroundings,
    progress: &Progress,
    session: SessionId,
    peer: &PeerId,
) -> Ended {
    let (mut document, mut order) = (None, PresenceOrder::default());
    loop {
        // The answer to our ping counts: a peer that lives says something in every interval.
        let frame = match progress.while_alive(around.ping_every * 2, stream.next()).await {
            None => return Ended::Ours { code: 1001, reason: "silent for too long".to_owned() },
            Some(None | Some(Ok(Message::Close(_)))) => return Ended::Gone,
            Some(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Some(Some(Ok(Message::Text(_)))) => return text_frame(),
            Some(Some(Err(error))) => return broken(&error, Some(peer), document.as_ref()),
            Some(Some(Ok(Message::Binary(frame)))) => frame,
        };
        around.metrics.frame_in(frame.len());
        let message = match wire::decode(&frame) {
            Ok(message) => message,
            Err(error) => return Ended::peer(1007, &error.to_string()),
        };
        if let Some(ended) =
            take(message, frame.len(), around, session, peer, (&mut document, &mut order)).await
        {
            return ended;
        }
    }
}

async fn take(
    message: Said<'_>,
    bytes: usize,
    around: &Surroundings,
    session: SessionId,
    peer: &PeerId,
    (last, order): (&mut Option<DocumentId>, &mut PresenceOrder),
) -> Option<Ended> {
    // Nobody speaks for another: whoever a relayed message claims to be from, it came from here.
    if message.sender().is_some_and(|sender| sender != peer) {
        if matches!(message, Said::Join { .. }) {
            return Some(Ended::peer(1008, "this connection has joined under another name"));
        }
        around.metrics.foreign_sender();
        return None;
    }
    let machine = &around.machine;
    let (document, message) = match message {
        Said::Sync { document, data, .. } | Said::Request { document, data, .. } => {
            (document, DocumentMessage::Sync { data: data.into_owned() })
        }
        Said::Ephemeral { sender, document, session: stream, count, data, .. } => {
            let data = data.into_owned();
            (document, DocumentMessage::Ephemeral { author: sender, stream, count, data })
        }
        Said::DocUnavailable { document, .. } => (document, DocumentMessage::Unavailable),
        Said::RemoteSubscriptionChange { add, remove, .. } => {
            machine.subscribe(session, &add, &remove).await;
            return None;
        }
        Said::Leave { .. } => return Some(Ended::Gone),
        // Saying it again changes nothing.
        Said::Join { .. } => return None,
        Said::Peer { .. } => return Some(Ended::peer(1002, "only a server says 'peer'")),
        Said::Error { message, .. } => {
            tracing::info!(session = session.0, message, "the peer reports an error");
            return None;
        }
        Said::RemoteHeadsChanged { .. } | Said::Unknown { .. } => return None,
    };
    if last.as_ref() != Some(&document) {
        *last = Some(document.clone());
    }
    machine.deliver(session, document, message, bytes, order).await;
    None
}

/// Writes what is put into the outbox, and pings.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    outbox: &mut mpsc::Receiver<Outgoing>,
    around: &Surroundings,
    progress: &Progress,
    session: SessionId,
) -> Ended {
    let mut ping = interval_at(Instant::now() + around.ping_every, around.ping_every);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    // Few shards, so a list is as good as a map.
    let mut written: Vec<(usize, usize)> = Vec::new();
    loop {
        let wrote = tokio::select! {
            count = outbox.recv_many(&mut batch, FRAMES_AT_ONCE) => {
                if count == 0 {
                    return slow_reader();
                }
                let sent = send_all(sink, &mut batch, &mut written);
                progress.while_written(around.write_within, sent).await
            }
            _ = ping.tick() => {
                let ping = async {
                    let sent = sink.send(Message::Ping(Default::default())).await;
                    sent.map(|()| None).map_err(|_| Ended::Gone)
                };
                progress.while_written(around.write_within, ping).await
            }
        };
        match wrote {
            Some(Ok(None)) => {}
            Some(Ok(Some(ended)) | Err(ended)) => return ended,
            None => return slow_reader(),
        }
        if batch.capacity() > FRAMES_AT_ONCE {
            batch = Vec::new();
        }
        for (shard, bytes) in &mut written {
            if *bytes >= WRITTEN_BYTES {
                around.machine.written(session, *shard, std::mem::take(bytes)).await;
            }
        }
    }
}

/// Sends frames up to the first that closes the connection.
async fn send_all(
    sink: &mut SplitSink<WebSocket, Message>,
    batch: &mut Vec<Outgoing>,
    written: &mut Vec<(usize, usize)>,
) -> Result<Option<Ended>, Ended> {
    for outgoing in batch.drain(..) {
        match outgoing {
            Outgoing::Frame { shard, frame } => {
                match written.iter_mut().find(|(known, _)| *known == shard) {
                    Some((_, bytes)) => *bytes += frame.len(),
                    None => written.push((shard, frame.len())),
                }
                sink.feed(Message::Binary(frame.into())).await.map_err(|_| Ended::Gone)?;
            }
            Outgoing::Close { code, reason } => {
                let _ = sink.flush().await;
                // What the peer did wrong is said in the protocol's own words, too.
                let peers_fault = matches!(code, 1007 | 1008);
                return Ok(Some(if peers_fault {
                    Ended::Peer { code, reason }
                } else {
                    Ended::Ours { code, reason }
                }));
            }
        }
    }
    sink.flush().await.map_err(|_| Ended::Gone)?;
    Ok(None)
}

fn closes_for_cause(around: &Surroundings, code: u16, reason: &str, peer: Option<&PeerId>) {
    around.metrics.closed_for_cause();
    tracing::info!(code, reason, peer = peer.map(PeerId::as_str), "closing a session");
}

fn slow_reader() -> Ended {
    Ended::Ours { code: SLOW, reason: "reads too slowly".to_owned() }
}

fn text_frame() -> Ended {
    Ended::peer(1003, "text frame: this protocol is spoken in binary frames")
}

/// A frame that is too large, or bytes that are no WebSocket frames.
///
/// What a message is about stands in the message, and one that is too large is not read. The log names
/// who sent it and the document that this connection spoke of last, which is mostly the same.
fn broken(error: &axum::Error, peer: Option<&PeerId>, last: Option<&DocumentId>) -> Ended {
    let text = error.to_string();
    if text.contains("too long") || text.contains("too big") {
        let (peer, last_document) = (peer.map(PeerId::as_str), last.map(DocumentId::to_string));
        tracing::warn!(
            peer,
            last_document,
            error = text,
            "message over the limit (frame_bytes_max)"
        );
        return Ended::Ours { code: TOO_LARGE, reason: "message too large".to_owned() };
    }
    Ended::Gone
}
