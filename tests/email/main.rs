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

/// Sends a request that is slow until it is reported, so that there is no update, and waits until that has been mailed or
/// given up.
fn slow_request(reports: &Reports, uri: &str) {
    read_debug_information();
    ask(reports, uri);
    let _ = reports.blocking_flush(PATIENCE);
}

/// Makes the first report of the process, which takes so long that there may be an update.
fn read_debug_information() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| ask(&collect_with(|builder| builder).1, "/first"));
}

fn ask(reports: &Reports, uri: &str) {
    let layer = WatchdogLayer::new(ms(300)).reports(reports.clone());
    let reports = reports.clone();
    let service = layer.layer(tower::service_fn(move |_: Request<()>| {
        let reports = reports.clone();
        async move {
            wait_for_the_database(reports).await;
            Ok::<_, Infallible>(Response::new("answered".to_owned()))
        }
    }));
    let request = Request::get(uri).header("user-agent", "curl/8").body(()).unwrap();
    drop(runtime(0).block_on(service.oneshot(request)).unwrap());
}

/// Ends once there is another report.
async fn wait_for_the_database(reports: Reports) {
    let before = reports.stats().made;
    let is_reported = move || common::until("it is reported", || reports.stats().made > before);
    tokio::task::spawn_blocking(is_reported).await.unwrap();
}

/// One slow request, mailed as `email` says; its report as another sink has it.
fn mailed(email: Email) -> (heeler::Report, Reports) {
    let (collected, reports) = collect_with(|builder| builder.email(email).retry_for(Duration::ZERO));
    slow_request(&reports, "/photos/4711?size=full");
    (collected.first(), reports)
}
