//! Starting a profile is somebody's act: what a page can have a browser send starts none.

use std::io::{Read as _, Write as _};

use axum::Router;
use axum::routing::{any, get};
use heeler::{ProfileLayer, authorize};
use http::HeaderMap;
use reqwest::Method;

use super::common::FLAGGED;
use super::{Answer, BROWSER, Calls, Server, TYPED, layer};

const SECRET: &str = "correct-horse-battery";
const COOKIE: (&str, &str) = ("cookie", "heeler_token=correct-horse-battery");

/// What Chrome accepts for an image.
const IMAGES: (&str, &str) = ("accept", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8");
const CHROME: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)");
const PAGES: (&str, &str) = ("accept", BROWSER);

/// A server whose handler counts its runs and says what it has seen.
fn counting(layer: ProfileLayer) -> (Server, Calls) {
    let calls = Calls::default();
    let handler = {
        let calls = calls.clone();
        async move |method: http::Method, headers: HeaderMap, body: String| {
            calls.count();
            let kept = ["origin", "content-type", "content-length"].map(|name| headers.contains_key(name));
            format!("{method} {kept:?} {body:?}")
        }
    };
    (Server::start(Router::new().fallback(any(handler)).layer(layer)), calls)
}

fn by_cookie() -> (Server, Calls) {
    counting(ProfileLayer::new(authorize::bearer(SECRET).unwrap()))
}

fn ask(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = server.request_of("nobody", method, path);
    server.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
}

/// Where the form of a page that asks leads: a query.
fn action(answer: &Answer) -> String {
    let (_, form) = answer.text().split_once("<form method=\"post\" action=\"").expect("it asks for confirmation");
    let (action, _) = form.split_once('"').unwrap();
    action.replace("&amp;", "&")
}

/// Guards: no part of a page starts a profile in the browser of a user with access, whether or not the browser says what kind
/// of part it is. (200 runs of the handler, before.)
#[test]
fn parts_of_pages_start_nothing() {
    let (server, calls) = by_cookie();
    let same_origin = ("sec-fetch-site", "same-origin");
    let no_cors = ("sec-fetch-mode", "no-cors");
    for query in ["?__geordi__=200x,inline", "?__geordi__=200x", "?__geordi__", "?__geordi__=json"] {
        let path = format!("/vote{query}");
        for headers in [
            &[COOKIE, CHROME, IMAGES, same_origin, no_cors, ("sec-fetch-dest", "image")][..],
            &[COOKIE, CHROME, ("accept", "*/*"), same_origin, no_cors, ("sec-fetch-dest", "script")],
            &[COOKIE, CHROME, ("accept", "*/*"), same_origin, no_cors, ("sec-fetch-dest", "empty")],
            &[COOKIE, CHROME, ("accept", "text/css,*/*;q=0.1"), same_origin, no_cors, ("sec-fetch-dest", "style")],
            // Over plain HTTP, with `referrerpolicy=no-referrer`: nothing tells.
            &[COOKIE, CHROME, IMAGES],
            &[COOKIE, ("accept", "*/*")],
            &[COOKIE],
        ] {
            let answer = ask(&server, Method::GET, &path, headers);
            assert_eq!((answer.status, calls.get()), (403, 0), "{path} {headers:?}");
        }
        for headers in [
            // A frame, and a `no-cors` fetch that says it takes pages: neither can read the page that asks, or show it.
            &[COOKIE, CHROME, PAGES, same_origin, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")][..],
            &[COOKIE, CHROME, PAGES, same_origin, no_cors, ("sec-fetch-dest", "empty")],
            &[COOKIE, CHROME, PAGES],
        ] {
            let answer = ask(&server, Method::GET, &path, headers);
            assert_eq!((answer.status, calls.get()), (200, 0), "{path} {headers:?}");
            assert_eq!((answer.header("x-frame-options"), answer.header("cache-control")), ("DENY", "no-store"));
            assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"));
            assert!(!action(&answer).is_empty());
        }
    }
    // Forms of other kinds are not repeated.
    let form = [COOKIE, CHROME, PAGES, ("origin", &*format!("http://{}", server.address))];
    assert_eq!(ask(&server, Method::POST, "/vote?__geordi__", &form).status, 403);
    let prepared = [COOKIE, CHROME, PAGES, TYPED[0], TYPED[1], TYPED[2], ("sec-purpose", "prefetch;prerender")];
    assert_eq!(ask(&server, Method::GET, "/vote?__geordi__", &prepared).status, 503);
    assert_eq!(calls.get(), 0);
}

/// Guards: typing the address, or a link of this origin, starts one run at once. A script gets as many runs as it asks for.
#[test]
fn deliberate_requests_start_at_once() {
    let (server, calls) = by_cookie();
    for site in ["none", "same-origin"] {
        let headers = [COOKIE, CHROME, PAGES, ("sec-fetch-site", site), TYPED[1], TYPED[2]];
        assert_eq!(ask(&server, Method::GET, "/?__geordi__", &headers).status, 303);
    }
    super::until("both have run", || calls.get() == 2);
    let authorization = format!("Bearer {SECRET}");
    let script = [("authorization", &*authorization)];
    let answer = ask(&server, Method::GET, "/?__geordi__=json", &script);
    assert_eq!((answer.status, calls.get()), (200, 3));
    if cfg!(feature = "axum") {
        let answer = ask(&server, Method::GET, "/?__geordi__=20x,json", &script);
        assert_eq!((answer.status, calls.get()), (200, 23));
    }
    let before = calls.get();
    // By the header a script of the application's own page starts one, and another origin's none.
    let own = [COOKIE, CHROME, ("x-geordi", "1"), ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")];
    assert_eq!(ask(&server, Method::POST, "/", &own).status, 200);
    assert_eq!(calls.get(), before + 1);
    for headers in [
        [COOKIE, ("x-geordi", "20x"), CHROME],
        [COOKIE, ("x-geordi", "1"), ("origin", "https://evil.example")],
        [COOKIE, ("x-geordi", "1"), ("sec-fetch-site", "cross-site")],
    ] {
        let answer = ask(&server, Method::GET, "/", &headers);
        assert_eq!((answer.status, calls.get()), (403, before + 1), "{headers:?}");
    }
}

/// Guards: many runs are confirmed by a POST from the confirmation page: once, from there, for that request. What runs is the
/// request that was asked about.
#[test]
#[cfg(feature = "axum")]
fn many_runs_need_confirmation() {
    let (server, calls) = by_cookie();
    let origin = format!("http://{}", server.address);
    let typed = [COOKIE, CHROME, PAGES, TYPED[0], TYPED[1], TYPED[2]];
    let posted = [COOKIE, CHROME, PAGES, ("origin", &*origin), ("content-type", "application/x-www-form-urlencoded")];
    let asked = ask(&server, Method::GET, "/vote?a=1&__geordi__=20x,svg", &typed);
    assert_eq!((asked.status, calls.get()), (200, 0));
    assert!(asked.text().contains("20 times") && asked.text().contains("GET /vote?a=1"), "{}", asked.text());
    let query = action(&asked);
    assert!(query.starts_with("?a=1&__geordi__=") && query.ends_with(".confirm"), "{query}");

    // Not by another method, from another site or by another person.
    let get = ask(&server, Method::GET, &format!("/vote{query}"), &typed);
    assert_eq!((get.status, get.header("allow")), (405, "POST"));
    for foreign in
        [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site")]
    {
        assert_eq!(ask(&server, Method::POST, &format!("/vote{query}"), &[COOKIE, PAGES, foreign]).status, 403);
    }
    let nobodys = ask(&server, Method::POST, &format!("/vote{query}"), &posted[1..]);
    assert!(nobodys.text().starts_with("POST "), "as if there were no layer: {nobodys:?}");
    let before = calls.get();

    let confirmed = ask(&server, Method::POST, &format!("/vote{query}"), &posted);
    assert_eq!((confirmed.status, calls.get()), (303, before), "{confirmed:?}");
    let go = format!("/vote{}", confirmed.header("location"));
    assert!(go.starts_with("/vote?a=1&__geordi__=") && go.ends_with(".go"), "{go}");
    let image = [COOKIE, CHROME, IMAGES, ("sec-fetch-site", "cross-site")];
    assert_eq!((ask(&server, Method::GET, &go, &image).status, calls.get()), (403, before));
    let started = ask(&server, Method::GET, &go, &[COOKIE, CHROME, PAGES]);
    assert_eq!(started.status, 303, "{started:?}");
    assert_eq!(ask(&server, Method::GET, &go, &typed).status, 403, "once");
    assert_eq!(started.header("location"), format!("?a=1&__geordi__={}", started.id()));
    let path = format!("/vote?a=1&__geordi__={}", started.id());
    let script = [("authorization", &*format!("Bearer {SECRET}"))];
    super::until("it is done", || ask(&server, Method::GET, &format!("{path}.json"), &script).status == 200);
    let profile = ask(&server, Method::GET, &format!("{path}.json"), &script).json();
    assert_eq!((&profile["runs"], calls.get()), (&20.into(), before + 20));
    let request = &profile["request"];
    assert_eq!((&request["method"], &request["uri"]), (&"GET".into(), &"/vote?a=1".into()));
    let kept = ask(&server, Method::GET, &format!("{path}.response"), &script);
    assert_eq!(kept.text(), "GET [false, false, false] \"\"");

    let again = ask(&server, Method::POST, &format!("/vote{query}"), &posted);
    assert_eq!((again.status, calls.get()), (403, before + 20), "a confirmation works once");
    let other = action(&ask(&server, Method::GET, "/vote?a=1&__geordi__=20x", &typed));
    let elsewhere = ask(&server, Method::POST, &format!("/delete{other}"), &posted);
    assert_eq!((elsewhere.status, calls.get()), (403, before + 20), "a confirmation is for one request");
}

/// Guards: a request without access is passed on without the flag, if that is configured, and unchanged otherwise. In both
/// cases nothing is profiled.
#[test]
fn refused_flags_are_stripped_on_request() {
    let handler = async |uri: http::Uri, headers: HeaderMap| format!("{uri} {}", headers.contains_key("x-geordi"));
    let later = ProfileLayer::new(async |_: &http::request::Parts| {
        tokio::task::yield_now().await;
        false
    });
    for (layer, strips) in [(layer(), false), (layer().strip_refused(), true), (later.strip_refused(), true)] {
        let server = Server::start(Router::new().fallback(any(handler)).layer(layer));
        for (uri, left) in FLAGGED {
            let expected = format!("{} false", if strips { left } else { uri });
            assert_eq!(ask(&server, Method::GET, uri, &[]).text(), expected);
            for header in ["x-geordi", "X-GEORDI", "X-Geordi"] {
                let expected = if strips { format!("{left} false") } else { format!("{uri} true") };
                assert_eq!(raw(&server, &format!("GET {uri} HTTP/1.1\r\n{header}: 1\r\n{header}: 200x")), expected);
            }
        }
    }
}

/// Guards: requests with access are passed on as they are, unless they have the flag.
#[test]
fn similar_flags_of_permitted_users_are_passed_on() {
    let handler = async |uri: http::Uri| uri.to_string();
    let server = Server::start(Router::new().fallback(any(handler)).layer(layer().strip_refused()));
    let uri = "/a?b&%5F%5Fgeordi%5F%5F=200x";
    let answer = server.get(uri);
    assert_eq!((answer.status, answer.text(), answer.headers.contains_key("x-geordi-id")), (200, uri, false));
}

/// What the server answers to a request with these bytes for a head, as nobody's client may write it.
fn raw(server: &Server, head: &str) -> String {
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    write!(stream, "{head}\r\nhost: a.example\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    body.to_owned()
}

/// Guards: the GET's handler runs, even if a router has one for GET alone and handles a POST by itself.
#[test]
fn only_the_confirmed_request_runs() {
    let server = Server::start(Router::new().route("/", get(async || "the handler")).layer(layer()));
    let asked = server.send(server.request_of("ada", Method::GET, "/?__geordi__").header(PAGES.0, PAGES.1));
    let confirmed = server.send(server.request_of("ada", Method::POST, &format!("/{}", action(&asked))));
    let started = server.get(&format!("/{}", confirmed.header("location")));
    assert_eq!(server.profile(started.id())["response"]["status"], 200);
    assert_eq!(server.get(&format!("/?__geordi__={}.response", started.id())).text(), "the handler");
}

/// Guards: only the person who was asked can confirm. Another person with access cannot.
#[test]
fn a_confirmation_belongs_to_one_person() {
    let (server, calls) = counting(layer());
    let ask = |who: &str| server.send(server.request_of(who, Method::GET, "/?__geordi__").header(PAGES.0, PAGES.1));
    let answer =
        |who: &str, query: &str| server.send(server.request_of(who, Method::POST, &format!("/{query}"))).status;
    assert_eq!(answer("bob", &action(&ask("ada"))), 403);
    assert_eq!(answer("root", &action(&ask("ada"))), 403);
    assert_eq!(answer("ada", &action(&ask("root"))), 403);
    assert_eq!(calls.get(), 0);
    let confirmed = server.send(server.request_of("ada", Method::POST, &format!("/{}", action(&ask("ada")))));
    let go = format!("/{}", confirmed.header("location"));
    assert_eq!(server.send(server.request_of("bob", Method::GET, &go)).status, 403);
    assert_eq!(calls.get(), 0);
    let confirmed = server.send(server.request_of("ada", Method::POST, &format!("/{}", action(&ask("ada")))));
    let go = format!("/{}", confirmed.header("location"));
    assert_eq!(server.send(server.request_of("ada", Method::GET, &go)).status, 303);
    super::until("it has run", || calls.get() == 1);
    // Somebody who may not does not see that there was a question.
    let nobodys = server.send(server.request_of("nobody", Method::POST, &format!("/{}", action(&ask("ada")))));
    assert!(nobodys.text().starts_with("POST "), "{nobodys:?}");
}
