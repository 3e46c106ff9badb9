//! Reports by HTTP, from slow work to a real server on this host.
#![cfg(feature = "watchdog")]
#![cfg(feature = "webhook")]

#[path = "../common/mod.rs"]
mod common;
mod log;
mod server;
mod tls;

use std::time::Duration;

use common::{Collected, PATIENCE, collect_with, ms, until};
use heeler::{Report, Reports, ReportsBuilder, Webhook};
use hmac::{Hmac, KeyInit, Mac};
use log::logged;
use serde_json::Value;
use server::{Post, Server};
use sha2::Sha256;

const SECRET: &[u8] = b"a long random text";

/// Watches a slow job until its reports are where they should be.
fn report_to(hook: Webhook, service: &str) -> (Report, Reports) {
    let set = |builder: ReportsBuilder| builder.webhook(hook).service(service, "1.2.0").retry_for(Duration::ZERO);
    let (seen, reports) = collect_with(set);
    slow_job(&seen, &reports, "nightly import");
    let report = seen.first();
    (report, reports)
}

/// Ends once there is a report of it, before there is an update.
fn slow_job(seen: &Collected, reports: &Reports, name: &'static str) {
    let job = async {
        let arrived = seen.clone();
        tokio::task::spawn_blocking(move || until("it is reported", || !arrived.all().is_empty())).await.unwrap();
    };
    let job = heeler::watch(name, ms(300), job).reports(reports.clone());
    common::runtime(0).block_on(job);
    assert!(reports.blocking_flush(PATIENCE));
}

fn verifies(post: &Post, body: &[u8]) -> bool {
    let timestamp = post.header("x-heeler-timestamp");
    let hex = post.header("x-heeler-signature").strip_prefix("v1=").unwrap();
    let sent: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.verify_slice(&sent).is_ok()
}

/// Guards: the receiver gets the essentials, and can read them as a report.
#[test]
fn sends_the_short_form_by_default() {
    let server = Server::start();
    let (report, _) = report_to(server.hook("/hook"), "photos");
    let json = server.post().json();
    let whole: Value = serde_json::from_str(&report.to_json()).unwrap();
    for key in
        ["schema", "id", "verdict", "sentence", "job", "process", "location", "elapsed_ms", "fingerprint", "notes"]
    {
        assert_eq!(json[key], whole[key], "{key}");
    }
    let read: Report = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(read.sentence(), report.sentence());
    let frames = |report: &Report| report.stacks.iter().map(|stack| stack.frames.len()).sum::<usize>();
    assert_eq!(json["omitted"]["frames"], frames(&report) - frames(&read));
    assert!(read.stacks[0].frames.iter().any(|frame| frame.own) && frames(&read) < frames(&report), "{json:#}");
    assert_eq!(whole["omitted"], Value::Null);
}

/// Guards: if asked to, the receiver gets the very report that every sink gets, with the configured headers, and can verify
/// that nobody changed it.
#[test]
fn whole_reports_are_signed_json() {
    let server = Server::start();
    let hook = server
        .hook("/hook")
        .whole_reports()
        .secret(SECRET)
        .header("authorization", "Bearer 4711")
        .header("x-team", "photos");
    let (report, reports) = report_to(hook, "photos");
    let post = server.post();
    assert_eq!(post.json(), serde_json::from_str::<Value>(&report.to_json()).unwrap());
    assert_eq!(post.json()["job"], "nightly import");
    assert_eq!(post.header("content-type"), "application/json");
    assert_eq!(post.header("idempotency-key"), format!("{}.0", report.id));
    assert_eq!((post.header("authorization"), post.header("x-team")), ("Bearer 4711", "photos"));
    assert!(post.header("user-agent").starts_with("heeler/"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(post.header("x-heeler-timestamp").parse().unwrap()) < 60);
    assert!(verifies(&post, &post.body));
    let mut changed = post.body.to_vec();
    changed[post.body.len() / 2] ^= 1;
    assert!(!verifies(&post, &changed));
    let stats = reports.stats();
    // On a slow machine there are updates, too.
    assert_eq!((stats.delivered, stats.failed_deliveries), (stats.made, 0));
}

/// Guards: Slack gets a message that it accepts, which says where the work is stuck and mentions nobody, whatever the name
/// says.
#[test]
fn slack_gets_a_message_that_mentions_nobody() {
    let server = Server::start();
    let (seen, reports) = collect_with(|builder| builder.webhook(server.hook("/services/T/B/x").slack()));
    slow_job(&seen, &reports, "import `<!channel>` @everyone\n```& more");
    let message = server.post().json();
    let text = message["text"].as_str().unwrap();
    let place = common::place(&seen.first());
    assert!(text.starts_with("*Slow job* on ") && text.contains(&place), "{text}");
    assert!(text.contains("`the job \"import '&lt;!channel&gt;' @everyone\\n'''&amp; more\" is waiting"), "{text}");
    let blocks = message["blocks"].as_array().unwrap();
    let kinds: Vec<_> = blocks.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["section", "section", "context"]);
    assert!(blocks[1]["text"]["text"].as_str().unwrap().contains(&place));
    assert!(!message.to_string().contains("<!"));
}

/// Guards: reports that cannot be delivered are counted and logged, with what the server says, but without the URL. The URL
/// may be a secret, even if the server repeats it.
#[test]
fn refusals_are_logged_without_the_url() {
    let server = Server::start();
    for (path, said) in [
        ("/missing/T0KEN-1?key=T0KEN-2", "404 Not Found: cannot POST [redacted]"),
        ("/down/T0KEN-1", "503 Service Unavailable: come back later"),
        ("/moved/T0KEN-1", "308 Permanent Redirect"),
        ("/half/T0KEN-1", "403 Forbidden: you may not"),
    ] {
        let hook = server.hook(path).header("authorization", "Bearer T0KEN-3").secret("T0KEN-4");
        assert!(!format!("{hook:?}").contains("T0KEN"));
        let logged = logged(|| {
            let (_, reports) = report_to(hook, "photos");
            assert_eq!((reports.stats().undelivered, reports.stats().delivered), (reports.stats().made, 0), "{path}");
            assert!(!format!("{reports:?}").contains("T0KEN"));
        });
        assert!(logged.contains(&format!("webhook 127.0.0.1: the server answered {said}")), "{logged}");
        assert!(!logged.contains("T0KEN") && !logged.contains('\u{1b}'), "{logged}");
    }
    let paths: Vec<String> = server.posts().iter().map(|post| post.uri.path().to_owned()).collect();
    assert!(!paths.iter().any(|path| path == "/elsewhere"), "redirects are not followed: {paths:?}");
}

/// Guards: neither a server that never responds, nor one that does not listen, holds the reporter up for longer than the
/// timeout.
#[test]
fn an_unresponsive_server_delays_only_until_the_timeout() {
    let server = Server::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hooks = [
        (server.hook("/never/T0KEN-1"), "no answer within 200ms"),
        (Webhook::new(format!("http://{closed}/T0KEN-1")), "error sending request"),
    ];
    for (hook, said) in hooks {
        let logged = logged(|| {
            let (_, reports) = report_to(hook.timeout(ms(200)), "photos");
            assert_eq!((reports.stats().undelivered, reports.stats().delivered), (reports.stats().made, 0));
        });
        assert!(logged.contains(said), "{logged}");
        assert!(!logged.contains("T0KEN"), "{logged}");
    }
}

/// Guards: a delivery that failed temporarily is sent again, and a receiver can tell that it is the same.
#[test]
fn retries_after_a_failed_delivery() {
    let server = Server::start();
    let hook = server.hook("/recovering").secret(SECRET);
    // How the job ends is posted while the failed delivery waits.
    let (seen, reports) = collect_with(|builder| builder.without_endings().webhook(hook));
    slow_job(&seen, &reports, "nightly import");
    let posts = server.posts();
    // On a slow machine, an update is posted meanwhile.
    let mut same = posts.iter().filter(|post| post.header("idempotency-key") == posts[0].header("idempotency-key"));
    let (Some(first), Some(again), None) = (same.next(), same.next(), same.next()) else {
        panic!("it is posted twice")
    };
    assert_eq!(first.body, again.body);
    assert!(verifies(again, &again.body));
    let stats = reports.stats();
    assert_eq!((stats.delivered, stats.undelivered, stats.failed_deliveries), (stats.made, 0, 1));
}

/// Guards: beyond the hourly limit, a digest describes the other reports.
#[test]
fn sends_a_digest_beyond_the_hourly_limit() {
    for slack in [false, true] {
        let server = Server::start();
        let hook = if slack { server.hook("/").slack() } else { server.hook("/") };
        let (seen, reports) = collect_with(|builder| builder.webhook(hook.per_hour(1)));
        for round in 1..=4 {
            let job = async {
                let seen = seen.clone();
                let reported = move || seen.all().iter().filter(|report| report.update == 0).count() >= round;
                tokio::task::spawn_blocking(move || until("it is reported", reported)).await.unwrap();
            };
            common::runtime(0).block_on(heeler::watch("import", ms(200), job).reports(reports.clone()));
        }
        assert!(reports.blocking_flush(PATIENCE));
        if slack {
            let last = server.posts().pop().unwrap();
            assert!(last.header("idempotency-key").starts_with("digest."));
            let text = last.json()["text"].as_str().unwrap().to_owned();
            assert!(text.contains("more slow report") && text.contains("import: waiting"), "{text}");
            continue;
        }
        let posts = server.posts();
        let (reported, digests) = posts.split_first().unwrap();
        assert_eq!(reported.json()["kind"], "slow_job");
        for digest in digests {
            assert!(digest.header("idempotency-key").starts_with("digest."));
            assert_eq!(digest.json()["kind"], "digest");
        }
        // A slow job is updated before it ends. That counts at most once in a digest, and begins another one if a flush has begun.
        let others: u64 = digests.iter().map(|digest| digest.json()["reports"].as_u64().unwrap()).sum();
        assert!((3..reports.stats().made).contains(&others), "{others} of {:?}", reports.stats());
        assert_eq!(digests[0].json()["entries"][0]["fingerprint"], seen.first().fingerprint);
        until("all is delivered", || reports.stats().delivered == reports.stats().made);
    }
}

/// Guards: settings that cannot be used are errors of `build`. The error says what is wrong, and contains no secret.
#[test]
fn unusable_settings_are_build_errors() {
    let bad = [
        Webhook::new("not a URL, T0KEN"),
        Webhook::new("http://hooks.example.com/T0KEN"),
        Webhook::new("https://hooks.example.com/T0KEN").timeout(Duration::ZERO),
        Webhook::new("https://hooks.example.com/T0KEN").slack().whole_reports(),
        Webhook::new("https://hooks.example.com/T0KEN").header("x-key", "T0KEN\n"),
    ];
    for hook in bad {
        let error = Reports::builder().webhook(hook.clone()).build().unwrap_err();
        assert!(error.is_config());
        assert!(!format!("{error} {error:?} {hook:?}").contains("T0KEN"), "{error}");
    }
    Reports::builder().webhook(Webhook::new("http://hooks.example.com/T0KEN").plaintext()).build().unwrap();
}
