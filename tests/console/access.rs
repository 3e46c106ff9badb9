//! Who may look, and what everybody else sees.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;

use heeler::{Reports, WatchdogLayer, authorize};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use tower::ServiceExt as _;

use super::app::{App, SECRET, ask_socket};

const QUERIES: [&str; 13] = [
    "",
    "?view=places",
    "?view=resources",
    "?view=threads",
    "?view=runtimes",
    "?view=history",
    "?view=switches",
    "?form=text",
    "?form=json",
    "?form=svg",
    "?events",
    "?switch=1&to=off",
    "?x",
];

/// Guards: whoever has no access sees nothing at all, whatever they ask for, and in whatever way.
#[test]
fn others_see_nothing() {
    let mut app = App::start();
    app.fill();
    for query in QUERIES {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            for credentials in ["", "authorization: Bearer a-secret-of-this-tesu\r\n", "cookie: heeler=x\r\n"] {
                let answer = app.ask(&format!("{method} /{query} HTTP/1.1\r\nhost: localhost\r\n{credentials}"));
                assert_eq!((answer.status, &*answer.body), (404, ""), "{method} {query} {credentials}");
                assert!(!answer.head.contains("content-type"), "{}", answer.head);
            }
        }
    }
    // A name that leads to this machine is not this machine's.
    let head = format!("GET / HTTP/1.1\r\nhost: evil.example\r\nauthorization: Bearer {SECRET}\r\n");
    assert_eq!(app.ask(&head).status, 404);
    // Nor is it where a listener on all addresses is asked at this machine's own.
    let everywhere = app.console.serve("0.0.0.0:0".parse().unwrap()).unwrap();
    app.address = (Ipv4Addr::LOCALHOST, everywhere.port()).into();
    assert_eq!(app.ask(&head).status, 404);
    assert_eq!(app.get("?form=text").status, 200);
}

/// Guards: whoever has access gets pages and documents that nothing can be put into, that are kept nowhere, and that show no
/// secret.
#[test]
fn those_with_access_get_pages_and_documents() {
    let app = App::start();
    app.fill();
    for (query, kind) in [
        ("", "text/html"),
        ("?view=places", "text/html"),
        ("?view=resources", "text/html"),
        ("?view=threads", "text/html"),
        ("?view=runtimes", "text/html"),
        ("?view=history", "text/html"),
        ("?view=switches", "text/html"),
        ("?form=text", "text/plain"),
        ("?form=json", "application/json"),
        ("?form=table", "application/json"),
        ("?form=svg", "image/svg+xml"),
    ] {
        let answer = app.get(query);
        assert_eq!(answer.status, 200, "{query}");
        for header in [
            &format!("content-type: {kind}"),
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
        ] {
            assert!(answer.head.contains(header), "{query}: {}", answer.head);
        }
        assert!(answer.head.contains("content-security-policy: default-src 'none'"), "{}", answer.head);
        assert!(!answer.body.contains("hunter2"), "{query}");
        assert!(!answer.body.contains("<script>alert") || !answer.head.contains("ml"), "{query}");
        assert!(!answer.body.contains('\u{1b}') && !answer.body.contains('\u{202e}'), "{query}");
    }
    assert!(app.get("?form=text").body.contains("DEADLOCK"));
    let dump: serde_json::Value = serde_json::from_str(&app.get("?form=json").body).unwrap();
    assert_eq!((&dump["schema"], &dump["in_flight"]), (&1.into(), &7.into()));
    assert!(dump["sentence"].as_str().unwrap().starts_with("7 in flight, 2 of them in a deadlock"));
    let id = dump["work"][0]["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("?work={id}")).status, 200);
    assert_eq!(app.get("?work=0123456789abcdef").status, 404);
    assert_eq!(app.get("?view=secrets").status, 404);
    let post = format!("POST / HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\ncontent-length: 0\r\n");
    assert_eq!(app.ask(&post).status, 405);
}

/// Guards: the Unix socket needs no token, and is its user's alone.
#[test]
fn the_socket_is_its_users_alone() {
    let app = App::start();
    app.fill();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("own/console.sock");
    app.console.serve_unix(&path).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let answer = ask_socket(&path, "GET /?form=text HTTP/1.1\r\nhost: anything\r\n");
    assert!(answer.status == 200 && answer.body.starts_with("7 in flight"), "{}", answer.body);
    let error = app.console.serve_unix(&path).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("console.sock"), "{error}");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = app.console.serve_unix(place.path().join("other.sock")).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("chmod 700"), "{error:?}");
}

/// Guards: a listener of its own has no layers around it, so what needs one is refused at once.
#[test]
fn an_extension_needs_a_layer() {
    let console = heeler::console(Reports::default(), authorize::extension::<u32>(|_| true));
    let error = console.serve("127.0.0.1:0".parse().unwrap()).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("authorize::extension"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let console = heeler::console(Reports::default(), authorize::debug_builds());
    assert!(console.serve(taken.local_addr().unwrap()).unwrap_err().is_config());
}

/// Guards: nested in an application, under any path and within a watchdog, it answers, and neither lists nor limits itself.
#[test]
fn it_is_nested_under_any_path() {
    let app = App::start();
    app.fill();
    let router = axum::Router::new()
        .nest_service("/inside/console", app.console.clone())
        .layer(WatchdogLayer::new(std::time::Duration::from_millis(1)));
    let ask = |path: &'static str, secret: &'static str| {
        let request = Request::get(path).header("authorization", format!("Bearer {secret}"));
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let router = router.clone();
        let answer = app.driven.spawn(async move {
            let response = router.oneshot(request.map(axum::body::Body::new)).await.unwrap();
            let status = response.status();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        });
        app.driven.handle.block_on(answer).unwrap()
    };
    let captures = heeler::metrics().captures.taken;
    for path in ["/inside/console?form=text", "/inside/console/?form=text"] {
        let (status, body) = ask(path, SECRET);
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(body.starts_with("7 in flight") && !body.contains("/inside/console"), "{body}");
    }
    let (status, body) = ask("/inside/console?form=text", "not-the-secret-of-this-test");
    assert_eq!((status, body.len()), (StatusCode::NOT_FOUND, 0));
    assert_eq!(heeler::metrics().captures.taken, captures, "the console itself is never slow");
}

/// Guards: a watchdog is switched by a POST of the console's own pages, for some minutes, and told to the log with who did it.
/// No other page can have it done.
#[test]
fn a_watchdog_is_switched_for_some_minutes() {
    let app = App::start();
    let handle = app.layer.handle();
    let post = |query: &str, more: &str| {
        let head = format!(
            "POST /{query} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\ncontent-length: 0\r\n{more}"
        );
        app.ask(&head).status
    };
    let page = app.get("?view=switches").body;
    // The last one is this test's.
    let id = page.rsplit("?switch=").next().unwrap().split('&').next().unwrap().to_owned();
    let off = format!("?switch={id}&to=off&minutes=10");
    for foreign in
        ["origin: http://evil.example\r\n", "sec-fetch-site: cross-site\r\n", "referer: http://evil.example/x\r\n"]
    {
        assert_eq!(post(&off, foreign), 403, "{foreign}");
    }
    assert!(handle.is_enabled());
    assert_eq!(post(&off, "origin: http://localhost\r\nsec-fetch-site: same-origin\r\n"), 303);
    assert!(!handle.is_enabled());
    assert_eq!(post(&format!("?switch={id}&to=1000&minutes=10"), ""), 303);
    assert!(handle.is_enabled() && handle.threshold() == std::time::Duration::from_secs(1));
    // Zero minutes are over at once.
    assert_eq!(post(&format!("?switch={id}&to=1000&minutes=0"), ""), 303);
    crate::common::until("it is as before", || handle.threshold() > std::time::Duration::from_secs(1));
    assert!(handle.is_enabled());
    assert_eq!(post(&off, ""), 303);
    assert_eq!(post(&format!("?switch={id}&to=normal"), ""), 303);
    assert!(handle.is_enabled());
    // What the application has set since then stays.
    assert_eq!(post(&format!("?switch={id}&to=1000"), ""), 303);
    handle.set_threshold(std::time::Duration::from_secs(7));
    assert_eq!(post(&format!("?switch={id}&to=normal"), ""), 303);
    assert_eq!(handle.threshold(), std::time::Duration::from_secs(7));
    assert_eq!(post("?switch=4000000&to=off", ""), 404);
    assert_eq!(post("?view=places", ""), 405);
}

/// Guards: what reports were about is remembered, by place, with the last report of each.
#[test]
fn reports_are_remembered() {
    let app = App::start();
    let layer = WatchdogLayer::new(std::time::Duration::from_millis(50)).reports(app.reports.clone());
    let service = tower::Layer::layer(
        &layer,
        tower::service_fn(async |_: Request<()>| {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        }),
    );
    for number in 0..3 {
        let request = Request::get(format!("/photos/{number}?token=hunter2")).body(()).unwrap();
        app.driven.handle.block_on(service.clone().oneshot(request)).unwrap();
    }
    let mut page = String::new();
    crate::common::until("all are remembered", || {
        page = app.get("?view=history").body;
        page.contains("/photos/") && !page.contains("Nothing was reported")
    });
    assert!(page.contains("log") && !page.contains("hunter2"), "the sink: {page}");
    let fingerprint = page.split("?report=").nth(1).unwrap().split('"').next().unwrap();
    let report = app.get(&format!("?report={fingerprint}"));
    assert!(report.status == 200 && report.body.contains("is waiting for a timer"), "{}", report.body);
    assert!(app.get(&format!("?report={fingerprint}&form=svg")).body.starts_with("<?xml"));
    let json: serde_json::Value =
        serde_json::from_str(&app.get(&format!("?report={fingerprint}&form=json")).body).unwrap();
    assert_eq!(json["fingerprint"], fingerprint);
    assert_eq!(app.get("?report=0123456789abcdef").status, 404);
}
