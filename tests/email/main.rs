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

use common::{PATIENCE, collect_with, ms, runtime};
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

/// Sends requests that are slow, and not so slow that there is an update, until one has been reported, and waits until that has been mailed or given up.
fn slow_request(reports: &Reports, uri: &str) {
    let layer = WatchdogLayer::new(ms(100)).reports(reports.clone());
    let before = reports.stats().made;
    common::until("a slow request is reported", || {
        ask(&layer, uri);
        let _ = reports.blocking_flush(PATIENCE);
        reports.stats().made > before
    });
}

fn ask(layer: &WatchdogLayer, uri: &str) {
    let service = layer.layer(tower::service_fn(|_: Request<()>| async {
        wait_for_the_database().await;
        Ok::<_, Infallible>(Response::new("answered".to_owned()))
    }));
    let request = Request::get(uri).header("user-agent", "curl/8").body(()).unwrap();
    drop(runtime(0).block_on(service.oneshot(request)).unwrap());
}

async fn wait_for_the_database() {
    tokio::time::sleep(ms(150)).await;
}

/// One slow request, mailed as `email` says; its report as another sink has it.
fn mailed(email: Email) -> (heeler::Report, Reports) {
    let (collected, reports) = collect_with(|builder| builder.email(email).retry_for(Duration::ZERO));
    slow_request(&reports, "/photos/4711?size=full");
    (collected.first(), reports)
}
