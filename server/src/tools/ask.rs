//! Asking a running region, for the commands that look at one.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use axum::http::Uri;
use serde::de::DeserializeOwned;

/// How long the region may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long it may be silent; longer than a request to it may take (`rest.seconds`).
const SILENT_FOR: Duration = Duration::from_secs(40);
/// An answer of more bytes than this is not taken.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Where a region listens.
#[derive(Debug, Clone)]
pub struct Asked {
    url: String,
    host: String,
    port: u16,
    authority: String,
    /// What a proxy has put in front of all paths.
    prefix: String,
    silent_for: Duration,
}

/// Why there is no answer to go on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It is no URL of a region.
    #[error("{0}")]
    Url(String),
    /// Nobody answers, or not as a region does.
    #[error("{0}")]
    Unreached(String),
    /// The region says no.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the region says about it.
        detail: String,
    },
}

impl Asked {
    /// Reads a URL as it is given on the command line.
    ///
    /// # Errors
    /// When it is none, or one that is not spoken to here.
    pub fn parse(url: &str) -> Result<Self, Unanswered> {
        let wrong = |why: &str| Unanswered::Url(format!("--url {url}: {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "ws")) {
            return Err(wrong(
                "only http:// (or ws://) is spoken here; ask the region on its own machine, as \
                 http://127.0.0.1:4450",
            ));
        }
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            silent_for: SILENT_FOR,
        })
    }

    /// The same, for questions that are answered at once.
    pub fn at_once(self) -> Self {
        Self { silent_for: CONNECT_WITHIN, ..self }
    }

    /// As it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the region says at a path below `/`, as JSON.
    ///
    /// # Errors
    /// When nobody answers, or says no, or something else.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Unanswered> {
        let body = self.get(path)?;
        serde_json::from_slice(&body).map_err(|error| {
            self.unreached(&format!("the answer to {path} is not that of a region: {error}"))
        })
    }

    /// One GET by hand: the server's HTTP stack is there for accepting, not for asking.
    ///
    /// # Errors
    /// When nobody answers, or says no.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Unanswered> {
        let answer = self.exchange(path).map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => self.unreached(
                "no region listens there. Is it running? It says its address when it starts; --url \
                 names another",
            ),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                self.unreached("nothing comes back in time")
            }
            _ => self.unreached(&error.to_string()),
        })?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.ok_or_else(|| self.unreached("the answer is not HTTP"))?;
        let (head, body) = (&answer[..end], &answer[end + 4..]);
        let line =
            String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or(head))
                .into_owned();
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        match status {
            Some(200) => Ok(body.to_vec()),
            Some(status) => {
                let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
                let detail = problem["detail"].as_str().map(str::to_owned);
                let detail = detail.unwrap_or_else(|| format!("{} answers '{line}'", self.url));
                Err(Unanswered::Refused { status, detail })
            }
            None => Err(self.unreached("the answer is not HTTP")),
        }
    }

    fn exchange(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        let address = addresses.next().ok_or(ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
        stream.set_read_timeout(Some(self.silent_for))?;
        // HTTP/1.0, so that the answer is neither cut in pieces nor kept open.
        write!(
            stream,
            "GET {}{path} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\n\r\n",
            self.prefix, self.authority
        )?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn unreached(&self, why: &str) -> Unanswered {
        Unanswered::Unreached(format!("{}: {why}", self.url))
    }
}

/// A number of bytes, for people.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{:.1} KiB", count as f64 / 1_024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_what_is_in_front_of_paths() {
        let asked = Asked::parse("ws://[::1]:4451/eu/").unwrap();
        assert_eq!((asked.host.as_str(), asked.port, asked.prefix.as_str()), ("::1", 4451, "/eu"));
        assert_eq!(Asked::parse("http://example").unwrap().port, 80);
    }

    #[test]
    fn a_url_that_is_not_spoken_to_says_what_to_do() {
        for (url, said) in [("https://a", "http://127.0.0.1:4450"), ("nonsense", "http")] {
            let error = Asked::parse(url).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(url), "{error}");
        }
    }

    #[test]
    fn who_does_not_listen_is_named_with_what_to_try() {
        let error = Asked::parse("http://127.0.0.1:1").unwrap().get("/v1/status").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("http://127.0.0.1:1") && text.contains("--url"), "{text}");
    }
}
