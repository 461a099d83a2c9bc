//! The ways between shards and links. Neither ever waits for the other: a shard that finds a link's
//! door full marks it as overrun, and a link keeps what a shard has no room for and reads no more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use mesh::FromShard;
use model::RegionName;
use tokio::sync::mpsc;

/// How many messages of all shards may wait for one link.
const FROM_SHARDS_MAX: usize = 8192;
/// What may be lost is dropped when there is room for only so many more.
const ROOM_KEPT: usize = FROM_SHARDS_MAX / 2;

/// What a link hears from shards: which of them, and what.
pub type FromShards = mpsc::Receiver<(usize, FromShard)>;

/// The way from the shards to every link there is.
#[derive(Default)]
pub struct LinkDoors {
    doors: RwLock<BTreeMap<RegionName, LinkDoor>>,
}

struct LinkDoor {
    inbox: mpsc::Sender<(usize, FromShard)>,
    overrun: Arc<AtomicBool>,
}

impl LinkDoors {
    /// Makes the way to a link: what comes through, and whether something did not.
    pub fn open(&self, region: RegionName) -> (FromShards, Arc<AtomicBool>) {
        let (inbox, messages) = mpsc::channel(FROM_SHARDS_MAX);
        let overrun = Arc::new(AtomicBool::new(false));
        let door = LinkDoor { inbox, overrun: overrun.clone() };
        self.doors.write().unwrap_or_else(PoisonError::into_inner).insert(region, door);
        (messages, overrun)
    }

    /// Carries what a shard says to one link, or to all.
    pub fn tell(&self, shard: usize, to: Option<&RegionName>, message: FromShard) {
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
        match to {
            Some(region) => {
                if let Some(door) = doors.get(region) {
                    door.put(shard, message);
                }
            }
            None => {
                for door in doors.values() {
                    door.put(shard, message.clone());
                }
            }
        }
    }
}

impl LinkDoor {
    fn put(&self, shard: usize, message: FromShard) {
        // Presence is worth nothing when it is late, and newer heads make older ones needless.
        let may_be_lost = matches!(message, FromShard::Presence { .. } | FromShard::Heads { .. });
        if may_be_lost && self.inbox.capacity() < ROOM_KEPT {
            return;
        }
        if self.inbox.try_send((shard, message)).is_err() {
            self.overrun.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RegionName {
        RegionName::new(text).unwrap()
    }

    fn nothing() -> FromShard {
        FromShard::Vector { held: Vec::new(), forgotten: Vec::new() }
    }

    #[test]
    fn what_is_for_all_links_reaches_each_of_them_and_the_rest_only_one() {
        let doors = LinkDoors::default();
        let (mut eu, _) = doors.open(name("eu"));
        let (mut us, _) = doors.open(name("us"));
        doors.tell(3, None, nothing());
        doors.tell(4, Some(&name("us")), nothing());
        doors.tell(5, Some(&name("nowhere")), nothing());
        let from = |messages: &mut FromShards| {
            std::iter::from_fn(|| messages.try_recv().ok()).map(|it| it.0).collect::<Vec<_>>()
        };
        assert_eq!((from(&mut eu), from(&mut us)), (vec![3], vec![3, 4]));
    }

    #[test]
    fn a_link_that_does_not_listen_is_marked_as_overrun_and_the_shard_goes_on() {
        let doors = LinkDoors::default();
        let (_messages, overrun) = doors.open(name("eu"));
        for _ in 0..FROM_SHARDS_MAX {
            assert!(!overrun.load(Ordering::Relaxed));
            doors.tell(0, None, nothing());
        }
        doors.tell(0, None, nothing());
        assert!(overrun.load(Ordering::Relaxed));
    }
}
