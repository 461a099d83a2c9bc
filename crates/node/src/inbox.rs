//! What has come for a shard and waits for its turn.
//!
//! A region that catches up is sent more than a shard takes in at once, and a keystroke must not wait
//! until all of that is done. So what a bulk lane brings or asks for waits apart, and goes in a little
//! at a time, after everything else that has come.

use std::collections::VecDeque;

use mesh::{Lane, ToShard};

use crate::{Event, Limits};

/// The queue in front of one shard. What waits in it is bounded by whoever fills it: sockets by a
/// budget, links by their credit.
#[derive(Debug, Default)]
pub struct Inbox {
    /// In the order in which it came.
    first: VecDeque<Event>,
    /// Entries of bulk lanes and questions for them, in the order in which they came.
    bulk: VecDeque<Event>,
}

/// How an event stands to the entries of a bulk lane that came before it.
enum Place {
    /// It is one of them, of so many bytes.
    Bulk(usize),
    /// It means the same before and after them.
    Overtakes,
    /// It tells of something that they came before: they go first.
    After,
}

impl Inbox {
    /// Something has come.
    pub fn push(&mut self, event: Event) {
        match place(&event) {
            Place::Bulk(_) => return self.bulk.push_back(event),
            Place::Overtakes => {}
            Place::After => self.first.append(&mut self.bulk),
        }
        self.first.push_back(event);
    }

    /// What is to be taken in next, in a turn that has room for so many more bytes of bulk lanes. With
    /// any room there is, one more event of them is given, however large.
    pub fn next(&mut self, bulk_bytes: &mut usize) -> Option<Event> {
        if let Some(event) = self.first.pop_front() {
            return Some(event);
        }
        if *bulk_bytes == 0 {
            return None;
        }
        let event = self.bulk.pop_front()?;
        if let Place::Bulk(bytes) = place(&event) {
            *bulk_bytes = bulk_bytes.saturating_sub(bytes);
        }
        Some(event)
    }

    /// The room for bulk lanes in a turn with so many batches on the way to the store.
    #[must_use]
    pub const fn bulk_bytes(limits: &Limits, batches_under_way: usize) -> usize {
        if batches_under_way < limits.bulk_batches_under_way {
            limits.bulk_bytes_at_once
        } else {
            0
        }
    }

    /// Whether only what bulk lanes brought is left.
    #[must_use]
    pub fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// How many events of bulk lanes wait.
    #[must_use]
    pub fn bulk_events(&self) -> usize {
        self.bulk.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.bulk.is_empty()
    }
}

fn place(event: &Event) -> Place {
    let Event::Region { message, .. } = event else { return Place::Overtakes };
    match message {
        ToShard::Take { lane: Lane::Bulk, credit, .. } => Place::Bulk(*credit),
        ToShard::Read { lane: Lane::Bulk, bytes_max, .. } => Place::Bulk(*bytes_max),
        // The lanes are connections of their own: nothing is promised about their order.
        ToShard::Take { lane: Lane::Live, .. }
        | ToShard::Read { lane: Lane::Live, .. }
        | ToShard::Holds { .. }
        | ToShard::Unavailable { .. }
        | ToShard::Presence { .. }
        | ToShard::Heads { .. }
        | ToShard::Interest { .. }
        | ToShard::Subscribe { .. } => Place::Overtakes,
        // A link that begins or ends, what the peer has let go of, audit and repair.
        ToShard::Up
        | ToShard::Down
        | ToShard::Skip { .. }
        | ToShard::Forgotten { .. }
        | ToShard::Repair { .. }
        | ToShard::Sync { .. }
        | ToShard::Written { .. }
        | ToShard::Repaired { .. }
        | ToShard::Root { .. }
        | ToShard::Symbols { .. }
        | ToShard::Items { .. }
        | ToShard::RepairItems { .. } => Place::After,
    }
}

#[cfg(test)]
mod tests {
    use mesh::{LogId, Origin};
    use model::RegionName;

    use super::*;
    use crate::SessionId;

    fn region(message: ToShard) -> Event {
        Event::Region { region: RegionName::new("b").expect("a name"), message }
    }

    fn read(lane: Lane, bytes_max: usize) -> Event {
        let origin = Origin { region: RegionName::new("b").expect("a name"), epoch: 1 };
        let log = LogId { origin, stream: 0 };
        region(ToShard::Read { lane, log, from: 1, bytes_max, digest: None })
    }

    fn turn(inbox: &mut Inbox, mut bulk_bytes: usize) -> Vec<&'static str> {
        let mut order = Vec::new();
        while let Some(event) = inbox.next(&mut bulk_bytes) {
            order.push(match event {
                Event::Closed { .. } => "client",
                Event::Region { message: ToShard::Read { lane: Lane::Bulk, .. }, .. } => "bulk",
                Event::Region { message: ToShard::Read { .. }, .. } => "live",
                _ => "link",
            });
        }
        order
    }

    #[test]
    fn what_people_wait_for_overtakes_what_is_much() {
        let mut inbox = Inbox::default();
        inbox.push(read(Lane::Bulk, 10));
        inbox.push(read(Lane::Live, 10));
        inbox.push(Event::Closed { session: SessionId(1) });
        assert_eq!(turn(&mut inbox, 10), ["live", "client", "bulk"]);
    }

    #[test]
    fn a_turn_takes_a_little_of_what_is_much() {
        let mut inbox = Inbox::default();
        for _ in 0..3 {
            inbox.push(read(Lane::Bulk, 10));
        }
        assert_eq!(turn(&mut inbox, 0).len(), 0);
        assert_eq!(turn(&mut inbox, 11).len(), 2);
        assert!(inbox.has_bulk());
        assert_eq!(turn(&mut inbox, 1).len(), 1, "the last one is larger than the room");
        assert!(inbox.is_empty());
    }

    #[test]
    fn the_end_of_a_link_does_not_overtake_what_came_over_it() {
        let mut inbox = Inbox::default();
        inbox.push(read(Lane::Bulk, 10));
        inbox.push(region(ToShard::Down));
        inbox.push(read(Lane::Bulk, 10));
        assert_eq!(turn(&mut inbox, 0), ["bulk", "link"]);
        assert_eq!(turn(&mut inbox, 1), ["bulk"]);
    }
}
