//! Who may do what: no, wrong and right credentials, at every step.

use axum::Router;
use axum::routing::any;
use reqwest::Method;

use super::{BROWSER, Calls, Server, TYPED, layer};

/// An id that nobody has.
const GUESSED: &str = "0123456789abcdef0123456789abcdef";

const SITES: [&str; 2] = ["cross-site", "same-site"];

/// What the application says to whom there is no profiler.
const AS_USUAL: (u16, &str) = (200, "as usual");

struct Matrix {
    server: Server,
    calls: Calls,
    /// Of `ada`'s profile.
    id: String,
}

impl Matrix {
    fn new() -> Self {
        let calls = Calls::default();
        let handler = {
            let calls = calls.clone();
            async move || {
                calls.count();
                "as usual"
            }
        };
        let server = Server::start(Router::new().fallback(any(handler)).layer(layer()));
        let id = server.start_job("/?__geordi__");
        server.profile(&id);
        Self { server, calls, id }
    }

    /// The status of the answer, and whether the application has seen the request.
    #[track_caller]
    fn ask(&self, who: &str, method: &Method, query: &str, headers: &[(&str, &str)]) -> (u16, bool) {
        let before = self.calls.get();
        let query = query.replace("ID", &self.id).replace("GUESSED", GUESSED);
        let mut request = self.server.request_of(who, method.clone(), &format!("/{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.server.send(request);
        if !["ada", "bob", "root", "wheel"].contains(&who) {
            // As if there were no layer: not a header more.
            let expected = (AS_USUAL.0, if *method == Method::HEAD { "" } else { AS_USUAL.1 });
            assert_eq!((answer.status, answer.text()), expected, "{who} {method} {query}");
            let mut names: Vec<_> = answer.headers.keys().map(|name| name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["content-length", "content-type", "date"], "{who} {method} {query}");
        } else if answer.headers.get("x-geordi").is_none() && answer.status != 200 {
            assert_eq!(answer.header("cache-control"), "no-store", "{who} {method} {query}");
        }
        (answer.status, self.calls.get() > before)
    }
}

#[test]
fn callers_without_access_get_the_normal_response() {
    let matrix = Matrix::new();
    let queries = [
        "?__geordi__",
        "?__geordi__=json",
        "?__geordi__=20x",
        "?__geordi__=nonsense",
        "?__geordi__=ID",
        "?__geordi__=ID.svg",
        "?__geordi__=ID.status",
        "?__geordi__=ID.cancel",
        "?__geordi__=ID.response",
        "?__geordi__=ID.vs.GUESSED",
        "?__geordi__=GUESSED",
        "?__geordi__=index",
    ];
    for who in ["", "wrong", "ADA", "ada "] {
        // A header's value is trimmed on its way.
        let who = if who == "ada " { "adam" } else { who };
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
            for query in queries {
                for headers in [&[][..], &[("accept", BROWSER)], &[("sec-fetch-site", "cross-site")]] {
                    assert_eq!(matrix.ask(who, &method, query, headers), (200, true), "{who} {method} {query}");
                }
            }
            assert_eq!(matrix.ask(who, &method, "", &[("x-geordi", "1")]), (200, true));
            assert_eq!(matrix.ask(who, &method, "", &[("x-geordi", "nonsense")]), (200, true));
        }
    }
}

/// Guards: each step for its owner, for somebody else with access, and for an unnamed principal, by each method.
#[test]
fn only_the_owner_can_see_a_profile() {
    let matrix = Matrix::new();
    let (get, head, post, put) = (Method::GET, Method::HEAD, Method::POST, Method::PUT);
    // Method, query, what the owner gets, what others get who may.
    let table = [
        (&get, "?__geordi__=ID", 200, 404),
        (&head, "?__geordi__=ID", 200, 404),
        (&post, "?__geordi__=ID", 405, 405),
        (&get, "?__geordi__=ID.json", 200, 404),
        (&head, "?__geordi__=ID.json", 200, 404),
        (&put, "?__geordi__=ID.json", 405, 405),
        (&get, "?__geordi__=ID.status", 200, 404),
        (&head, "?__geordi__=ID.status", 200, 404),
        (&post, "?__geordi__=ID.status", 405, 405),
        (&get, "?__geordi__=ID.response", 200, 404),
        (&post, "?__geordi__=ID.response", 405, 405),
        (&get, "?__geordi__=ID.vs.ID", 200, 404),
        (&post, "?__geordi__=ID.vs.ID", 405, 405),
        (&get, "?__geordi__=ID.cancel", 405, 405),
        (&head, "?__geordi__=ID.cancel", 405, 405),
        (&put, "?__geordi__=ID.cancel", 405, 405),
        (&post, "?__geordi__=ID.cancel", 202, 404),
        (&get, "?__geordi__=index", 200, 200),
        (&post, "?__geordi__=index", 405, 405),
    ];
    for (method, query, owner, others) in table {
        assert_eq!(matrix.ask("ada", method, query, &[]), (owner, false), "ada {method} {query}");
        for who in ["bob", "root"] {
            assert_eq!(matrix.ask(who, method, query, &[]), (others, false), "{who} {method} {query}");
        }
        if query.contains("ID") {
            let guessed = query.replace("ID", "GUESSED");
            let expected = if owner == 405 { 405 } else { 404 };
            assert_eq!(matrix.ask("ada", method, &guessed, &[]), (expected, false), "ada {method} {guessed}");
        }
    }
}

/// Guards: somebody else's id and one that does not exist get the same bytes.
#[test]
fn foreign_and_unknown_ids_look_the_same() {
    let matrix = Matrix::new();
    for what in ["", ".svg", ".status", ".response"] {
        for accept in ["*/*", BROWSER] {
            let ask = |id: &str| {
                let path = format!("/?__geordi__={id}{what}");
                let answer =
                    matrix.server.send(matrix.server.request_of("bob", Method::GET, &path).header("accept", accept));
                let mut headers = answer.headers.clone();
                headers.remove("date");
                // It holds a number used once.
                headers.remove("content-security-policy");
                (answer.status, headers, answer.text().len())
            };
            assert_eq!(ask(&matrix.id), ask(GUESSED), "{what}");
        }
    }
}

/// Guards: a profile of a principal without a name is visible to all principals without a name, and to no named one.
#[test]
fn unnamed_principals_share_their_profiles() {
    let matrix = Matrix::new();
    let answer = matrix.server.send(matrix.server.request_of("root", Method::GET, "/?__geordi__=json"));
    let id = answer.id();
    for (who, status) in [("root", 200), ("wheel", 200), ("ada", 404), ("bob", 404)] {
        let answer = matrix.server.send(matrix.server.request_of(who, Method::GET, &format!("/?__geordi__={id}.json")));
        assert_eq!(answer.status, status, "{who}");
    }
    let answer = matrix.server.send(matrix.server.request_of("", Method::GET, &format!("/?__geordi__={id}.json")));
    assert_eq!((answer.status, answer.text()), AS_USUAL);
}

/// Guards: no other site starts or cancels anything with a user's credentials. A link to a result does work.
#[test]
fn other_sites_cannot_start_or_cancel_a_profile() {
    let matrix = Matrix::new();
    for site in SITES {
        for (method, query, headers) in [
            (Method::GET, "?__geordi__", vec![("accept", BROWSER)]),
            (Method::GET, "?__geordi__=json", vec![]),
            (Method::HEAD, "?__geordi__", vec![]),
            (Method::POST, "?__geordi__", vec![]),
            (Method::POST, "", vec![("x-geordi", "1")]),
        ] {
            let headers: Vec<_> = headers.into_iter().chain([("sec-fetch-site", site)]).collect();
            assert_eq!(matrix.ask("ada", &method, query, &headers), (403, false), "{method} {query} {site}");
        }
        assert_eq!(
            matrix.ask("ada", &Method::POST, "?__geordi__=ID.cancel", &[("sec-fetch-site", site)]),
            (403, false)
        );
        assert_eq!(matrix.ask("ada", &Method::GET, "?__geordi__=ID.json", &[("sec-fetch-site", site)]), (200, false));
    }
    let foreign = [("origin", "https://evil.example.com")];
    assert_eq!(matrix.ask("ada", &Method::POST, "?__geordi__=ID.cancel", &foreign), (403, false));
    assert_eq!(matrix.ask("ada", &Method::POST, "", &[("x-geordi", "1"), foreign[0]]), (403, false));
    for site in ["none", "same-origin"] {
        let headers = [("sec-fetch-site", site), TYPED[1], TYPED[2]];
        assert_eq!(matrix.ask("ada", &Method::GET, "?__geordi__=json", &headers), (200, true), "{site}");
    }
    let own = [("sec-fetch-site", "same-origin")];
    assert_eq!(matrix.ask("ada", &Method::POST, "?__geordi__=ID.cancel", &own), (202, false));
}
