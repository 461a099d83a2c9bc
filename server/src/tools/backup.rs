//! `tributary backup`: a whole copy of a store, of a running region or of a directory.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::http::Uri;
use store::Store;

use super::filling::{Filling, Place};
use super::progress::Progress;
use super::{StoreFlags, open_existing};
use crate::backup::stream::{self, About, Record};
use crate::backup::{about_now, read_key, read_piece};
use crate::config::StoreKind;
use crate::exit::Failure;

/// How long the region may take to be connected with.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long it may say nothing. Somewhat longer than it waits itself, so that it says why.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// An answer that is none of ours is read no further.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// Nor is its head.
const HEAD_BYTES_MAX: u64 = 16 << 10;

/// What to copy, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct BackupArgs {
    /// The directory to make, new or empty; it is a data directory that 'verify' and 'restore' read
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Where the running region listens [default: as configured, http://127.0.0.1:4450]
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    url: Option<String>,
    /// The file with the secret of the region's backup.key_file [default: as configured]
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    key_file: Option<PathBuf>,
    /// Copies this store, which no server may have open, instead of asking a running region
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// With --data: which store keeps the documents there [default: sled]
    #[arg(long, value_name = "KIND", requires = "data")]
    store: Option<StoreKind>,
    /// The configuration of the region, for what is not said here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Makes a copy.
///
/// # Errors
/// [`Failure::Usage`] when the directory is taken, [`Failure::Found`] when the region cannot be asked or
/// does not finish, [`Failure::StoreFailed`] when the copy cannot be written; [`Failure::Store`] when
/// `--data` cannot be opened or has damage.
pub fn run(args: &BackupArgs) -> Result<(), Failure> {
    let flags =
        StoreFlags { config: args.config.clone(), data: args.data.clone(), store: args.store };
    let config = flags.load()?;
    let place = Place::free(&args.to, "--to")?;
    if args.data.is_some() {
        if place.is_within(&config.data) {
            return Err(within(&place, &config.data.display().to_string()));
        }
        let store = open_existing(&config).map_err(|failure| match failure {
            Failure::Store(text) if text.contains("is locked") => Failure::Store(format!(
                "{text}\nA running region is backed up without --data: 'tributary backup --to {}', \
                 with --url or --config if it does not listen where it does by default.",
                args.to.display()
            )),
            other => other,
        })?;
        return offline(&*store, &about_now(&config), place);
    }
    let url = args.url.clone().unwrap_or_else(|| url_of(config.listen));
    let file = args.key_file.as_ref().unwrap_or(&config.backup.key_file);
    let key = read_key(file)?;
    online(&url, key.as_deref(), place)
}

/// Where a server on this machine that listens there is asked.
fn url_of(listen: SocketAddr) -> String {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    format!("http://{address}")
}

fn within(place: &Place, data: &str) -> Failure {
    Failure::Usage(format!(
        "{} lies in the data directory {data}: what happens to the one would happen to the other. \
         Name a directory outside of it with --to, best on another disk",
        place.path().display()
    ))
}

fn offline(store: &dyn Store, about: &About, place: Place) -> Result<(), Failure> {
    let began = Instant::now();
    let mut filling = place_begin(place, about)?;
    let rows = copy(store, &mut filling.filling, "copying rows")?;
    filling.finish(about, rows, 0, began)
}

/// Copies every row of a store; gives how many there were.
///
/// # Errors
/// [`Failure::Store`] when one cannot be read.
pub fn copy(store: &dyn Store, filling: &mut Filling, what: &'static str) -> Result<u64, Failure> {
    let mut progress = Progress::start(what, None);
    let (mut rows, mut next) = (0, Some(Vec::new()));
    while let Some(from) = next {
        let mut piece = Vec::new();
        next = read_piece(store, &from, &mut piece, &mut rows).map_err(|error| {
            Failure::Store(format!(
                "a row of the store cannot be read: {error}\nNothing was copied. 'tributary verify' \
                 names all that is damaged, 'tributary export' writes out the documents that are whole."
            ))
        })?;
        let mut piece = piece.as_slice();
        while !piece.is_empty() {
            let Ok(Record::Write(write)) = stream::read(&mut piece) else {
                unreachable!("only rows were written into it")
            };
            filling.write(write)?;
            progress.step();
        }
    }
    Ok(rows)
}

/// A copy under way, and where to.
struct Target {
    filling: Filling,
    path: PathBuf,
}

fn place_begin(place: Place, about: &About) -> Result<Target, Failure> {
    let path = place.path().to_owned();
    Ok(Target { filling: place.begin(about.store)?, path })
}

impl Target {
    fn finish(self, about: &About, rows: u64, later: u64, began: Instant) -> Result<(), Failure> {
        let mebibytes = self.filling.bytes() as f64 / f64::from(1 << 20);
        self.filling.finish(Some(about))?;
        let mut text = format!(
            "backed up {rows} rows to {} in {:.1} s, {mebibytes:.1} MiB",
            self.path.display(),
            began.elapsed().as_secs_f64()
        );
        if later > 0 {
            let _ = write!(text, ", with {later} writes of the meantime");
        }
        println!("{text}");
        println!(
            "to check it: tributary verify --data {} --store {}",
            self.path.display(),
            about.store.name()
        );
        Ok(())
    }
}

fn online(url: &str, key: Option<&str>, place: Place) -> Result<(), Failure> {
    let began = Instant::now();
    let failed = |why: String| Failure::Found(format!("no backup from {url}: {why}"));
    let asked = ask(url, key).map_err(failed)?;
    let mut answer = asked.answer;
    let about = stream::read_head(&mut answer).map_err(|error| failed(broken(&error)))?;
    if asked.local && place.is_within(&about.data) {
        return Err(within(&place, &about.data.display().to_string()));
    }
    let mut target = place_begin(place, &about)?;
    let mut progress = Progress::start("taking rows", None);
    let (rows, later) = loop {
        match stream::read(&mut answer).map_err(|error| failed(broken(&error)))? {
            Record::Write(write) => {
                target.filling.write(write)?;
                progress.step();
            }
            Record::End { rows, later } => break (rows, later),
            Record::Failed(why) => return Err(failed(why)),
        }
    };
    drop(progress);
    target.finish(&about, rows, later, began)
}

fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            "the server broke off, because it ended or was ended; its log \
             says why. What had come is removed; start it and ask again"
                .to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!(
            "the server has said nothing for {} s; its log may say why",
            SILENCE_MAX.as_secs()
        ),
        _ => error.to_string(),
    }
}

/// An answer that is a backup.
struct Asked {
    answer: BufReader<TcpStream>,
    /// It comes from this machine.
    local: bool,
}

/// One POST by hand, as `tributary links` asks.
fn ask(url: &str, key: Option<&str>) -> Result<Asked, String> {
    let expected = "expected http://host:port, as the server says when it starts";
    let uri: Uri = url.parse().map_err(|_| format!("this is not a URL; {expected}"))?;
    match uri.scheme_str() {
        Some("http" | "ws") => {}
        Some("https" | "wss") => {
            return Err(
                "the server itself speaks no TLS, and a backup goes through no proxy: run this \
                        on its machine, or forward the port ('ssh -L 4450:127.0.0.1:4450 HOST')"
                    .to_owned(),
            );
        }
        _ => return Err(format!("this is not a URL of a server; {expected}")),
    }
    let authority = uri.authority().ok_or(format!("no host is named; {expected}"))?.as_str();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let unreachable = |error: io::Error| {
        format!(
            "it cannot be reached: {error}. Is it running, and does it listen there ('--url', or \
             '--config' with its file)? A store that no server has open is copied with '--data DIR'"
        )
    };
    let address = (host, port).to_socket_addrs().map_err(unreachable)?.next();
    let address = address.ok_or("its host has no address")?;
    let stream = TcpStream::connect_timeout(&address, CONNECT_WITHIN).map_err(unreachable)?;
    let failed = |error: io::Error| broken(&error);
    stream.set_read_timeout(Some(SILENCE_MAX)).map_err(failed)?;
    stream.set_write_timeout(Some(SILENCE_MAX)).map_err(failed)?;
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    // HTTP/1.0, so that the answer is not cut in pieces.
    let request =
        format!("POST /v1/backup HTTP/1.0\r\nHost: {authority}\r\n{key}Content-Length: 0\r\n\r\n");
    (&stream).write_all(request.as_bytes()).map_err(failed)?;
    let local = address.ip().to_canonical().is_loopback();
    let mut answer = BufReader::with_capacity(256 << 10, stream);
    let (status, head) = read_answer_head(&mut answer).map_err(failed)?;
    if status == 200 && head.contains(stream::CONTENT_TYPE) {
        return Ok(Asked { answer, local });
    }
    let mut body = String::new();
    let _ = answer.take(REFUSAL_BYTES_MAX).read_to_string(&mut body);
    let problem: Option<serde_json::Value> = serde_json::from_str(&body).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    Err(match (status, detail) {
        (403 | 409 | 503, Some(detail)) => format!("it refuses: {detail}"),
        (404 | 405, _) => {
            "it has no backups to give: this is not a Tributary, or a proxy before one, or \
                           an older version"
                .to_owned()
        }
        (200, _) => "it answers with something that is no backup; is this a Tributary?".to_owned(),
        (0, _) => "it does not speak HTTP; is this a Tributary?".to_owned(),
        (status, detail) => format!("it answers {status}: {}", detail.unwrap_or("no reason given")),
    })
}

/// The status, 0 if there is none, and the lines of the head in small letters.
fn read_answer_head(answer: &mut impl BufRead) -> io::Result<(u16, String)> {
    let (mut head, mut limited) = (String::new(), answer.take(HEAD_BYTES_MAX));
    loop {
        let mut line = Vec::new();
        let length = limited.read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line);
        if length == 0 || line.trim_end().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.trim_end().parse().ok())
        .unwrap_or(0);
    Ok((status, head.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_of_the_configuration_is_asked_on_this_machine() {
        assert_eq!(url_of("0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(url_of("[::]:4450".parse().unwrap()), "http://127.0.0.1:4450");
        assert_eq!(url_of("10.1.2.3:4450".parse().unwrap()), "http://10.1.2.3:4450");
    }

    #[test]
    fn the_head_of_an_answer_is_told_from_what_is_none() {
        let head = |mut text: &[u8]| read_answer_head(&mut text).unwrap().0;
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"), 200);
        assert_eq!(head(b"HTTP/1.0 409\r\n\r\n"), 409);
        assert_eq!(head(b"SSH-2.0-OpenSSH_9.6\r\n"), 0);
        assert_eq!(head(&[0xff; 100_000]), 0);
        assert_eq!(head(b""), 0);
    }
}
