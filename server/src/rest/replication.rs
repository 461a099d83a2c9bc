//! Which other regions hold what was written here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use mesh::{LogId, Origin};
use model::{DocumentId, RegionName};
use node::mesh_rows;
use serde::Serialize;
use utoipa::ToSchema;

use crate::regions::Regions;
use crate::rest::Rest;
use crate::rest::problem::Problem;
use crate::rest::request::{Target, write_heads};

/// How far a document has got.
#[derive(Debug, Serialize, ToSchema)]
pub struct Replication {
    /// The id.
    id: String,
    /// The region that is asked.
    region: String,
    /// The heads that it holds, durably.
    heads: Vec<String>,
    /// Where the last change is that came into the mesh through this region; null if none did.
    written_here: Option<Place>,
    /// One for each region that this one has a link with.
    regions: Vec<Elsewhere>,
}

/// A place in a log of the mesh.
#[derive(Debug, Serialize, ToSchema)]
pub struct Place {
    /// The life of the region whose log it is, as 16 hexadecimal digits.
    epoch: String,
    /// The stream of the document: 0 to 15.
    stream: u8,
    /// The number of the entry, from 1.
    sequence: u64,
}

/// What is known of another region.
#[derive(Debug, Serialize, ToSchema)]
pub struct Elsewhere {
    /// Its name.
    region: String,
    /// The state of the link, as in `/v1/mesh`.
    link: String,
    /// Whether it has said that every change of the document that came in here is durable there. Null
    /// if none came in here.
    durable: Option<bool>,
    /// Up to which entry it has said that it holds the log of `written_here`; null if it has not
    /// spoken of that log since this process started.
    holds: Option<u64>,
}

/// Which regions hold durably what was written here.
///
/// A region knows this of what came in through itself: ask the region that was written to. What it
/// says of another region is what that region has acknowledged after its commit, so it may be more
/// than said, and never less.
#[utoipa::path(
    get, path = "/v1/documents/{id}/replication", tag = "history",
    params(("id" = String, Path, description = "The id, or an automerge: URL")),
    responses(
        (status = 200, description = "What is known", body = Replication),
        (status = 400, description = "A bad id", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn replication(
    State(rest): State<Arc<Rest>>,
    target: Target,
) -> Result<Response, Problem> {
    let id = target.bare()?;
    let told = rest.within(rest.replication(&id)).await?;
    Ok(([(header::CACHE_CONTROL, "no-cache")], Json(told)).into_response())
}

/// A log of an earlier life of this region, which it has forgotten.
struct Forgotten {
    /// Whether it has the last change of the document that came in here.
    is_items: bool,
    end: u64,
    held_by: Vec<RegionName>,
}

impl Rest {
    async fn replication(self: &Arc<Self>, id: &DocumentId) -> Result<Replication, Problem> {
        let known = self.known(id).await?;
        let stream = id.stream();
        let asked = id.clone();
        let read = move |rest: &Self| {
            let store = &*rest.store;
            let logs = (mesh_rows::logs(store)?, mesh_rows::forgotten(store)?);
            Ok((mesh_rows::item(store, &asked)?, logs))
        };
        let (item, (logs, forgotten)) = self.read(read).await?;
        let ours = |log: &LogId| log.origin.region.as_str() == self.region && log.stream == stream;
        let item = item.filter(|item| item.epoch != 0);
        // Changes of the document may be in the logs of earlier lives, too: those count whole. Who had
        // said to hold one when it was forgotten, has held it to the end.
        let forgotten: Vec<Forgotten> = (forgotten.into_iter())
            .filter(|(log, _)| ours(log))
            .map(|(log, it)| Forgotten {
                is_items: item.as_ref().is_some_and(|item| log.origin.epoch == item.epoch),
                end: it.last.sequence,
                held_by: it.held_by,
            })
            .collect();
        // So many are remembered as forgotten, and no more.
        let nowhere = item.as_ref().is_some_and(|item| {
            let is_held = |(log, _): &(LogId, _)| ours(log) && log.origin.epoch == item.epoch;
            !logs.iter().any(is_held) && !forgotten.iter().any(|it| it.is_items)
        });
        let earlier: Vec<(String, u64)> = (logs.into_iter())
            .filter(|(log, _)| ours(log))
            .filter(|(log, _)| item.as_ref().is_some_and(|item| log.origin.epoch != item.epoch))
            .map(|(log, held)| (log.to_string(), held.end.sequence))
            .collect();
        let log = match (&item, RegionName::new(&self.region)) {
            (Some(item), Ok(region)) => {
                Some(LogId { origin: Origin { region, epoch: item.epoch }, stream }.to_string())
            }
            _ => None,
        };
        let mesh = Regions::view(self.regions.as_deref(), &self.region).await;
        let elsewhere = mesh.links.into_iter().map(|link| {
            let of_log = link.holds.iter().find(|hold| Some(&hold.log) == log.as_ref());
            let has_forgotten = |it: &Forgotten| {
                let said_so = it.held_by.iter().any(|region| region.as_str() == link.region);
                said_so && !link.behind || link.alike
            };
            let items = forgotten.iter().find(|it| it.is_items && has_forgotten(it));
            let holds = of_log.map(|hold| hold.sequence).or(items.map(|it| it.end));
            let held = |log: &String| link.holds.iter().find(|hold| hold.log == *log);
            let has_earlier =
                earlier.iter().all(|(log, end)| held(log).is_some_and(|it| it.sequence >= *end))
                    && forgotten.iter().all(has_forgotten);
            let durable = item.as_ref().map(|item| {
                let has_items = holds.is_some_and(|it| it >= item.sequence);
                has_earlier && (has_items || nowhere && link.alike)
            });
            Elsewhere { region: link.region, link: link.state, durable, holds }
        });
        Ok(Replication {
            id: id.to_string(),
            region: self.region.clone(),
            heads: write_heads(&known.heads),
            written_here: item.map(|item| Place {
                epoch: format!("{:016x}", item.epoch),
                stream,
                sequence: item.sequence,
            }),
            regions: elsewhere.collect(),
        })
    }
}
