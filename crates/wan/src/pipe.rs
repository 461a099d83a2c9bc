//! One way of one connection: bytes in, a queue with times, bytes out.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::conditions::{Conditions, Flow, Way};

/// How many bytes one way of one connection holds on their way. With a latency, it bounds what a
/// single connection can carry: this much per latency.
pub const BUFFER_BYTES: usize = 4 << 20;

/// How many pieces they may be in; so that single keystrokes do not cost more than they weigh.
const PIECES_MAX: usize = 16_384;

/// The largest piece, and the smallest one when bandwidth is scarce.
const PIECE_BYTES: (u64, u64) = (64, 64 << 10);

/// How far ahead of its turn a piece is taken in when bandwidth is scarce. What a router would keep
/// in its queue; the rest waits with whoever sends it.
const AHEAD: Duration = Duration::from_millis(50);

/// What all connections of a link share of one way.
#[derive(Debug)]
pub(crate) struct Line {
    pub taken: AtomicU64,
    pub delivered: AtomicU64,
    shared: Mutex<Shared>,
    /// Which of the two ways it is.
    way: fn(&Conditions) -> &Way,
}

#[derive(Debug)]
struct Shared {
    /// When all that has been taken in is through.
    free_at: Instant,
    chance: SmallRng,
}

impl Line {
    pub(crate) fn new(way: fn(&Conditions) -> &Way, chance: SmallRng) -> Self {
        let shared = Mutex::new(Shared { free_at: Instant::now(), chance });
        Self { taken: AtomicU64::new(0), delivered: AtomicU64::new(0), shared, way }
    }

    /// When the next piece may be taken in.
    fn turn(&self) -> Instant {
        let shared = self.shared.lock().expect("nobody panics with it");
        shared.free_at.checked_sub(AHEAD).unwrap_or(shared.free_at)
    }

    /// When bytes taken in now arrive.
    fn arrival(&self, bytes: usize, way: &Way) -> Instant {
        let mut shared = self.shared.lock().expect("nobody panics with it");
        let start = shared.free_at.max(Instant::now());
        let takes = way.bytes_per_second.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes as f64 / rate.get() as f64)
        });
        shared.free_at = start + takes;
        let jitter = shared.chance.random_range(0..=u64::from(way.jitter_ms) * 1_000);
        let latency = Duration::from_millis(way.latency_ms.into()) + Duration::from_micros(jitter);
        shared.free_at + latency
    }
}

/// What is on its way.
enum Piece {
    Bytes(Vec<u8>),
    /// The sender has closed its side.
    End,
    /// The sender's side is broken.
    Broken(io::Error),
}

/// Carries one way of a connection until its end.
///
/// # Errors
/// When either side breaks; of the sending side only once that, too, has arrived.
pub(crate) async fn carry(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    line: &Line,
    conditions: watch::Receiver<Conditions>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let room = Semaphore::new(BUFFER_BYTES);
    let taking = take(from, line, conditions.clone(), sender, &room);
    tokio::select! {
        result = deliver(to, line, conditions, receiver, &room) => result,
        () = async { taking.await; std::future::pending().await } => unreachable!("it is pending"),
    }
}

async fn take(
    mut from: ReadHalf<'_>,
    line: &Line,
    mut conditions: watch::Receiver<Conditions>,
    sender: mpsc::Sender<(Instant, Piece)>,
    room: &Semaphore,
) {
    let mut buffer = vec![0; PIECE_BYTES.1 as usize];
    let mut last = Instant::now();
    loop {
        let Some(way) = flow(&mut conditions, line, |flow| flow != Flow::Cut).await else { return };
        let size = way
            .bytes_per_second
            .map_or(PIECE_BYTES.1, |rate| (rate.get() / 50).clamp(PIECE_BYTES.0, PIECE_BYTES.1));
        wait(line.turn()).await;
        let Ok(mut held) = room.acquire_many(size as u32).await else { return };
        let read = tokio::select! {
            biased;
            _ = flow(&mut conditions, line, |flow| flow == Flow::Cut) => continue,
            read = from.read(&mut buffer[..size as usize]) => read,
        };
        let bytes = *read.as_ref().unwrap_or(&0);
        // They come back when they are delivered; the rest of the permit does so at once.
        if let Some(taken) = held.split(bytes) {
            taken.forget();
        }
        drop(held);
        let way = *(line.way)(&conditions.borrow());
        let arrival = line.arrival(bytes, &way).max(last);
        last = arrival;
        line.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        let piece = match read {
            Ok(0) => Piece::End,
            Ok(bytes) => Piece::Bytes(buffer[..bytes].to_vec()),
            Err(error) => Piece::Broken(error),
        };
        let more = matches!(piece, Piece::Bytes(_));
        if sender.send((arrival, piece)).await.is_err() || !more {
            return;
        }
    }
}

async fn deliver(
    mut to: WriteHalf<'_>,
    line: &Line,
    mut conditions: watch::Receiver<Conditions>,
    mut receiver: mpsc::Receiver<(Instant, Piece)>,
    room: &Semaphore,
) -> io::Result<()> {
    while let Some((arrival, piece)) = receiver.recv().await {
        wait(arrival).await;
        open(&mut conditions, line).await?;
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::End => return to.shutdown().await,
            Piece::Broken(error) => return Err(error),
        };
        let mut left = &bytes[..];
        while !left.is_empty() {
            open(&mut conditions, line).await?;
            let written = tokio::select! {
                biased;
                _ = flow(&mut conditions, line, |flow| flow != Flow::Open) => continue,
                written = to.write(left) => written?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left = &left[written..];
            line.delivered.fetch_add(written as u64, Ordering::Relaxed);
        }
        room.add_permits(bytes.len());
    }
    Ok(())
}

/// The timer takes up to a millisecond even for what is past.
async fn wait(until: Instant) {
    if until > Instant::now() {
        sleep_until(until).await;
    }
}

async fn open(conditions: &mut watch::Receiver<Conditions>, line: &Line) -> io::Result<()> {
    let open = flow(conditions, line, |flow| flow == Flow::Open).await;
    open.map(|_| ()).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Waits until the flow is as wanted. `None` when the link is gone; then so are its connections.
async fn flow(
    conditions: &mut watch::Receiver<Conditions>,
    line: &Line,
    wanted: impl Fn(Flow) -> bool,
) -> Option<Way> {
    let found = conditions.wait_for(|conditions| wanted((line.way)(conditions).flow)).await;
    found.ok().map(|conditions| *(line.way)(&conditions))
}
