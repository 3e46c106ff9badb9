//! Ways to start a profile, and what each answers.

use std::thread;

use axum::Router;
use axum::extract::{OriginalUri, RawQuery};
use axum::http::{HeaderMap, Uri};
use axum::routing::{any, get};
use reqwest::Method;

use super::common::{PORTABLE, ms};
use super::{Calls, Server, layer};

/// Guards: the request itself runs, once, on a profile thread, without the flag. A client other than a browser gets the
/// profile.
#[test]
fn a_client_gets_the_profile() {
    let calls = Calls::default();
    let handler = {
        let calls = calls.clone();
        async move |uri: Uri, OriginalUri(original): OriginalUri, RawQuery(query): RawQuery, headers: HeaderMap| {
            calls.count();
            let thread = thread::current().name().map(str::to_owned);
            format!("{uri} {original} {query:?} {thread:?} {}", headers.contains_key("x-geordi"))
        }
    };
    let server = Server::start(Router::new().route("/users/{id}", get(handler)).layer(layer()));
    let answer = server.get("/users/7?a=%41&__geordi__=json&&b=password");
    let profile = answer.json();
    assert_eq!((answer.status, calls.get()), (200, 1));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(profile["id"], answer.id());
    assert_eq!((&profile["outcome"], &profile["runs"]), (&"finished".into(), &1.into()));
    let request = &profile["request"];
    assert_eq!((&request["method"], &request["uri"]), (&"GET".into(), &"/users/7?a=%41&&b=password".into()));
    #[cfg(feature = "axum")]
    assert_eq!(request["route"], "/users/{id}");
    assert_eq!(profile["response"]["status"], 200);
    let kept = server.send(server.request(Method::GET, &format!("/users/7?__geordi__={}.response", answer.id())));
    let seen = r#"/users/7?a=%41&&b=password /users/7?a=%41&&b=password Some("a=%41&&b=password") Some("heeler-profile") false"#;
    assert_eq!((kept.status, kept.text()), (200, seen));
}

/// Guards: a browser is sent to a page with the rest of the query kept, whatever path it came by, and the job runs.
#[test]
fn a_browser_is_sent_to_the_page() {
    let calls = Calls::default();
    let handler = {
        let calls = calls.clone();
        async move || calls.count()
    };
    let nested = Router::new().route("/b", get(handler.clone())).layer(layer());
    let server = Server::start(Router::new().route("/a", get(handler)).layer(layer()).nest("/in", nested));
    for (at, (path, rest)) in
        [("/a?__geordi__", ""), ("/a?x=1&__geordi__=svg&y=%41\"ü", "x=1&y=%41%22%C3%BC&"), ("/in/b?__geordi__=", "")]
            .into_iter()
            .enumerate()
    {
        let answer = server.browse(path);
        assert_eq!(answer.status, 303);
        assert_eq!(answer.header("location"), format!("?{rest}__geordi__={}", answer.id()));
        assert_eq!(answer.header("link"), format!("<?{rest}__geordi__={}>; rel=\"profile\"", answer.id()));
        assert_eq!(answer.header("cache-control"), "no-store");
        let at_page = format!("{}?__geordi__={}.json", path.split('?').next().unwrap(), answer.id());
        super::until("it is done", || server.get(&at_page).status == 200);
        assert_eq!(calls.get(), at + 1);
    }
    let head = server.send(super::typed(server.request(Method::HEAD, "/a?__geordi__")));
    assert_eq!((head.status, head.text()), (303, ""));
}

/// Guards: with the header, the response is unchanged, and names the profile that belongs to it.
#[test]
fn the_header_leaves_the_response_unchanged() {
    let handler = async |body: String| ([("x-own", "1"), ("link", "</a>; rel=\"next\"")], format!("got {body}"));
    let server = Server::start(Router::new().route("/", any(handler)).layer(layer()));
    for value in ["", "1", "json"] {
        let request = server.request(Method::POST, "/?q=1").header("x-geordi", value).body("what was sent");
        let answer = server.send(request);
        assert_eq!((answer.status, answer.text(), answer.header("x-own")), (200, "got what was sent", "1"));
        assert_eq!(answer.header("content-length"), "17");
        let links: Vec<_> =
            answer.headers.get_all("link").iter().map(|link| link.to_str().unwrap().to_owned()).collect();
        assert_eq!(
            links,
            ["</a>; rel=\"next\"".to_owned(), format!("<?q=1&__geordi__={}>; rel=\"profile\"", answer.id())]
        );
        assert!(answer.header("vary").contains("x-geordi"));
        let profile = server.profile(answer.id());
        assert_eq!((&profile["outcome"], &profile["request"]["method"]), (&"finished".into(), &"POST".into()));
        assert_eq!((&profile["request"]["body_bytes"], &profile["response"]["body_bytes"]), (&13.into(), &17.into()));
    }
    for no in ["0", "off", "false"] {
        let answer = server.send(server.request(Method::GET, "/").header("x-geordi", no));
        assert_eq!((answer.status, answer.headers.get("x-geordi-id")), (200, None));
    }
}

/// Guards: a body reaches the handler even if the flag is in the URL. A browser's form gets the profile, not a page.
#[test]
fn a_body_reaches_the_handler() {
    let handler = async |method: Method, body: String| format!("{method} {body}");
    let server = Server::start(Router::new().route("/", any(handler)).layer(layer()));
    for (method, body) in [(Method::POST, "a=1"), (Method::PUT, "x"), (Method::GET, "y"), (Method::DELETE, "")] {
        let request = super::typed(server.request(method.clone(), "/?__geordi__=json")).body(body);
        let answer = server.send(request);
        let profile = answer.json();
        assert_eq!((answer.status, &profile["outcome"]), (200, &"finished".into()));
        let kept = server.get(&format!("/?__geordi__={}.response", answer.id()));
        assert_eq!(kept.text(), format!("{method} {body}"));
    }
}

/// Guards: a request that can be repeated runs as often as asked, in one profile. One that cannot is refused and does not run
/// at all.
#[test]
fn only_repeatable_requests_run_many_times() {
    let calls = Calls::default();
    let handler = {
        let calls = calls.clone();
        async move || calls.count()
    };
    let server = Server::start(Router::new().route("/", any(handler)).layer(layer()));
    let answer = server.get("/?__geordi__=20x,json");
    let profile = answer.json();
    if cfg!(feature = "axum") {
        assert_eq!((calls.get(), &profile["runs"], &profile["outcome"]), (20, &20.into(), &"finished".into()));
        let slices = profile["slices"].as_array().unwrap();
        let sum: u64 = slices.iter().map(|slice| slice["nanos"].as_u64().unwrap()).sum();
        assert_eq!(Some(sum), profile["wall_nanos"].as_u64());
        let head = server.send(server.request(Method::HEAD, "/?__geordi__=3x"));
        assert_eq!((head.status, calls.get()), (200, 23));
    }
    let before = calls.get();
    for (method, body) in [(Method::POST, ""), (Method::PUT, ""), (Method::DELETE, ""), (Method::GET, "x")] {
        for answer in [
            server.send(server.request(method.clone(), "/?__geordi__=20x").body(body)),
            server.send(server.request(method.clone(), "/").header("x-geordi", "20x").body(body)),
        ] {
            assert_eq!(answer.status, 400);
            assert!(answer.text().starts_with("Only a GET or HEAD request"), "{}", answer.text());
        }
    }
    assert_eq!(calls.get(), before);
    // Once is once, whatever the method.
    let once = server.send(server.request(Method::POST, "/?__geordi__=1x,json"));
    assert_eq!((once.status, calls.get(), &once.json()["runs"]), (200, before + 1, &1.into()));
}

/// Guards: with `inline`, in the request or in the settings, the handler runs as a task of the application's runtime.
#[test]
fn inline_runs_on_the_applications_runtime() {
    let handler = async || thread::current().name().map(str::to_owned).unwrap_or_default();
    let router = || Router::new().route("/", get(handler));
    let ran_on = |server: &Server, query: &str| {
        let id = server.get(&format!("/?__geordi__=json{query}")).id().to_owned();
        server.get(&format!("/?__geordi__={id}.response")).text().to_owned()
    };
    let server = Server::start(router().layer(layer()));
    assert_eq!(ran_on(&server, ""), "heeler-profile");
    assert!(!ran_on(&server, ",inline").contains("heeler"));
    let server = Server::start(router().layer(layer().inline()));
    assert!(!ran_on(&server, "").contains("heeler"));
}

/// Guards: an invalid flag gets an error, and nothing runs.
#[test]
fn an_invalid_flag_is_refused_without_running() {
    let calls = Calls::default();
    let handler = {
        let calls = calls.clone();
        async move || calls.count()
    };
    let server = Server::start(Router::new().route("/", get(handler)).layer(layer()));
    for value in ["jpeg", "0x", "svg,json", "0123456789abcdef", "process"] {
        let answer = server.get(&format!("/?__geordi__={value}"));
        assert_eq!(answer.status, 400, "{value}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    let answer = server.send(server.request(Method::GET, "/").header("x-geordi", "nonsense"));
    assert_eq!((answer.status, calls.get()), (400, 0));
}

/// Guards: each form is available directly and later, with its own content type and a name to save it by. Nothing in it runs
/// or is shown as a page of the application.
#[test]
fn every_form_can_be_downloaded() {
    let server = Server::start(Router::new().route("/", get(async || "x")).layer(layer()));
    for (form, content_type, start) in [
        ("svg", "image/svg+xml", &b"<"[..]),
        ("html", "text/html; charset=utf-8", b"<!"),
        ("json", "application/json", b"{"),
        ("folded", "text/plain; charset=utf-8", b""),
        ("speedscope", "application/json", b"{"),
        ("firefox", "application/json", b"{"),
        ("pprof", "application/octet-stream", b"\x1f\x8b"),
        ("dot", "text/vnd.graphviz; charset=utf-8", b"digraph"),
        ("pdf", "application/pdf", b"%PDF"),
    ] {
        let optional = [
            ("firefox", cfg!(feature = "firefox")),
            ("pprof", cfg!(feature = "pprof")),
            ("dot", cfg!(feature = "callgraph")),
            ("pdf", cfg!(feature = "callgraph")),
        ];
        let feature = optional.iter().all(|(name, is_there)| *name != form || *is_there);
        let answer = server.get(&format!("/?__geordi__={form}"));
        if !feature {
            assert_eq!(answer.status, 400, "{form}");
            continue;
        }
        let later = server.get(&format!("/?__geordi__={}.{form}", answer.id()));
        for answer in [answer, later] {
            assert_eq!((answer.status, answer.header("content-type")), (200, content_type));
            assert!(answer.body.as_ref().unwrap().starts_with(start), "{form}");
            assert!(answer.header("content-disposition").contains("filename=\"profile-"), "{form}");
            assert!(answer.header("content-security-policy").contains("sandbox"), "{form}");
        }
    }
}

/// The `pprof` crate profiles a process once at a time.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Guards: the rest of the process is profiled only where that is allowed, and only when asked for.
#[test]
fn the_process_profile_is_only_made_if_allowed() {
    let _turn = ONE_AT_A_TIME.lock();
    let router = || Router::new().route("/", get(async || tokio::time::sleep(super::common::ms(50)).await));
    let server = Server::start(router().layer(layer().allow_process_profiles()));
    assert!(server.get("/?__geordi__=json").json()["meanwhile"].is_null());
    let answer = server.get("/?__geordi__=json,process");
    if cfg!(feature = "pprof") {
        assert_eq!(answer.json()["outcome"], "finished");
        assert!(answer.json()["meanwhile"]["rate_hz"].as_u64().is_some_and(|rate| rate > 0), "{}", answer.text());
    } else {
        assert_eq!(answer.status, 400);
    }
    let server = Server::start(router().layer(layer()));
    assert_eq!(server.get("/?__geordi__=json,process").status, 400);
}

/// Guards: the process profile shows other people's work, and not the request's.
#[test]
#[cfg(feature = "pprof")]
fn the_process_profile_shows_only_other_work() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use heeler::profile::{ProcessStack, Profile};

    #[inline(never)]
    fn others_work(stop: &AtomicBool) -> u64 {
        let mut sum = 1_u64;
        while !stop.load(Ordering::Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31));
        }
        sum
    }
    let _turn = ONE_AT_A_TIME.lock();
    let router = Router::new().route("/", get(async || tokio::time::sleep(super::common::ms(1_000)).await));
    let stop = Arc::new(AtomicBool::new(false));
    let its = Arc::clone(&stop);
    let others = thread::spawn(move || others_work(&its));
    let server = Server::start(router.layer(layer().allow_process_profiles()));
    let profile: Profile = serde_json::from_str(server.get("/?__geordi__=json,process").text()).unwrap();
    stop.store(true, Ordering::Relaxed);
    others.join().unwrap();
    let meanwhile = profile.meanwhile.unwrap_or_else(|| panic!("{:?}", profile.notes));
    let is_theirs = |stack: &ProcessStack| stack.functions.iter().any(|name| name.contains("others_work"));
    assert!(meanwhile.samples > 0 && meanwhile.stacks.iter().any(is_theirs), "{meanwhile:?}");
    assert!(meanwhile.stacks.iter().all(|stack| stack.thread != "heeler-profile"));
}

/// Guards: no profile contains credentials, neither those of the request nor those that its response sets.
#[test]
fn profiles_contain_no_credentials() {
    let handler = async || [("set-cookie", "session=s3cret"), ("x-own", "shown")];
    let server = Server::start(Router::new().route("/", get(handler)).layer(layer()));
    let request = server.request(Method::GET, "/?token=s3cret&__geordi__=json");
    let request =
        request.header("authorization", "Bearer s3cret").header("cookie", "a=s3cret").header("x-api-key", "s3cret");
    let request = super::TYPED.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    let answer = server.send(request.header("x-other", "shown"));
    assert_eq!((answer.status, answer.text().matches("s3cret").count()), (200, 0), "{}", answer.text());
    assert_eq!(answer.text().matches("shown").count(), 2);
}

/// Guards: what proxies pass on about a request's URI and its user is redacted like the request itself.
#[test]
fn headers_of_proxies_reveal_no_secrets() {
    let layer = layer().secret_paths(["/reset/{token}"]).unwrap();
    let server =
        Server::start(Router::new().fallback(any(async || ([("location", "/x?token=s3cret")], "x"))).layer(layer));
    let table = [
        ("x-original-uri", "/a?token=s3cret&page=2", "/a?token=[redacted]&page=2"),
        ("x-forwarded-uri", "/reset/s3cret", "/reset/[redacted]"),
        ("x-original-url", "https://me:s3cret@host/a", "https://host/a"),
        ("x-rewrite-url", "/a?next=%2Fb%3Fpassword%3Ds3cret", "/a?next=[redacted]"),
        ("x-amzn-oidc-data", "eyJ0eXAi.s3cret.sig", "[redacted]"),
        ("x-amzn-oidc-identity", "s3cret", "[redacted]"),
        ("x-forwarded-client-cert", "Cert=s3cret", "[redacted]"),
        ("x-amz-security", "s3cret", "[redacted]"),
        ("x-forwarded-access-token", "s3cret", "[redacted]"),
        ("proxy-authorization", "Basic s3cret", "[redacted]"),
        ("forwarded", "for=192.0.2.60;proto=https;host=example.com", "for=192.0.2.60;proto=https;host=example.com"),
        ("x-forwarded-for", "203.0.113.195", "203.0.113.195"),
        ("x-debug", "sent Authorization: Bearer s3cret", "sent Authorization: [redacted]"),
    ];
    let mut request = server.request(Method::GET, "/reset/s3cret?__geordi__=json");
    for (name, value, _) in table {
        request = request.header(name, value);
    }
    let answer = server.send(request);
    let profile = answer.json();
    assert_eq!(profile["request"]["uri"], "/reset/[redacted]");
    let headers = profile["request"]["headers"].as_array().unwrap();
    for (name, _, expected) in table {
        let header = headers.iter().find(|header| header[0] == name).unwrap();
        assert_eq!(header[1], expected, "{name}");
    }
    assert!(!answer.text().contains("s3cret"), "{}", answer.text());
}

/// Guards: the application's settings for secrets and for own crates hold for profiles, too.
#[test]
fn the_applications_settings_hold_for_profiles() {
    let handler = async || futures::future::lazy(|_| thread::sleep(ms(100))).await;
    for own_crates in [&[][..], &["futures-util"]] {
        let layer = layer().secret_params(["patient"]).own_crates(own_crates.iter().copied());
        let server = Server::start(Router::new().route("/", get(handler)).layer(layer));
        let profile = server.get("/?patient=s3cret&__geordi__=json").json();
        assert_eq!(profile["request"]["uri"], "/?patient=[redacted]");
        if !PORTABLE {
            let is_own = |frame: &serde_json::Value| {
                frame["function"].as_str().is_some_and(|name| name.contains("futures_util")) && frame["own"] == true
            };
            let found = profile["frames"].as_array().unwrap().iter().any(is_own);
            assert_eq!(found, !own_crates.is_empty(), "{:#}", profile["frames"]);
        }
    }
}
