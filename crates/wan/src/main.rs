//! `tributary-wan`: a wide-area network between processes on one machine.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::HeaderValue;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tributary_wan::{Conditions, Wan, Way, control};

/// Forwards TCP connections as a wide-area network would.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A link: connections to LISTEN lead to TARGET. Repeatable.
    #[arg(long = "link", value_name = "NAME=LISTEN,TARGET", required = true)]
    links: Vec<LinkArgument>,
    /// Where to listen for control by HTTP (GET /links, PUT /links/{name}).
    #[arg(long, value_name = "ADDR")]
    control: Option<SocketAddr>,
    /// Pages from this origin may use the control, too; `*` for all.
    #[arg(long, value_name = "ORIGIN", requires = "control")]
    allow_origin: Option<HeaderValue>,
    /// The latency of each way of each link at the start.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u32,
    /// The jitter of each way of each link at the start.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    jitter_ms: u32,
    /// The bandwidth of each way of each link at the start.
    #[arg(long, value_name = "N")]
    bytes_per_second: Option<NonZeroU64>,
    /// Where the jitter's chance starts from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone)]
struct LinkArgument {
    name: String,
    listen: SocketAddr,
    target: SocketAddr,
}

impl FromStr for LinkArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "it has the form NAME=LISTEN,TARGET".to_owned();
        let (name, addresses) = text.split_once('=').ok_or_else(form)?;
        let (listen, target) = addresses.split_once(',').ok_or_else(form)?;
        let address = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        Ok(Self { name: name.to_owned(), listen: address(listen)?, target: address(target)? })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let wan = Arc::new(Wan::new(arguments.seed));
    let way = Way {
        latency_ms: arguments.latency_ms,
        jitter_ms: arguments.jitter_ms,
        bytes_per_second: arguments.bytes_per_second,
        ..Way::default()
    };
    for link in arguments.links {
        let link = wan.link(&link.name, link.listen, link.target)?;
        link.set(Conditions::both(way))?;
        println!("link {}: {} leads to {}", link.name(), link.listen(), link.target());
    }
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let controlled = async {
        match arguments.control {
            Some(address) => {
                let listener = TcpListener::bind(address).await?;
                println!("control: http://{}/links", listener.local_addr()?);
                let router = control::router(wan.clone(), arguments.allow_origin);
                axum::serve(listener, router).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = controlled => served?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
