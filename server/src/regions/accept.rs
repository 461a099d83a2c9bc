//! `/mesh`, where other regions come in, and `/v1/mesh`, which says how the links are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use mesh::handshake::Handshake;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use crate::http::Site;
use crate::regions::socket::{PROTOCOL, accepted, prove};
use crate::regions::{Regions, random_bytes};

/// No more of what the other side asks for is shown.
const ASKED_CHARS_MAX: usize = 60;

/// Who is at the other end of an HTTP connection; put into each request by the listener.
#[derive(Debug, Clone, Copy)]
pub struct Remote(pub SocketAddr);

/// What was turned away before it belonged to a link, by reason.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<&'static str, u64>>);

impl Refusals {
    fn count(&self, reason: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// How many, by reason.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes another region in.
pub async fn endpoint(State(site): State<Arc<Site>>, mut request: Request) -> Response {
    let Some(regions) = site.regions.clone() else {
        let why = "this region has no links: its mesh.key_file is not set\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let from = request.extensions().get::<Remote>().map(|remote| remote.0.to_string());
    let from = from.unwrap_or_default();
    if let Err(answer) = speaks_our_version(request.headers()) {
        tracing::warn!(from, answer, "a region was refused");
        regions.account.count("version");
        return (StatusCode::BAD_REQUEST, answer + "\n").into_response();
    }
    let place = regions.unproven.clone().try_acquire_owned();
    let Some(place) = place.ok().filter(|_| site.ready.load(Ordering::Relaxed)) else {
        regions.account.count("no_room");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "no room\n")
            .into_response();
    };
    let mut answer = match upgrade(&request) {
        Ok(answer) => answer,
        Err(why) => return (StatusCode::BAD_REQUEST, why + "\n").into_response(),
    };
    answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    let upgraded = hyper::upgrade::on(&mut request);
    let tasks = regions.tasks.clone();
    tasks.spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let bytes = Box::new(TokioIo::new(upgraded));
        let socket = accepted(bytes).await;
        let handshake = Handshake::accept(regions.me(), regions.key(), random_bytes());
        let welcome = |agreed: &_| regions.welcome(agreed).map(drop);
        let proven = prove(socket, handshake, welcome).await;
        drop(place);
        match proven {
            Ok((socket, agreed)) => {
                if let Some(link) = regions.link(&agreed.region) {
                    regions.carry(&link, socket, agreed, false).await;
                }
            }
            Err(error) => {
                tracing::warn!(from, %error, "a region was refused");
                regions.account.count(error.kind());
            }
        }
    });
    answer
}

/// The sub-protocol that is asked for names the version.
fn speaks_our_version(headers: &HeaderMap) -> Result<(), String> {
    let asked = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let asked: Vec<_> = asked
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if asked.contains(&PROTOCOL) {
        return Ok(());
    }
    let asked: String = match asked.is_empty() {
        true => "nothing".to_owned(),
        false => asked.join(", ").chars().take(ASKED_CHARS_MAX).collect(),
    };
    Err(format!("this region speaks {PROTOCOL}, and was asked for {asked}"))
}

/// The answer that makes a WebSocket of the connection.
fn upgrade(request: &Request) -> Result<Response, String> {
    let mut bare = axum::http::Request::new(());
    *bare.method_mut() = request.method().clone();
    *bare.version_mut() = request.version();
    *bare.headers_mut() = request.headers().clone();
    let answer = create_response(&bare).map_err(|error| error.to_string())?;
    Ok(answer.map(|()| axum::body::Body::empty()))
}

/// How the links are, as JSON.
pub async fn page(State(site): State<Arc<Site>>) -> Response {
    Json(Regions::view(site.regions.as_deref(), &site.region).await).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_version_is_taken_and_the_answer_names_both() {
        let headers = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            HeaderMap::from_iter([(header::SEC_WEBSOCKET_PROTOCOL, value)])
        };
        assert_eq!(PROTOCOL, format!("tributary-mesh.{}", mesh::handshake::VERSION));
        assert_eq!(speaks_our_version(&headers("tributary-mesh.3")), Ok(()));
        assert_eq!(speaks_our_version(&headers("tributary-mesh.4, tributary-mesh.3")), Ok(()));
        let answer = speaks_our_version(&headers("tributary-mesh.4")).unwrap_err();
        assert!(answer.contains("tributary-mesh.3") && answer.contains("tributary-mesh.4"));
        assert!(speaks_our_version(&HeaderMap::new()).is_err());
    }
}
