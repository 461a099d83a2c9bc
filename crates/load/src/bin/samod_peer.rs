//! A plain samod server to measure beside: every document on the file system, nothing announced.
//!
//! `samod-peer ADDRESS DIRECTORY`

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use samod::storage::TokioFilesystemStorage;
use samod::{Repo, ShareConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("samod-peer ADDRESS DIRECTORY")?;
    let directory = arguments.next().ok_or("samod-peer ADDRESS DIRECTORY")?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let repo = Repo::build_tokio()
            .with_storage(TokioFilesystemStorage::new(directory))
            .with_share_policy(ShareConfig::read_write().with_announce(false))
            .load()
            .await;
        let acceptor = repo.make_acceptor(format!("ws://{address}").parse()?)?;
        let route = get(move |upgrade: WebSocketUpgrade| async move {
            upgrade.max_message_size(256 << 20).max_frame_size(256 << 20).on_upgrade(
                move |socket| async move {
                    // The connection lives on in the repository.
                    let _ = acceptor.accept_axum(socket, None);
                },
            )
        });
        let listener = tokio::net::TcpListener::bind(&address).await?;
        axum::serve(listener, Router::new().route("/", route)).await?;
        Ok(())
    })
}
