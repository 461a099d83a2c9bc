//! `tributary links`: asks a running region how its links to other regions are.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use axum::http::Uri;

use crate::exit::Failure;
use crate::regions::view::{LinkView, MeshView};

/// How long the region may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// An answer of more bytes is none of ours.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What to ask, and how to show it.
#[derive(Debug, clap::Args)]
pub struct LinksArgs {
    /// Where the region listens, as it said when it started
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4450")]
    url: String,
    /// Prints what the region said, as JSON
    #[arg(long)]
    json: bool,
}

/// Asks, and prints one line for each link.
///
/// # Errors
/// When the region cannot be asked, or what it says makes no sense.
pub fn links(args: &LinksArgs) -> Result<(), Failure> {
    let answer = ask(&args.url).map_err(|why| Failure::Found(format!("{}: {why}", args.url)))?;
    if args.json {
        println!("{}", answer.trim_end());
        return Ok(());
    }
    let view: MeshView = serde_json::from_str(&answer).map_err(|error| {
        Failure::Found(format!("{}: the answer is not that of a region: {error}", args.url))
    })?;
    if view.links.is_empty() {
        println!("region {} has no links", view.region);
    } else {
        println!("region {}", view.region);
        print!("{}", table(&view.links));
    }
    Ok(())
}

/// One GET by hand: the server's HTTP stack is there for accepting, not for asking.
fn ask(url: &str) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|_| "is not a URL".to_owned())?;
    if !matches!(uri.scheme_str(), Some("http" | "ws")) {
        return Err("only http:// (or ws://) is spoken here".to_owned());
    }
    let authority = uri.authority().ok_or("names no host")?.as_str();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let failed = |error: std::io::Error| error.to_string();
    let mut addresses = (host, port).to_socket_addrs().map_err(failed)?;
    let address = addresses.next().ok_or("has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(failed)?;
    // HTTP/1.0, so that the answer is neither cut in pieces nor kept open.
    write!(stream, "GET /v1/mesh HTTP/1.0\r\nHost: {authority}\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("answers '{status}'"));
    }
    Ok(body.to_owned())
}

fn table(links: &[LinkView]) -> String {
    let mut rows = vec![
        ["REGION", "STATE", "ROUND TRIP", "BEHIND", "FOR", "IN", "OUT", "RATIO", "LAST ERROR"]
            .map(str::to_owned),
    ];
    rows.extend(links.iter().map(row));
    let widths: [usize; 9] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(link: &LinkView) -> [String; 9] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        link.region.clone(),
        link.state.clone(),
        or_dash(link.round_trip_ms.map(|ms| format!("{ms:.1} ms"))),
        match link.lag_changes {
            0 => "level".to_owned(),
            1 => "1 change".to_owned(),
            n => format!("{n} changes"),
        },
        if link.lag_changes == 0 { "-".to_owned() } else { format!("{:.1} s", link.lag_seconds) },
        bytes(link.live.bytes_in + link.bulk.bytes_in),
        bytes(link.live.bytes_out + link.bulk.bytes_out),
        or_dash(link.compression_ratio.map(|ratio| format!("{ratio:.1}"))),
        or_dash(link.last_error.clone()),
    ]
}

fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{:.1} KiB", count as f64 / 1_024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_line_for_each_link_and_its_columns_line_up() {
        let link = LinkView {
            region: "us".to_owned(),
            state: "up".to_owned(),
            round_trip_ms: Some(140.25),
            lag_changes: 12,
            lag_seconds: 0.5,
            ..LinkView::default()
        };
        let other = LinkView { region: "ap-southeast".to_owned(), ..link.clone() };
        let text = table(&[link, other]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("ROUND").unwrap();
        assert!(lines[1..].iter().all(|line| line[column..].starts_with("140.2 ms")), "{text}");
        assert!(lines[1].contains("12 changes") && lines[1].contains("0.5 s"), "{text}");
    }
}
