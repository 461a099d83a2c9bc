//! `tributary top`: how a running region is, live on a terminal.

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};
use ratatui::{Frame, Terminal};

use crate::exit::Failure;
use crate::page::duration;
use crate::status::{Link, Status};
use crate::tools::ask::{Asked, Unanswered, bytes};

/// How often the region is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long a key may wait until it is heard.
const KEYS_EVERY: Duration = Duration::from_millis(100);
/// The size of a frame that is printed where there is no terminal.
const FRAME: (u16, u16) = (100, 30);

/// On a narrower terminal figures are in two rows, and of links there is what matters most.
const WIDE: u16 = 72;

/// Which region.
///
/// Keys: q, Esc or Ctrl-C quit. Exit codes: 0 it was left, or printed; 1 the region could not be asked;
/// 2 standard output is no terminal, or the URL makes no sense.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Where the region listens, as it said when it started
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4450")]
    url: String,
    /// Prints one frame as text and ends
    #[arg(long)]
    once: bool,
}

/// What is known of the region.
struct Seen {
    url: String,
    status: Status,
    /// Since when there is no answer, and why.
    lost: Option<(Instant, String)>,
}

/// Shows the region until somebody quits.
///
/// # Errors
/// When there is no terminal to show it on, or the region cannot be asked at the start.
pub fn top(args: &TopArgs) -> Result<(), Failure> {
    if !args.once && !std::io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "top draws on a terminal, and standard output is none; --once prints one frame, and \
             /v1/status has the figures as JSON"
                .to_owned(),
        ));
    }
    let asked =
        Asked::parse(&args.url).map_err(|error| Failure::Usage(error.to_string()))?.at_once();
    let status = look(&asked).map_err(|error| Failure::Found(error.to_string()))?;
    let seen = Seen { url: asked.url().to_owned(), status, lost: None };
    if args.once {
        print!("{}", frame(&seen, ratatui::crossterm::terminal::size().unwrap_or(FRAME)));
        return Ok(());
    }
    live(seen, asked)
}

fn look(asked: &Asked) -> Result<Status, Unanswered> {
    asked.json("/v1/status")
}

fn live(mut seen: Seen, asked: Asked) -> Result<(), Failure> {
    // A region that hangs must not keep the keys from being heard.
    let (say, heard) = mpsc::sync_channel(1);
    thread::spawn(move || {
        loop {
            thread::sleep(EVERY);
            if say.send(look(&asked)).is_err() {
                return;
            }
        }
    });
    // It also gives the terminal back if we panic.
    let mut terminal = ratatui::init();
    let outcome = watch(&mut terminal, &mut seen, &heard);
    ratatui::restore();
    outcome.map_err(|error| Failure::Found(format!("the terminal cannot be drawn on: {error}")))
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    seen: &mut Seen,
    heard: &Receiver<Result<Status, Unanswered>>,
) -> std::io::Result<()> {
    loop {
        terminal.draw(|frame| draw(frame, seen))?;
        // Until there is something new to draw: an answer, a key, another size, or a second more
        // without an answer.
        let until = Instant::now() + EVERY;
        while Instant::now() < until {
            if event::poll(Duration::ZERO)? {
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press => {
                        let control = key.modifiers.contains(KeyModifiers::CONTROL);
                        match key.code {
                            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                            KeyCode::Char('c') if control => return Ok(()),
                            _ => {}
                        }
                    }
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
            match heard.recv_timeout(KEYS_EVERY) {
                Ok(Ok(status)) => {
                    (seen.status, seen.lost) = (status, None);
                    break;
                }
                Ok(Err(error)) => {
                    let since = seen.lost.take().map_or_else(Instant::now, |(since, _)| since);
                    seen.lost = Some((since, error.to_string()));
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// One frame as text.
fn frame(seen: &Seen, (width, height): (u16, u16)) -> String {
    let backend = TestBackend::new(width.max(40), height.max(12));
    let mut terminal = Terminal::new(backend).expect("memory can be drawn on");
    let _ = terminal.draw(|frame| draw(frame, seen));
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let line: String = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn draw(frame: &mut Frame<'_>, seen: &Seen) {
    let area = frame.area();
    let links = seen.status.links.len().max(1) as u16 + 3;
    // What there is room for: a small terminal has the figures and the links, and then lines of the log.
    let (figures, plots) = match area.height {
        22.. if area.width < WIDE => (14, 0),
        20.. => (7, 6),
        _ => (7, 0),
    };
    let [title, figures, plotted, table, log, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(figures),
        Constraint::Length(plots),
        Constraint::Max(links),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(heading(seen, area.width)), title);
    draw_figures(frame, figures, &seen.status);
    if plots > 0 {
        draw_plots(frame, plotted, &seen.status);
    }
    draw_links(frame, table, &seen.status.links);
    draw_log(frame, log, &seen.status);
    let said = match &seen.lost {
        Some((_, why)) => Line::styled(format!(" {why}"), bad()),
        None => Line::styled(" q quits", quiet()),
    };
    frame.render_widget(Paragraph::new(said), keys);
}

fn heading(seen: &Seen, width: u16) -> Line<'static> {
    let status = &seen.status;
    let name = format!(" {} ", status.region);
    let state = match &seen.lost {
        None => Span::styled(" live", good()),
        Some((since, _)) => {
            let text = format!(" NOT REACHED for {}", duration(since.elapsed().as_secs_f64()));
            Span::styled(text, bad().add_modifier(Modifier::BOLD))
        }
    };
    let up = format!(" up for {},", duration(status.uptime_seconds));
    let mut spans = vec![
        Span::styled(name, Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)),
        Span::raw(up),
        state,
    ];
    let about = format!("tributary {}  {} ", status.version, seen.url);
    let used: usize = spans.iter().map(Span::width).sum();
    let room = (width as usize).saturating_sub(used + 1);
    if about.len() <= room {
        spans.push(Span::styled(format!("{about:>room$}"), quiet()));
    }
    Line::from(spans)
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let [left, middle, right] = thirds(area);
    let Status { sessions, documents, totals, per_second: rates, commits, quarantine, .. } = status;
    let stored = documents.stored.map_or_else(
        || "not counted".to_owned(),
        |n| format!("{n}{}", if documents.stored_more { "+" } else { "" }),
    );
    let ms = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    column(
        frame,
        left,
        "Clients",
        &[
            ("sessions", sessions.connected.to_string(), false),
            ("joined", sessions.opened.to_string(), false),
            ("closed for cause", sessions.closed_for_cause.to_string(), false),
            ("documents open", documents.open.to_string(), false),
            ("stored", stored, false),
        ],
    );
    column(
        frame,
        middle,
        "Traffic",
        &[
            ("changes in", format!("{:.1}/s", rates.changes_in), false),
            ("changes out", format!("{:.1}/s", rates.changes_out), false),
            ("bytes in", format!("{}/s", bytes(rates.bytes_in as u64)), false),
            ("bytes out", format!("{}/s", bytes(rates.bytes_out as u64)), false),
            ("changes so far", totals.changes_in.to_string(), false),
        ],
    );
    column(
        frame,
        right,
        "Commits, quarantine",
        &[
            ("p50", ms(commits.p50_ms), false),
            ("p99", ms(commits.p99_ms), false),
            ("in a minute", commits.count.to_string(), false),
            ("set aside", quarantine.set_aside.to_string(), quarantine.set_aside > 0),
            ("refused", quarantine.refused.to_string(), quarantine.refused > 0),
        ],
    );
}

/// Side by side, or the last below the others where there is no room.
fn thirds(area: Rect) -> [Rect; 3] {
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    if area.height < 14 {
        return Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
    }
    let [above, below] = Layout::vertical(halves).areas(area);
    let [left, middle] = Layout::horizontal(halves).areas(above);
    [left, middle, below]
}

/// Names on the left, figures on the right.
fn column(frame: &mut Frame<'_>, area: Rect, title: &'static str, rows: &[(&str, String, bool)]) {
    let block = Block::bordered().title(format!(" {title} ")).border_style(quiet());
    let inner = block.inner(area);
    let width = inner.width as usize;
    let lines: Vec<_> = rows
        .iter()
        .map(|(name, figure, alarming)| {
            let gap = width.saturating_sub(name.chars().count() + figure.chars().count() + 2);
            let style = if *alarming { bad() } else { Style::new().add_modifier(Modifier::BOLD) };
            Line::from(vec![
                Span::styled(format!(" {name}{:gap$}", ""), quiet()),
                Span::styled(figure.clone(), style),
            ])
        })
        .collect();
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(lines), inner);
}

fn draw_plots(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]);
    let [left, right] = halves.areas(area);
    let commits: Vec<f64> =
        status.minute.commit_p99_ms.iter().map(|ms| ms.unwrap_or_default()).collect();
    plot(frame, left, "Commit p99", &commits, |most| format!("{most:.1} ms"));
    let changes: Vec<f64> = status.minute.changes_in.clone();
    plot(frame, right, "Changes in", &changes, |most| format!("{most:.0}/s"));
}

/// The last minute, the newest on the right; each second as wide as there is room for.
fn plot(frame: &mut Frame<'_>, area: Rect, title: &str, values: &[f64], say: fn(f64) -> String) {
    let most = values.iter().copied().fold(0.0, f64::max);
    let title = format!(" {title}, a minute, at most {} ", say(most));
    let block = Block::bordered().title(title).border_style(quiet());
    let inner = block.inner(area);
    let width = inner.width as usize;
    let wide = (width / 60).max(1);
    let bars: Vec<u64> =
        values.iter().flat_map(|value| vec![(value * 100.0).round() as u64; wide]).collect();
    let newest = &bars[bars.len().saturating_sub(width)..];
    let mut data = vec![0; width - newest.len()];
    data.extend_from_slice(newest);
    let line = Sparkline::default().data(data).style(Style::new().fg(Color::Cyan));
    frame.render_widget(block, area);
    frame.render_widget(line, inner);
}

fn draw_links(frame: &mut Frame<'_>, area: Rect, links: &[Link]) {
    let block = Block::bordered().title(" Links ").border_style(quiet());
    if links.is_empty() {
        let none = Paragraph::new(Line::styled(" none: this region stands alone", quiet()));
        return frame.render_widget(none.block(block), area);
    }
    let head = ["region", "state", "round trip", "behind", "in", "out", "last error"];
    let columns = if area.width >= WIDE { head.len() } else { 4 };
    let rows = links.iter().map(|link| {
        let state = match link.state.as_str() {
            "up" => good(),
            "down" => bad().add_modifier(Modifier::BOLD),
            _ => Style::new().fg(Color::Yellow),
        };
        let behind = match link.lag_changes {
            0 => "level".to_owned(),
            n => format!("{n}, {:.0} s", link.lag_seconds),
        };
        let cells = [
            Cell::new(link.region.clone()),
            Cell::new(link.state.clone()).style(state),
            Cell::new(link.round_trip_ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"))),
            Cell::new(behind),
            Cell::new(bytes(link.bytes_in)),
            Cell::new(bytes(link.bytes_out)),
            Cell::new(link.last_error.clone().unwrap_or_default()).style(quiet()),
        ];
        Row::new(cells.into_iter().take(columns))
    });
    let names = links.iter().map(|link| link.region.len()).max().unwrap_or_default();
    let widths = [
        // As wide as it has to be, so that there is room for what went wrong.
        Constraint::Length(names.clamp(6, 20) as u16),
        Constraint::Length(7),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Fill(1),
    ];
    let head = Row::new(head.into_iter().take(columns)).style(quiet());
    let table = Table::new(rows, widths.into_iter().take(columns)).header(head).block(block);
    frame.render_widget(table, area);
}

fn draw_log(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let title =
        format!(" Log: {} errors, {} warnings ", status.errors_total, status.warnings_total);
    let block = Block::bordered().title(title).border_style(quiet());
    let lines: Vec<_> = status
        .errors
        .iter()
        .map(|line| {
            let style = if line.level == "error" { bad() } else { Style::new().fg(Color::Yellow) };
            let ago = duration(status.now.saturating_sub(line.at) as f64 / 1e3);
            let fields: Vec<_> =
                line.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let times =
                if line.count > 1 { format!(" ({} times)", line.count) } else { String::new() };
            Line::from(vec![
                Span::styled(format!(" {:5} ", line.level), style),
                Span::styled(format!("{ago:>12} ago "), quiet()),
                Span::raw(format!("{}{times} ", line.message)),
                Span::styled(fields.join(" "), quiet()),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn good() -> Style {
    Style::new().fg(Color::Green)
}

fn bad() -> Style {
    Style::new().fg(Color::Red)
}

fn quiet() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Commits, Minute, Rates, Sessions};

    fn seen() -> Seen {
        let link = Link { region: "us".to_owned(), state: "up".to_owned(), ..Link::default() };
        let status = Status {
            version: "0.1.0".to_owned(),
            region: "eu".to_owned(),
            uptime_seconds: 65.0,
            sessions: Sessions { connected: 7, ..Sessions::default() },
            per_second: Rates { changes_in: 12.5, ..Rates::default() },
            commits: Commits { count: 3, p50_ms: Some(0.5), p99_ms: Some(2.25), last_ms: None },
            links: vec![link],
            minute: Minute { commit_p99_ms: vec![None, Some(4.0)], ..Minute::default() },
            ..Status::default()
        };
        Seen { url: "http://127.0.0.1:4450".to_owned(), status, lost: None }
    }

    #[test]
    fn a_frame_has_the_figures_and_the_links_whatever_its_size() {
        for size in [(80, 24), (140, 40), (60, 16), (50, 24), (200, 80)] {
            let text = frame(&seen(), size);
            let whole = ["eu", "up for 1 min 5 s", "live", "sessions", "12.5/s", "us", "q quits"];
            let roomy = (size.1 >= 22).then_some("closed for cause");
            for part in whole.into_iter().chain(roomy) {
                assert!(text.contains(part), "{part} is not in {size:?}:\n{text}");
            }
            assert!(text.lines().all(|line| line.chars().count() <= size.0.into()), "{text}");
        }
    }

    #[test]
    fn no_size_is_too_small_to_draw_on() {
        for size in [(1, 1), (40, 3), (3, 40)] {
            let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
            terminal.draw(|frame| draw(frame, &seen())).unwrap();
        }
    }

    #[test]
    fn a_region_that_is_not_reached_is_said_to_be_so() {
        let lost = Some((Instant::now(), "no region listens there".to_owned()));
        let text = frame(&Seen { lost, ..seen() }, (80, 24));
        assert!(text.contains("NOT REACHED") && text.contains("no region listens there"), "{text}");
    }
}
