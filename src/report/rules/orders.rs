//! Requests that somebody is to profile: the tool that makes profiles looks here at each request.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::capture::PerProcess;
use crate::report::RequestInfo;
use crate::report::assemble::route::route_of;
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
    reason: String,
    until: Instant,
}

static ORDERS: PerProcess<Mutex<Vec<Order>>> = PerProcess::new(Mutex::default);
/// Whether there may be orders. One load is all that a request pays.
static HAS_ORDERS: AtomicBool = AtomicBool::new(false);
/// Whether somebody looks here.
static HAS_TAKER: AtomicBool = AtomicBool::new(false);

/// Says that somebody will look here.
#[cfg(feature = "profile")]
pub(crate) fn announce() {
    HAS_TAKER.store(true, Ordering::Relaxed);
}

/// Asks for a profile of the next request like that one. Returns what becomes of it, as a sentence.
pub(in crate::report) fn place(request: &RequestInfo, reason: &str) -> &'static str {
    if !HAS_TAKER.load(Ordering::Relaxed) {
        return "no request is profiled, for no `ProfileLayer` is in use";
    }
    let order = Order {
        method: request.method.clone(),
        route: request.route.clone(),
        path: route_of(&request.uri),
        reason: reason.to_owned(),
        until: Instant::now() + PATIENCE,
    };
    let mut orders = lock_std(ORDERS.get());
    let now = Instant::now();
    orders.retain(|other| other.until > now && !other.is_like(&order));
    if orders.len() >= MAX_ORDERS {
        return "no request is profiled, for those on too many other routes are to be";
    }
    orders.push(order);
    HAS_ORDERS.store(true, Ordering::Relaxed);
    "the next request on this route is profiled"
}

impl Order {
    fn is_like(&self, other: &Self) -> bool {
        self.method == other.method && self.route == other.route && self.path == other.path
    }

    fn is_for(&self, method: &str, route: Option<&str>, path: &str) -> bool {
        self.method == method
            && match (&self.route, route) {
                (Some(wanted), Some(route)) => wanted == route,
                _ => self.path == path,
            }
    }
}

/// Returns whether there may be an order for the calling code.
#[cfg(feature = "profile")]
#[inline]
pub(crate) fn has_orders() -> bool {
    HAS_ORDERS.load(Ordering::Relaxed)
}

/// Returns why that request is to be profiled, if it is. Nobody else is told.
#[cfg(feature = "profile")]
pub(crate) fn take(method: &str, route: Option<&str>, path: &str) -> Option<String> {
    let path = route_of(path);
    let mut orders = lock_std(ORDERS.get());
    let now = Instant::now();
    orders.retain(|order| order.until > now);
    let at = orders.iter().position(|order| order.is_for(method, route, &path));
    let order = at.map(|at| orders.swap_remove(at));
    HAS_ORDERS.store(!orders.is_empty(), Ordering::Relaxed);
    order.map(|order| order.reason)
}

#[cfg(all(test, feature = "profile"))]
mod tests {
    use super::*;
    use crate::report::testing::report;

    fn request(route: Option<&str>, uri: &str) -> RequestInfo {
        let request = report().request.unwrap();
        RequestInfo { method: "PUT".to_owned(), route: route.map(str::to_owned), uri: uri.to_owned(), ..request }
    }

    /// Guards: an order is for one request, on its route alone, whichever side knows the route's template.
    #[test]
    fn the_next_request_on_the_route_takes_the_order() {
        announce();
        place(&request(Some("/orders/{id}"), "/orders/7?x=y"), "slow");
        place(&request(None, "/carts/7"), "slow, too");
        for other in ["/orders", "/order/7", "/orders/7/lines"] {
            assert_eq!(take("PUT", None, other), None, "{other}");
        }
        assert_eq!(take("GET", None, "/orders/8"), None);
        assert_eq!(take("PUT", Some("/{kind}/{id}"), "/orders/8"), None);
        assert_eq!(take("PUT", None, "/orders/8").as_deref(), Some("slow"), "a layer outside of the router");
        assert_eq!(take("PUT", Some("/carts/{cart}"), "/carts/9").as_deref(), Some("slow, too"));
        assert_eq!(take("PUT", None, "/orders/8"), None, "once");
    }

    #[test]
    fn one_order_waits_for_each_route() {
        announce();
        place(&request(Some("/twice"), "/twice"), "first");
        place(&request(Some("/twice"), "/twice"), "second");
        assert_eq!(take("PUT", Some("/twice"), "/twice").as_deref(), Some("second"));
        assert_eq!(take("PUT", Some("/twice"), "/twice"), None);
    }
}
