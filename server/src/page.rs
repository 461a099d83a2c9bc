//! What a person sees who opens the address of a region: the status page, and the same in words for
//! those who ask with curl.
//!
//! The page is a few files that are part of the binary. It shows what `/v1` says and knows nothing else.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::status::{Gather, Status};

/// All that the page may do is ask where it came from. Nothing of it is written inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files beside the page: name, type, content.
const FILES: [(&str, &str, &str); 7] = [
    ("page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("region.js", SCRIPT, include_str!("page/region.js")),
    ("document.js", SCRIPT, include_str!("page/document.js")),
    ("graph.js", SCRIPT, include_str!("page/graph.js")),
    ("tree.js", SCRIPT, include_str!("page/tree.js")),
    ("words.js", SCRIPT, include_str!("page/words.js")),
];

/// `GET /`: the page for browsers, words for everybody else.
pub async fn root(status: &Arc<Gather>, headers: &HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).map(HeaderValue::as_bytes).unwrap_or(b"text/html");
    let mut response = if accepted.windows(9).any(|part| part == b"text/html") {
        serve("text/html; charset=utf-8", include_str!("page/index.html"))
    } else {
        words(&status.status().await, &host(headers)).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// `GET /page/{file}`: what the page is made of.
pub async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(file, _, _)| *file == name) {
        Some((_, kind, content)) => serve(kind, content),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn serve(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Files of two versions do not go together, and all of them are small.
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (headers, content).into_response()
}

/// Where clients connect, as whoever asks got here. It is shown, so nothing but a host may be in it.
fn host(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    host.chars().filter(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(*c)).collect()
}

fn words(status: &Status, host: &str) -> String {
    let mut text = format!(
        "Tributary {}, a sync server for Automerge documents. Region {}, up for {}.\n\n",
        status.version,
        status.region,
        duration(status.uptime_seconds)
    );
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<20} {value}");
    };
    row("sessions", status.sessions.connected.to_string());
    row(
        "documents",
        match status.documents.stored {
            Some(n) => format!("{n} stored, {} open", status.documents.open),
            None => format!("{} open", status.documents.open),
        },
    );
    let (rates, commits) = (&status.per_second, &status.commits);
    row("changes a second", format!("{} in, {} out", rates.changes_in, rates.changes_out));
    row(
        "commits",
        match (commits.p50_ms, commits.p99_ms) {
            (Some(p50), Some(p99)) => format!("p50 {p50} ms, p99 {p99} ms in the last minute"),
            _ => "none in the last minute".to_owned(),
        },
    );
    for link in &status.links {
        row("link", format!("{}: {}, behind by {}", link.region, link.state, link.lag_changes));
    }
    row("set aside", format!("{} changes", status.quarantine.set_aside));
    row("log", format!("{} errors, {} warnings", status.errors_total, status.warnings_total));
    let _ = write!(
        text,
        "\nAny automerge-repo client connects, unmodified, to  ws://{host}\n\n  \
         new WebSocketClientAdapter(\"ws://{host}\")\n\n\
         http://{host}/                 this page, in a browser\n\
         http://{host}/v1/status        these figures, as JSON\n\
         http://{host}/v1/documents     documents; /v1/openapi.json describes all of /v1\n\
         http://{host}/metrics          figures for Prometheus; health checks: /livez, /readyz\n"
    );
    text
}

/// A span of time in its two largest units.
pub fn duration(seconds: f64) -> String {
    let whole = Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", whole % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_page_is_inline_and_all_that_it_names_is_there() {
        let page = include_str!("page/index.html");
        assert!(!page.contains("style=") && !page.contains("<style") && !page.contains(" on"));
        assert!(page.matches("<script").count() == 1 && page.contains("src=\"page/main.js\""));
        for (name, kind, content) in FILES {
            assert!(!content.contains("innerHTML"), "{name} makes markup of text");
            if kind == SCRIPT {
                let imports = content.lines().filter_map(|line| line.split_once(" from \"./"));
                for (_, from) in imports {
                    let from = from.trim_end_matches(['"', ';']);
                    assert!(FILES.iter().any(|(file, ..)| *file == from), "{name} imports {from}");
                }
            }
        }
    }

    #[test]
    fn a_host_that_is_shown_has_no_markup_in_it() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::HOST,
            HeaderValue::from_static("a.example:1<script>\u{7f}".trim_end_matches('\u{7f}')),
        );
        assert_eq!(host(&headers), "a.example:1script");
    }

    #[test]
    fn a_span_of_time_is_told_in_its_two_largest_units() {
        assert_eq!(duration(7.9), "7 s");
        assert_eq!(duration(61.0), "1 min 1 s");
        assert_eq!(duration(7_260.0), "2 h 1 min");
        assert_eq!(duration(180_000.0), "2 d 2 h");
    }
}
