//! Requests that somebody is to profile: the tool that makes profiles looks here at each request.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::capture::PerProcess;
use crate::report::assemble::route::route_of;
use crate::report::{Redactor, Reports, RequestInfo};
use crate::sync::lock_std;

/// For how long the next request is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
/// Orders at a time. Each is for another route.
const MAX_ORDERS: usize = 100;

/// A request to be profiled.
#[derive(Debug)]
struct Order {
    method: String,
    /// Its template, if the router has provided it.
    route: Option<String>,
    /// Its path without ids, for where no template is known.
    path: String,
    wanted: Wanted,
    until: Instant,
}

/// A profile that nobody waits for.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Why, as a part of a sentence.
    pub(crate) reason: String,
    /// What decides what reports may show of the request. A profile must not show more.
    pub(crate) redactor: Redactor,
}

static ORDERS: PerProcess<Mutex<Vec<Order>>> = PerProcess::new(Mutex::default);
/// Whether there may be orders. While there are none, one load is all that a request pays.
static HAS_ORDERS: AtomicBool = AtomicBool::new(false);
/// Whether somebody looks here.
static HAS_TAKER: AtomicBool = AtomicBool::new(false);

/// Says that somebody will look here.
#[cfg(feature = "profile")]
pub(crate) fn announce() {
    HAS_TAKER.store(true, Ordering::Relaxed);
}

/// Asks for a profile of the next request like that one. Returns what becomes of it, as a sentence.
pub(in crate::report) fn place(request: &RequestInfo, reason: &str, reports: &Reports) -> &'static str {
    match place_for(&request.method, request.route.as_deref(), &request.uri, reason, reports) {
        Placed::Waits => "the next request on this route is profiled, if it comes within ten minutes",
        Placed::NobodyTakes => "no request is profiled, because no `ProfileLayer` is in use",
        Placed::TooMany => "no request is profiled, because too many other routes wait for that",
    }
}

/// What has become of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    Waits,
    /// There is no layer that would profile anything.
    NobodyTakes,
    TooMany,
}

/// Asks for a profile of the next request with that method, and that template or, where that is not known, such a path. For
/// a job, the method is `job`, and the path its name. An order for the same that waits already stays as it is.
pub(crate) fn place_for(method: &str, route: Option<&str>, path: &str, reason: &str, reports: &Reports) -> Placed {
    if !HAS_TAKER.load(Ordering::Relaxed) {
        return Placed::NobodyTakes;
    }
    let now = Instant::now();
    let order = Order {
        method: method.to_owned(),
        route: route.map(str::to_owned),
        path: route_of(path),
        wanted: Wanted { reason: reason.to_owned(), redactor: reports.redactor().clone() },
        until: now + PATIENCE,
    };
    let mut orders = lock_std(ORDERS.get());
    orders.retain(|other| other.until > now);
    if orders.iter().any(|other| other.is_like(&order)) {
        return Placed::Waits;
    }
    if orders.len() >= MAX_ORDERS {
        return Placed::TooMany;
    }
    orders.push(order);
    HAS_ORDERS.store(true, Ordering::Relaxed);
    Placed::Waits
}

impl Order {
    fn is_like(&self, other: &Self) -> bool {
        self.method == other.method && self.route == other.route && self.path == other.path
    }

    #[cfg(feature = "profile")]
    fn is_for(&self, method: &str, route: Option<&str>, path: &str) -> bool {
        self.method == method
            && match (&self.route, route) {
                (Some(wanted), Some(route)) => wanted == route,
                (Some(wanted), None) => is_on(wanted, path),
                // The report has it as it may be shown.
                (None, _) => self.path == route_of(path) || self.path == route_of(&self.wanted.redactor.uri(path)),
            }
    }
}

/// Returns whether a path is on the route with that template: `/users/{id}`, `/files/{*path}`.
#[cfg(feature = "profile")]
fn is_on(template: &str, path: &str) -> bool {
    let (mut wanted, mut segments) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), segments.next()) {
            (Some(rest), Some(_)) if rest.starts_with("{*") => return true,
            (Some(wanted), Some(segment)) if wanted.starts_with('{') && !segment.is_empty() || wanted == segment => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Returns whether there may be an order for the calling code.
#[cfg(feature = "profile")]
#[inline]
pub(crate) fn has_orders() -> bool {
    HAS_ORDERS.load(Ordering::Relaxed)
}

/// Returns why that request is to be profiled, if it is. Nobody else is told. `path` is as the client has sent it.
#[cfg(feature = "profile")]
pub(crate) fn take(method: &str, route: Option<&str>, path: &str) -> Option<Wanted> {
    // While another request looks, this one isn't the next. No request waits for one.
    let mut orders = ORDERS.get().try_lock().ok()?;
    let now = Instant::now();
    orders.retain(|order| order.until > now);
    let at = orders.iter().position(|order| order.is_for(method, route, path));
    let order = at.map(|at| orders.swap_remove(at));
    HAS_ORDERS.store(!orders.is_empty(), Ordering::Relaxed);
    order.map(|order| order.wanted)
}

#[cfg(all(test, feature = "profile"))]
mod tests {
    use super::*;
    use crate::report::testing::report;

    fn order(route: Option<&str>, uri: &str, reason: &str) {
        announce();
        let reports = Reports::builder().without_log().secret_paths(["/reset/{token}"]).build().unwrap();
        let request = report().request.unwrap();
        let uri = reports.redactor().uri(uri);
        let request = RequestInfo { method: "PUT".to_owned(), route: route.map(str::to_owned), uri, ..request };
        place(&request, reason, &reports);
    }

    fn taken(method: &str, route: Option<&str>, path: &str) -> Option<String> {
        // Other tests may look at the same moment.
        (0..100).find_map(|_| take(method, route, path)).map(|wanted| wanted.reason)
    }

    /// Guards: an order is for one request, on its route alone, whichever side knows the route's template.
    #[test]
    fn the_next_request_on_the_route_takes_the_order() {
        order(Some("/orders/{name}"), "/orders/alice?x=y", "slow");
        order(None, "/carts/7", "slow, too");
        order(None, "/reset/abc", "a secret");
        for other in ["/orders", "/order/7", "/orders/", "/orders/7/lines"] {
            assert_eq!(taken("PUT", None, other), None, "{other}");
        }
        assert_eq!(taken("GET", None, "/orders/bob"), None);
        assert_eq!(taken("PUT", Some("/{kind}/{id}"), "/orders/bob"), None);
        assert_eq!(taken("PUT", None, "/orders/bob").as_deref(), Some("slow"), "a layer outside of the router");
        assert_eq!(taken("PUT", Some("/carts/{cart}"), "/carts/9").as_deref(), Some("slow, too"));
        assert_eq!(taken("PUT", None, "/orders/bob"), None, "once");
        assert_eq!(taken("PUT", None, "/reset/def").as_deref(), Some("a secret"));
    }

    #[test]
    fn one_order_waits_for_each_route() {
        order(Some("/twice"), "/twice", "first");
        order(Some("/twice"), "/twice", "second");
        assert_eq!(taken("PUT", Some("/twice"), "/twice").as_deref(), Some("first"));
        assert_eq!(taken("PUT", Some("/twice"), "/twice"), None);
    }

    #[test]
    fn a_template_is_for_paths_of_its_shape() {
        for (template, path, expected) in [
            ("/", "/", true),
            ("/files/{*path}", "/files/a/b", true),
            ("/files/{*path}", "/file/a/b", false),
            ("/a/{b}/c", "/a/x/c", true),
            ("/a/{b}/c", "/a//c", false),
            ("/a/{b}", "/a/x/c", false),
        ] {
            assert_eq!(is_on(template, path), expected, "{template} {path}");
        }
    }
}
