//! Links: where they listen, what they are like, what has gone through.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::conditions::{Conditions, Flow, OutOfBounds};
use crate::pipe::{Line, carry};

/// How many connections one link carries at a time. More are accepted when others have ended.
pub const CONNECTIONS_MAX: usize = 1_024;

/// What the kernel may hold for a socket of ours, in bytes. Small, so that what the network does not
/// take in is felt by whoever sends it.
const KERNEL_BYTES: u32 = 128 << 10;

/// A network: links by name. Its connections end, and its listeners close, when it is dropped.
#[derive(Debug)]
pub struct Wan {
    links: Mutex<BTreeMap<String, LinkHandle>>,
    /// What chance there is (jitter) starts from here, for each link with its number added.
    seed: u64,
    closing: DropGuard,
}

impl Wan {
    /// A network without links. The seed is that of its jitter.
    pub fn new(seed: u64) -> Self {
        let closing = CancellationToken::new().drop_guard();
        Self { links: Mutex::new(BTreeMap::new()), seed, closing }
    }

    /// Adds a link that is perfect for now. Port 0 lets the system choose; [`LinkHandle::listen`]
    /// says what it chose.
    ///
    /// # Errors
    /// When there is one of that name, or nothing can listen there.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn link(
        &self,
        name: &str,
        listen: SocketAddr,
        target: SocketAddr,
    ) -> Result<LinkHandle, LinkError> {
        let mut links = self.links.lock().expect("nobody panics with it");
        if links.contains_key(name) {
            return Err(LinkError::Taken { name: name.to_owned() });
        }
        let listener = listener(listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (listen, listener) =
            listener.map_err(|error| LinkError::Listen { address: listen, error })?;
        let mut chance = SmallRng::seed_from_u64(self.seed.wrapping_add(links.len() as u64));
        let link = Arc::new(Link {
            name: name.to_owned(),
            listen,
            target,
            conditions: watch::Sender::new(Conditions::default()),
            resets: watch::Sender::new(0),
            there: Line::new(|conditions| &conditions.there, SmallRng::from_rng(&mut chance)),
            back: Line::new(|conditions| &conditions.back, SmallRng::from_rng(&mut chance)),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        let handle = LinkHandle(link.clone());
        links.insert(name.to_owned(), handle.clone());
        tokio::spawn(listen_on(link, listener, self.closing.token().clone()));
        Ok(handle)
    }

    /// The link of that name.
    pub fn get(&self, name: &str) -> Option<LinkHandle> {
        self.links.lock().expect("nobody panics with it").get(name).cloned()
    }

    /// All links, by name.
    pub fn links(&self) -> Vec<LinkHandle> {
        self.links.lock().expect("nobody panics with it").values().cloned().collect()
    }
}

/// A link cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Another link has that name.
    #[error("there is a link {name} already")]
    Taken {
        /// The name.
        name: String,
    },
    /// Nothing can listen on that address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// One link: to read it, and to change what it is like. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkHandle(Arc<Link>);

impl LinkHandle {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where to connect.
    pub fn listen(&self) -> SocketAddr {
        self.0.listen
    }

    /// Where connections lead.
    pub fn target(&self) -> SocketAddr {
        self.0.target
    }

    /// What it is like.
    pub fn conditions(&self) -> Conditions {
        *self.0.conditions.borrow()
    }

    /// Makes it like this from now on, for open connections as well. What is on its way keeps its
    /// time of arrival.
    ///
    /// # Errors
    /// When a time is longer than [`LATENCY_MS_MAX`](crate::LATENCY_MS_MAX); nothing is changed then.
    pub fn set(&self, conditions: Conditions) -> Result<(), OutOfBounds> {
        conditions.check()?;
        self.0.conditions.send_replace(conditions);
        Ok(())
    }

    /// Cuts both ways.
    pub fn cut(&self) {
        self.flow(Flow::Cut);
    }

    /// Stalls both ways.
    pub fn stall(&self) {
        self.flow(Flow::Stalled);
    }

    /// Opens both ways again. Latency, jitter and bandwidth stay what they are.
    pub fn heal(&self) {
        self.flow(Flow::Open);
    }

    /// Ends all open connections with a reset, towards both sides and at once, whatever the
    /// conditions are.
    pub fn reset(&self) {
        self.0.resets.send_modify(|resets| *resets += 1);
    }

    /// What has gone through so far.
    pub fn stats(&self) -> Stats {
        let way = |line: &Line| WayStats {
            taken_bytes: line.taken.load(Ordering::Relaxed),
            delivered_bytes: line.delivered.load(Ordering::Relaxed),
        };
        Stats {
            there: way(&self.0.there),
            back: way(&self.0.back),
            connections: self.0.accepted.load(Ordering::Relaxed),
            connections_open: self.0.open.load(Ordering::Relaxed),
            resets: *self.0.resets.borrow(),
        }
    }

    fn flow(&self, flow: Flow) {
        self.0.conditions.send_modify(|conditions| {
            conditions.there.flow = flow;
            conditions.back.flow = flow;
        });
    }
}

/// What has gone through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Towards the target.
    pub there: WayStats,
    /// From the target.
    pub back: WayStats,
    /// Connections accepted.
    pub connections: u64,
    /// Of these, how many are still open.
    pub connections_open: u64,
    /// How often it was reset.
    pub resets: u64,
}

/// What has gone one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WayStats {
    /// Bytes that were taken in.
    pub taken_bytes: u64,
    /// Bytes of these that were delivered; the others are on their way, or died on it.
    pub delivered_bytes: u64,
}

#[derive(Debug)]
struct Link {
    name: String,
    listen: SocketAddr,
    target: SocketAddr,
    conditions: watch::Sender<Conditions>,
    /// How often it was reset; each change ends all connections.
    resets: watch::Sender<u64>,
    there: Line,
    back: Line,
    accepted: AtomicU64,
    open: AtomicU64,
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuseaddr(true)?;
    // What is accepted inherits the sizes.
    socket.bind(address)?;
    socket.listen(1_024)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_recv_buffer_size(KERNEL_BYTES)?;
    socket.set_send_buffer_size(KERNEL_BYTES)?;
    Ok(socket)
}

async fn listen_on(link: Arc<Link>, listener: TcpListener, closing: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = async {
        loop {
            let permit = room.clone().acquire_owned().await.expect("it is never closed");
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely; somebody has to close some first.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            link.accepted.fetch_add(1, Ordering::Relaxed);
            link.open.fetch_add(1, Ordering::Relaxed);
            let (link, closing) = (link.clone(), closing.clone());
            tokio::spawn(async move {
                // What goes wrong with a connection, both of its ends see for themselves.
                let _ = connection(&link, stream, closing).await;
                link.open.fetch_sub(1, Ordering::Relaxed);
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = closing.cancelled() => {}
        () = accepting => {}
    }
}

/// Carries one connection to its end.
async fn connection(
    link: &Link,
    mut client: TcpStream,
    closing: CancellationToken,
) -> io::Result<()> {
    let mut resets = link.resets.subscribe();
    let mut ended = std::pin::pin!(async {
        tokio::select! {
            _ = resets.changed() => {}
            () = closing.cancelled() => {}
        }
    });
    // Whatever is not an orderly end is told as a reset.
    client.set_nodelay(true)?;
    client.set_zero_linger()?;
    let dialled = async {
        let mut conditions = link.conditions.subscribe();
        let _ = conditions.wait_for(Conditions::is_open).await;
        socket(link.target)?.connect(link.target).await
    };
    let mut target = tokio::select! {
        () = &mut ended => return Ok(()),
        dialled = dialled => dialled?,
    };
    target.set_nodelay(true)?;
    target.set_zero_linger()?;
    let carried = {
        let (client_read, client_write) = client.split();
        let (target_read, target_write) = target.split();
        let there = carry(client_read, target_write, &link.there, link.conditions.subscribe());
        let back = carry(target_read, client_write, &link.back, link.conditions.subscribe());
        tokio::select! {
            () = &mut ended => return Ok(()),
            carried = async { tokio::try_join!(there, back) } => carried,
        }
    };
    carried?;
    // Both sides have said that they are done, and been told so.
    for stream in [client, target] {
        linger(&stream)?;
    }
    Ok(())
}

/// Undoes the reset at the end.
fn linger(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(None)
}
