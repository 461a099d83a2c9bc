//! The other regions: their links, the sockets under those, and how all of it is doing.
//!
//! One task hosts each link ([`host`]). Two more keep its lanes up if the region is one that we dial
//! ([`dial`]); the others come in at `/mesh` ([`accept`]). Whoever dialled, a socket first proves that
//! both sides know the key and then carries frames ([`socket`]).

mod accept;
mod dial;
pub mod doors;
pub mod figures;
mod host;
mod socket;
pub mod view;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Uri;
use mesh::Lane;
use mesh::handshake::{Agreed, Key, Me};
use mesh::link::{self, Link, SocketId};
use model::{RegionName, StorageId};
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

pub use accept::{Remote, endpoint, page};

use crate::config::{Config, LINKS_MAX, is_unset};
use crate::exit::Failure;
use crate::machine::ShardDoor;
use doors::LinkDoors;
use host::{Host, Lanes, Reach};
use socket::{Ended, Socket, SocketEvent, Unproven};
use view::Account;

/// How many sockets may be proving that they know the key.
const UNPROVEN_MAX: usize = 16;
/// How many may ask one link at once how it is.
const QUESTIONS_MAX: usize = 64;
/// A link that takes longer to say how it is is described without its own words.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether all links are level, when the region stops.
const LEVEL_EVERY: Duration = Duration::from_millis(20);

/// What is known before the machine runs.
pub struct Setup {
    /// Who we are to other regions.
    pub me: Me,
    /// The ways from shards to links.
    pub doors: Arc<LinkDoors>,
    /// Keeps others from choosing ids whose audit items collide.
    pub salt: u64,
    /// The other regions that are configured.
    pub regions: Vec<RegionName>,
    key: Key,
    tls: TlsConnector,
    dialled: BTreeMap<RegionName, Uri>,
    limits: link::Limits,
}

impl Setup {
    /// Reads the key and the certificates; `None` when this region has no links.
    ///
    /// # Errors
    /// A sentence that names the configuration's key.
    pub fn load(config: &Config, storage: StorageId) -> Result<Option<Self>, Failure> {
        if is_unset(&config.mesh.key_file) {
            return Ok(None);
        }
        let file = config.mesh.key_file.display();
        let text = fs::read_to_string(&config.mesh.key_file).map_err(|error| {
            Failure::Usage(format!("mesh.key_file {file} cannot be read: {error}"))
        })?;
        let key = text
            .parse::<Key>()
            .map_err(|error| Failure::Usage(format!("mesh.key_file {file}: {error}")))?;
        let dialled = config.link.iter().filter(|link| !link.url.is_empty()).map(|link| {
            let region = RegionName::new(&link.name).expect("checked when it was read");
            (region, link.url.parse().expect("checked when it was read"))
        });
        Ok(Some(Self {
            me: Me {
                region: config.region_name(),
                // 0 is nobody's.
                epoch: u64::from_le_bytes(random_bytes()).max(1),
                storage,
            },
            doors: Arc::default(),
            salt: key.salt(),
            regions: config.other_regions(),
            tls: dial::trust(&config.mesh).map_err(Failure::Usage)?,
            dialled: dialled.collect(),
            key,
            limits: link::Limits {
                changes: config.node_limits(1).chunks,
                ..link::Limits::default()
            },
        }))
    }
}

impl Setup {
    /// What shards need to know. Which of them one is, is filled in where they are started.
    pub fn for_shards(&self) -> node::MeshSetup {
        node::MeshSetup {
            region: self.me.region.clone(),
            epoch: self.me.epoch,
            regions: self.regions.clone(),
            salt: self.salt,
            shard: 0,
            shards: 1,
        }
    }
}

/// All links.
pub struct Regions {
    setup: Setup,
    shards: Vec<ShardDoor>,
    links: Mutex<BTreeMap<RegionName, Arc<LinkWay>>>,
    unproven: Arc<Semaphore>,
    last_socket: AtomicU64,
    reach: Reach,
    account: accept::Refusals,
    /// Sockets and diallers.
    tasks: TaskTracker,
    hosts: TaskTracker,
    stop: watch::Sender<bool>,
    started: Instant,
}

/// The way to one link.
pub struct LinkWay {
    region: RegionName,
    url: Option<Uri>,
    live: mpsc::Sender<SocketEvent>,
    bulk: mpsc::Sender<SocketEvent>,
    asked: mpsc::Sender<oneshot::Sender<link::Status>>,
    lanes: Lanes,
    account: Arc<Account>,
}

impl Regions {
    /// Starts the links that are configured, and dials.
    pub fn start(setup: Setup, shards: Vec<ShardDoor>) -> Arc<Self> {
        let configured = setup.regions.clone();
        let regions = Arc::new(Self {
            setup,
            shards,
            links: Mutex::default(),
            unproven: Arc::new(Semaphore::new(UNPROVEN_MAX)),
            last_socket: AtomicU64::new(0),
            reach: watch::Sender::default(),
            account: accept::Refusals::default(),
            tasks: TaskTracker::new(),
            hosts: TaskTracker::new(),
            stop: watch::Sender::default(),
            started: Instant::now(),
        });
        for region in configured {
            let Some(link) = regions.link(&region) else { continue };
            let Some(url) = link.url.clone() else { continue };
            for lane in [Lane::Live, Lane::Bulk] {
                let dialling = dial::keep_up(regions.clone(), link.clone(), url.clone(), lane);
                let (mut stop, lanes) = (regions.stop.subscribe(), link.lanes.clone());
                regions.tasks.spawn(async move {
                    tokio::select! {
                        () = dialling => {}
                        // A socket that is up ends by the hand of its link, and so in order.
                        () = stopped_and_vacant(&mut stop, &lanes, lane) => {}
                    }
                });
            }
        }
        regions
    }

    /// Who we are to other regions.
    pub fn me(&self) -> &Me {
        &self.setup.me
    }

    fn key(&self) -> &Key {
        &self.setup.key
    }

    fn tls(&self) -> &TlsConnector {
        &self.setup.tls
    }

    /// The link to a region; made when the region is not a configured one, but knows the key. `None`
    /// when there are too many.
    fn link(&self, region: &RegionName) -> Option<Arc<LinkWay>> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(region) {
            return Some(link.clone());
        }
        if links.len() >= LINKS_MAX {
            return None;
        }
        let (live, live_events) = mpsc::channel(socket::EVENTS_MAX);
        let (bulk, bulk_events) = mpsc::channel(socket::EVENTS_MAX);
        let (asked, questions) = mpsc::channel(QUESTIONS_MAX);
        let (from_shards, overrun) = self.setup.doors.open(region.clone());
        let (lanes, account) = (Lanes::default(), Arc::new(Account::default()));
        let me = self.me();
        let parts = host::Parts {
            link: Link::new(link::Config {
                me: me.region.clone(),
                epoch: me.epoch,
                peer: region.clone(),
                shards: self.shards.len(),
                salt: self.setup.salt,
                limits: self.setup.limits.clone(),
            }),
            region: region.clone(),
            shards: self.shards.clone(),
            from_shards,
            overrun,
            live: live_events,
            bulk: bulk_events,
            asked: questions,
            lanes: lanes.clone(),
            reach: self.reach.clone(),
            account: account.clone(),
            stop: self.stop.subscribe(),
            started: self.started,
        };
        self.hosts.spawn(Host::run(parts));
        // Other links ask us for this region's logs only when they know that we do not reach it.
        self.reach.send_modify(|reach| {
            reach.entry(region.clone()).or_insert(false);
        });
        let url = self.setup.dialled.get(region).cloned();
        let region_name = region.clone();
        let link =
            Arc::new(LinkWay { region: region_name, url, live, bulk, asked, lanes, account });
        links.insert(region.clone(), link.clone());
        Some(link)
    }

    /// Carries a proven socket for its link until one of them ends.
    async fn carry(&self, link: &LinkWay, socket: Socket, agreed: Agreed, dialled: bool) -> Ended {
        let id = SocketId(self.last_socket.fetch_add(1, Ordering::Relaxed) + 1);
        let events = match agreed.lane {
            Lane::Live => link.live.clone(),
            Lane::Bulk => link.bulk.clone(),
        };
        socket::carry(socket, id, agreed, dialled, events).await
    }

    fn all(&self) -> Vec<Arc<LinkWay>> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.values().cloned().collect()
    }

    /// How every link is, in its own words as far as it has time for them.
    async fn statuses(&self) -> Vec<(Arc<LinkWay>, Option<link::Status>)> {
        let links = self.all();
        futures_util::future::join_all(links.into_iter().map(|link| async {
            let (answer, status) = oneshot::channel();
            let asked = async {
                link.asked.send(answer).await.ok()?;
                status.await.ok()
            };
            let status = timeout(ANSWER_WITHIN, asked).await.ok().flatten();
            (link, status)
        }))
        .await
    }

    /// Waits until every region that is there holds everything that was handed in here, but no longer
    /// than this.
    pub async fn level(&self, within: Duration) {
        let level = async {
            while self.statuses().await.iter().any(|(_, status)| {
                status.as_ref().is_some_and(|status| status.is_up() && status.lag_changes > 0)
            }) {
                tokio::time::sleep(LEVEL_EVERY).await;
            }
        };
        if timeout(within, level).await.is_err() {
            tracing::info!("not every region holds everything yet; it gets the rest later");
        }
    }

    /// Says what is left to say on each link, and closes its sockets. The shards have ended before.
    pub async fn stop(&self, within: Duration) {
        self.stop.send_replace(true);
        for tasks in [&self.hosts, &self.tasks] {
            tasks.close();
            let _ = timeout(within, tasks.wait()).await;
        }
    }

    /// Whether a proven region may be linked with.
    fn welcome(&self, agreed: &Agreed) -> Result<Arc<LinkWay>, Unproven> {
        self.link(&agreed.region).ok_or(Unproven::TooMany(LINKS_MAX))
    }
}

async fn stopped_and_vacant(stop: &mut watch::Receiver<bool>, lanes: &Lanes, lane: Lane) {
    let _ = stop.wait_for(|stop| *stop).await;
    let mut lanes = lanes.subscribe();
    let _ = lanes.wait_for(|count| count[dial::lane_index(lane)] == 0).await;
}

/// Bytes that nobody can foresee.
fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without chance there is neither a safe proof nor a fresh epoch.
    OsRng.try_fill_bytes(&mut bytes).expect("the system has randomness");
    bytes
}
