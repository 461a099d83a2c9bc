//! Dialling another region: again and again, ever more patiently, until it is there.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode, Uri, header};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use mesh::Lane;
use mesh::handshake::{Agreed, Handshake};
use model::RegionName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::config::{MeshConfig, is_unset};
use crate::regions::socket::{
    Bytes, Closing, Ended, Metered, PROTOCOL, Socket, Unproven, code, lane_name, prove,
    websocket_config,
};
use crate::regions::{LinkWay, Regions, random_bytes};

/// How long the network may take to connect, TLS and HTTP included.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The first pause between two attempts, and the longest; each has up to as much again on top, at
/// random, so that regions that lost each other at once do not come back at once.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// The least pause when only an operator can mend it: a wrong key will not be right in a second.
const PAUSE_FOR_OPERATOR: Duration = Duration::from_secs(15);
/// The least pause after a name was taken: by a process that died, as long as that is not noticed.
const PAUSE_TAKEN: Duration = Duration::from_secs(3);
/// A socket that lived for so long was a good one, and the pauses begin anew.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// No more of what the other side says is shown.
const BODY_CHARS_MAX: usize = 200;

/// What is trusted at the other end of `wss`.
///
/// # Errors
/// A sentence that names the key.
pub fn trust(config: &MeshConfig) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    if is_unset(&config.ca_file) {
        // What cannot be read is not trusted; with nothing trusted, every wss link says so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let file = config.ca_file.display();
        let failed = |error: String| format!("mesh.ca_file {file} cannot be used: {error}");
        let certificates = CertificateDer::pem_file_iter(&config.ca_file)
            .map_err(|error| failed(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(failed("there is no certificate in it".to_owned()));
        }
    }
    // Named, because other crates of a build may bring other providers along.
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Why a region could not be reached.
#[derive(Debug, thiserror::Error)]
enum DialError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// Too slow.
    #[error("no connection within {} s", CONNECT_WITHIN.as_secs())]
    Slow,
    /// TLS failed.
    #[error("no TLS: {0} (mesh.ca_file says what is trusted)")]
    Tls(io::Error),
    /// It answered, but does not take the WebSocket.
    #[error("it answers {status}: {said}")]
    Http {
        /// The status.
        status: StatusCode,
        /// What it said.
        said: String,
    },
    /// It does not speak WebSocket, or not our protocol.
    #[error("it does not speak {PROTOCOL}: {0}")]
    Protocol(tungstenite::Error),
    /// It could not prove that it belongs here, or we could not.
    #[error(transparent)]
    Unproven(#[from] Unproven),
}

impl DialError {
    /// In one word, to count by. The network itself does not count: it is tried all the time.
    fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Connect(_) | Self::Slow => None,
            Self::Tls(_) => Some("tls"),
            Self::Http { .. } => Some("http"),
            Self::Protocol(_) => Some("protocol"),
            Self::Unproven(unproven) => Some(unproven.kind()),
        }
    }

    fn is_for_an_operator(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Slow => false,
            Self::Http { status, .. } => status.is_client_error(),
            Self::Tls(_) | Self::Protocol(_) => true,
            Self::Unproven(unproven) => unproven.is_for_an_operator(),
        }
    }
}

/// Keeps one lane of a link up, for ever.
pub async fn keep_up(regions: Arc<Regions>, link: Arc<LinkWay>, url: Uri, lane: Lane) {
    let mut lanes = link.lanes.subscribe();
    let mut pauses = pauses();
    let mut last_error = String::new();
    loop {
        // The other side may have dialled us, and one socket is enough.
        let vacant = lanes.wait_for(|count| count[lane_index(lane)] == 0).await.is_ok();
        if !vacant {
            return;
        }
        let started = Instant::now();
        let mut pause = pauses.next().unwrap_or(PAUSE_MAX);
        match dial(&regions, &link.region, &url, lane).await {
            Ok((socket, agreed)) => {
                last_error.clear();
                let ended = regions.carry(&link, socket, agreed, true).await;
                if started.elapsed() >= GOOD_AFTER {
                    pauses = self::pauses();
                    pause = pauses.next().unwrap_or(PAUSE_MAX);
                }
                if let Ended::Told { code: code::TAKEN, .. }
                | Ended::Ours(Closing { code: code::TAKEN, .. }) = ended
                {
                    pause = pause.max(PAUSE_TAKEN);
                }
            }
            Err(error) => {
                let text = error.to_string();
                link.account.dial_failed(error.kind(), &text);
                // Once for each error, not once for each attempt.
                if text == last_error {
                    tracing::debug!(region = %link.region, %url, lane = lane_name(lane), text, "not reached");
                } else {
                    tracing::warn!(
                        region = %link.region, %url, lane = lane_name(lane), error = text,
                        "a region is not reached; it is tried again"
                    );
                    last_error = text;
                }
                if error.is_for_an_operator() {
                    pause = pause.max(PAUSE_FOR_OPERATOR);
                }
            }
        }
        rest(pause, lane, &mut lanes).await;
    }
}

/// Pauses. The bulk lane, while both are down, no longer than until the live one is up: then the region
/// is there, and what it missed should not wait.
async fn rest(pause: Duration, lane: Lane, lanes: &mut watch::Receiver<[usize; 2]>) {
    let live = lane_index(Lane::Live);
    if lane == Lane::Bulk && lanes.borrow()[live] == 0 {
        let _ = timeout(pause, lanes.wait_for(|count| count[live] > 0)).await;
    } else {
        tokio::time::sleep(pause).await;
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Where a lane is counted in [`crate::regions::host::Lanes`].
pub fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::Bulk => 1,
    }
}

async fn dial(
    regions: &Regions,
    region: &RegionName,
    url: &Uri,
    lane: Lane,
) -> Result<(Socket, Agreed), DialError> {
    let socket = match timeout(CONNECT_WITHIN, connect(regions, url)).await {
        Ok(socket) => socket?,
        Err(_) => return Err(DialError::Slow),
    };
    let handshake = Handshake::dial(regions.me(), regions.key(), lane, random_bytes());
    let expected = |agreed: &Agreed| {
        if agreed.region == *region {
            return Ok(());
        }
        let (expected, found) = (region.to_string(), agreed.region.to_string());
        Err(Unproven::Stranger { expected, found })
    };
    Ok(prove(socket, handshake, expected).await?)
}

async fn connect(regions: &Regions, url: &Uri) -> Result<Socket, DialError> {
    let tls = url.scheme_str() == Some("wss");
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    // An IPv6 address is in brackets in a URL, and only there.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await?;
    // Keystrokes are small, and waiting to fill a segment would be all of their latency.
    stream.set_nodelay(true)?;
    let bytes: Box<dyn Bytes> = if tls {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| DialError::Tls(io::Error::other(error)))?;
        Box::new(regions.tls().connect(name, stream).await.map_err(DialError::Tls)?)
    } else {
        Box::new(stream)
    };
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let scheme = if tls { "wss" } else { "ws" };
    let mut request = format!("{scheme}://{authority}/mesh")
        .into_client_request()
        .map_err(DialError::Protocol)?;
    request
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    let config = Some(websocket_config());
    match client_async_with_config(request, Metered::new(bytes), config).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => {
            let said = answer.body().as_deref().unwrap_or_default();
            let said = String::from_utf8_lossy(said).trim().chars().take(BODY_CHARS_MAX).collect();
            Err(DialError::Http { status: answer.status(), said })
        }
        Err(tungstenite::Error::Io(error)) => Err(DialError::Connect(error)),
        Err(error) => Err(DialError::Protocol(error)),
    }
}
