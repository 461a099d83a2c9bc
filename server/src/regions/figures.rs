//! The figures of links, for Prometheus: labelled by region, of which there are few.

use std::sync::atomic::AtomicU64;

use mesh::STREAMS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::regions::view::{LaneView, LinkView, MeshView};

type Real = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Region {
    region: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lane {
    region: String,
    lane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stream {
    region: String,
    stream: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    region: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    reason: String,
}

/// Adds the figures of all links. A region without links adds none.
pub fn register(registry: &mut Registry, view: &MeshView) {
    let links = &view.links;
    let r = registry;
    gauge(r, links, "link_up", "Whether the link is up", |link| {
        f64::from(u8::from(link.up_seconds.is_some()))
    });
    gauge(r, links, "link_round_trip_seconds", "There and back", |link| {
        link.round_trip_ms.unwrap_or_default() / 1e3
    });
    gauge(r, links, "link_lag_changes", "Changes from here not known to be durable there", |it| {
        it.lag_changes as f64
    });
    gauge(r, links, "link_lag_seconds", "How long the oldest of them waits", |it| it.lag_seconds);
    gauge(r, links, "link_compression_ratio", "Bytes of entries sent through bytes on the wire", {
        |link| link.compression_ratio.unwrap_or(1.0)
    });
    lanes(r, links, "link_bytes_in", "Bytes of frames received", |lane| lane.bytes_in);
    lanes(r, links, "link_bytes_out", "Bytes of frames sent", |lane| lane.bytes_out);
    counter(r, links, "link_entries_in", "Entries of logs received", |link| link.entries_in);
    counter(r, links, "link_entries_out", "Entries of logs sent", |link| link.entries_out);
    counter(r, links, "link_presence_in", "Presence received", |link| link.presence_in);
    counter(r, links, "link_presence_out", "Presence sent", |link| link.presence_out);
    counter(r, links, "link_audits", "Comparisons of all documents", |link| link.audits);
    counter(r, links, "link_mismatches", "Comparisons that differed", |link| link.mismatches);
    counter(r, links, "link_repairs", "Documents repaired", |link| link.repairs);

    let held = Family::<Stream, Gauge>::default();
    let closes = Family::<Reason, Counter>::default();
    for link in links {
        // What is 0 so far is there too, so that a rate can be made of it from the start.
        for stream in 0..STREAMS {
            let labels = Stream { region: link.region.clone(), stream };
            let logs = link.holds.iter().filter(|hold| hold.stream == stream);
            // What is forgotten was held, and a restored region gets it again before it counts.
            let forgotten = link.forgotten.get(&stream).filter(|_| !link.behind).copied();
            let entries: u64 = logs.map(|hold| hold.sequence).sum::<u64>() + forgotten.unwrap_or(0);
            held.get_or_create(&labels).set(i64::try_from(entries).unwrap_or(i64::MAX));
        }
        let labels = Reason { region: link.region.clone(), reason: "lost".to_owned() };
        closes.get_or_create(&labels).inc_by(0);
        for (reason, count) in &link.closes {
            let labels = Reason { region: link.region.clone(), reason: reason.clone() };
            closes.get_or_create(&labels).inc_by(*count);
        }
    }
    r.register("link_held_entries", "Entries of our logs that the region holds, durably", held);
    r.register("link_closes", "Ended sockets of the link, by reason", closes);

    let refused = Family::<Refusal, Counter>::default();
    if view.epoch.is_some() {
        refused.get_or_create(&Refusal { reason: "handshake".to_owned() }).inc_by(0);
    }
    for (reason, count) in &view.refused {
        refused.get_or_create(&Refusal { reason: reason.clone() }).inc_by(*count);
    }
    r.register("mesh_refused", "Sockets turned away before they belonged to a link", refused);
}

fn gauge(r: &mut Registry, links: &[LinkView], name: &str, help: &str, of: fn(&LinkView) -> f64) {
    let family = Family::<Region, Real>::default();
    for link in links {
        family.get_or_create(&Region { region: link.region.clone() }).set(of(link));
    }
    r.register(name, help, family);
}

fn counter(r: &mut Registry, links: &[LinkView], name: &str, help: &str, of: fn(&LinkView) -> u64) {
    let family = Family::<Region, Counter>::default();
    for link in links {
        family.get_or_create(&Region { region: link.region.clone() }).inc_by(of(link));
    }
    r.register(name, help, family);
}

fn lanes(r: &mut Registry, links: &[LinkView], name: &str, help: &str, of: fn(&LaneView) -> u64) {
    let family = Family::<Lane, Counter>::default();
    for link in links {
        for (lane, view) in [("live", &link.live), ("bulk", &link.bulk)] {
            let labels = Lane { region: link.region.clone(), lane };
            family.get_or_create(&labels).inc_by(of(view));
        }
    }
    r.register(name, help, family);
}
