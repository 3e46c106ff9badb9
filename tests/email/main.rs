//! Reports as mails: a real conversation with a mail server in this process, and what a mail program reads of the outcome.
#![cfg(feature = "watchdog")]
#![cfg(feature = "email")]

#[path = "../common/mod.rs"]
mod common;

mod delivery;
mod message;
mod server;
mod tls;

use std::convert::Infallible;
use std::time::Duration;

use common::{PATIENCE, collect_with, ms, runtime, until};
use heeler::{Email, Reports, WatchdogLayer};
use http::{Request, Response};
use server::Server;
use tower::{Layer as _, ServiceExt as _};

const FROM: &str = "Watchdog <watchdog@example.com>";
const TO: &str = "oncall@example.com";

/// Mails to this server, unencrypted.
fn plain(server: &Server) -> Email {
    Email::smtp("127.0.0.1", FROM, [TO]).port(server.port()).plaintext().timeout(ms(5_000))
}

/// Sends a request that is slow until it is captured, and waits until its report has been mailed or given up.
fn slow_request(reports: &Reports, uri: &str) {
    let layer = WatchdogLayer::new(ms(300)).reports(reports.clone());
    let before = reports.stats().made;
    ask(&layer, uri);
    until("its report is made", || reports.stats().made > before);
    let _ = reports.blocking_flush(PATIENCE);
}

fn ask(layer: &WatchdogLayer, uri: &str) {
    let _alone = common::alone();
    let service = layer.layer(tower::service_fn(|_: Request<()>| async {
        wait_for_the_database().await;
        Ok::<_, Infallible>(Response::new("answered".to_owned()))
    }));
    let request = Request::get(uri).header("user-agent", "curl/8").body(()).unwrap();
    drop(runtime(0).block_on(service.oneshot(request)).unwrap());
}

/// Ends once something has been captured, which is itself where it is alone. Its report may be made only after an update
/// would have been due.
async fn wait_for_the_database() {
    let before = heeler::metrics().captures.taken;
    let is_captured = move || until("it is captured", || heeler::metrics().captures.taken > before);
    tokio::task::spawn_blocking(is_captured).await.unwrap();
}

/// One slow request, mailed as `email` says; its report as another sink has it.
fn mailed(email: Email) -> (heeler::Report, Reports) {
    let (collected, reports) = collect_with(|builder| builder.email(email).retry_for(Duration::ZERO));
    slow_request(&reports, "/photos/4711?size=full");
    (collected.first(), reports)
}
