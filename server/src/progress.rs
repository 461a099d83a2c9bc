//! How far a connection has come, in bytes: a large message over a slow link takes its time, and whoever
//! moves is neither silent nor deaf.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// Who moves less than this in the time that something may take does not move: what a link of 1 kbit/s
/// brings in half a minute.
const MOVES_BYTES_MIN: u64 = 4 << 10;

/// What has gone through a connection so far.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    read: AtomicU64,
    written: AtomicU64,
}

impl Progress {
    /// Waits for something to be written: `None` once nothing much was for so long.
    pub async fn while_written<T>(
        &self,
        within: Duration,
        written: impl Future<Output = T>,
    ) -> Option<T> {
        while_moving(|| self.0.written.load(Ordering::Relaxed), within, written).await
    }

    /// Waits for something to be heard: `None` once nothing much has gone either way for so long. Who
    /// takes in what we send has no other way to say so before the end.
    pub async fn while_alive<T>(
        &self,
        within: Duration,
        heard: impl Future<Output = T>,
    ) -> Option<T> {
        let moved = || self.0.read.load(Ordering::Relaxed) + self.0.written.load(Ordering::Relaxed);
        while_moving(moved, within, heard).await
    }
}

async fn while_moving<T>(
    moved: impl Fn() -> u64,
    within: Duration,
    something: impl Future<Output = T>,
) -> Option<T> {
    let mut something = pin!(something);
    let mut before = moved();
    loop {
        if let Ok(happened) = timeout(within, &mut something).await {
            return Some(happened);
        }
        let now = moved();
        if now < before + MOVES_BYTES_MIN {
            return None;
        }
        before = now;
    }
}

/// A connection that counts.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    progress: Progress,
}

impl<S> Counted<S> {
    /// Counts into `progress`.
    pub fn new(stream: S, progress: Progress) -> Self {
        Self { stream, progress }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        self.progress.0.read.fetch_add(bytes as u64, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> Counted<S> {
    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.progress.0.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn what_moves_may_take_its_time_and_what_does_not_ends() {
        let (ours, mut theirs) = tokio::io::duplex(8 << 10);
        let progress = Progress::default();
        let mut ours = Counted::new(ours, progress.clone());
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 8 << 10];
            for _ in 0..10 {
                tokio::time::sleep(SECOND / 5).await;
                theirs.read_exact(&mut buffer).await.expect("it is written");
            }
            theirs
        });
        let written = progress.while_written(SECOND, ours.write_all(&[7; 80 << 10])).await;
        assert!(matches!(written, Some(Ok(()))), "it moves");
        let mut theirs = reader.await.expect("it reads");
        let written = progress.while_written(SECOND, ours.write_all(&[7; 80 << 10])).await;
        assert!(written.is_none(), "nobody reads");
        let mut byte = [0];
        let heard = progress.while_alive(SECOND, ours.read_exact(&mut byte)).await;
        assert!(heard.is_none(), "nobody says anything");
        theirs.write_all(&[1]).await.expect("there is room");
        assert!(progress.while_alive(SECOND, ours.read_exact(&mut byte)).await.is_some());
    }
}
