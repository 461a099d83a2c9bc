//! `tributary links`: asks a running region how its links to other regions are.

use crate::exit::Failure;
use crate::regions::view::{LinkView, MeshView};
use crate::tools::ask::{Asked, Unanswered, bytes};

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
    let failed = |error: Unanswered| Failure::Found(error.to_string());
    let asked = Asked::parse(&args.url).map_err(failed)?.at_once();
    if args.json {
        let answer = asked.get("/v1/mesh").map_err(failed)?;
        println!("{}", String::from_utf8_lossy(&answer).trim_end());
        return Ok(());
    }
    let view: MeshView = asked.json("/v1/mesh").map_err(failed)?;
    if view.links.is_empty() {
        println!("region {} has no links", view.region);
    } else {
        println!("region {}", view.region);
        print!("{}", table(&view.links));
    }
    Ok(())
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
