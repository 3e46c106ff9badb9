//! Shows where one request spent its time: `?__geordi__` at the end of any URL.
//!
//! Put a [`ProfileLayer`] around a service, and say who may profile. Those people append the flag to any URL of the
//! application. That very request runs, once and by itself. The result says where its time went: on CPU, blocked,
//! without a CPU, waiting at which `.await`, or waiting for its turn. For everybody else the flag is a parameter like
//! any other.
//!
//! ```
//! use std::time::Duration;
//! use heeler::profile::{ProfileLayer, ProfileStore};
//! use heeler::authorize;
//!
//! # fn main() -> Result<(), heeler::Error> {
//! # let token = "correct-horse-battery-staple";
//! // Whoever knows the token.
//! let layer = ProfileLayer::new(authorize::bearer(token)?);
//!
//! // Customised.
//! # #[derive(Clone)] struct User { name: String, is_admin: bool }
//! let layer = ProfileLayer::new(authorize::extension::<User>(|user| user.is_admin).principal(|user| user.name.clone()))
//!     .parameter("profile")?
//!     .store(ProfileStore::memory().max_count(20))
//!     .sample_rate_hz(2_000)
//!     .timeout(Duration::from_secs(60));
//! # Ok(())
//! # }
//! ```
//!
//! Layers *inside* the profile layer are part of what is profiled. Those outside (authentication, compression, access
//! logs) are not.
//!
//! # What can be asked for
//!
//! | `?__geordi__=` | |
//! |---|---|
//! | nothing | in a browser, a page with the progress and then the result; otherwise the flamegraph |
//! | `svg`, `html`, `folded`, `speedscope`, `json`; with their features `pprof`, `firefox`, `dot`, `pdf` | the profile in this form, when it is done |
//! | `20x` | 20 runs in one profile, for requests that are too short for a single run: only GET and HEAD |
//! | `inline` | the request runs as a task of the application's runtime |
//! | `process` | also what the rest of the process does meanwhile: feature `pprof`, and only where it is [allowed](ProfileLayer::allow_process_profiles) |
//! | `index` | the stored profiles; with `q=…` those whose URL has these words |
//! | `<id>`, `<id>.<form>`, `<id>.status`, `<id>.response`, `<id>.vs.<id>`; with POST `<id>.cancel` | one profile, or the job that makes it |
//!
//! Combine words with commas: `?__geordi__=20x,json`. The header `x-geordi`, with the same words or just `1`, asks for
//! a profile in addition to the normal response. Use it for POST, JSON and XHR. The response has the profile's id in
//! `x-geordi-id`, and a `Link` to it.
//!
//! # Starting a profile
//!
//! A profile runs the request, so a person must have meant to start it. A page can make a browser send any request with
//! the credentials that the browser adds by itself. So an image, a script, a frame or a `no-cors` fetch starts nothing.
//!
//! | request with the parameter | one run | more (`20x`) |
//! |---|---|---|
//! | a browser says that somebody went there (`Sec-Fetch-Mode: navigate`, `Sec-Fetch-Dest: document`), from this origin (`Sec-Fetch-Site: same-origin`) or from no page at all (`none`: the address bar, a bookmark, or a link in another program) | at once | asks |
//! | `Authorization`, no cookie; of a kind that no browser adds by itself, or from what does not look like a browser | at once | at once; in a browser asks |
//! | neither, and it does not look like a browser: `curl` with a certificate, or from an address that is let in | at once | at once |
//! | a link on another site, somebody goes there | asks | asks |
//! | from another site in any other way, or a browser that only prepares (`Sec-Purpose: prefetch`) | refused | refused |
//! | everything else: with a cookie, or from a browser that does not say how (over plain HTTP they do not) | asks | asks |
//!
//! "Asks" means that the answer is a page with a button. The button's POST names the question by a number that nobody
//! can guess. It is valid once, for five minutes, for the same URL and the same caller, and leads to the GET that
//! starts the profile. No other page can read or frame that page. A request that isn't a GET or does not accept
//! `text/html` gets the status 403 and a sentence. Another instance does not know the question, so instances behind a
//! balancer need sticky sessions for their pages.
//!
//! The header starts one run at once unless it comes from another origin (`Sec-Fetch-Site`, else `Origin` and
//! `Referer`). Only a script can set it, and a script of another origin only if the service's answer to a preflight
//! (CORS) allows it. Only clients other than browsers can ask for more than one run by the header. A script that has
//! only a cookie uses the header, too.
//!
//! # Services that are not `Clone`
//!
//! A profile runs a clone of the service, so the service inside this layer must be [`Clone`]. The layers of watchdog
//! and timeboxes do not need that.
//!
//! | what is not `Clone` | what to do |
//! |---|---|
//! | a hyper service, called by reference | put it behind an [`Arc`](std::sync::Arc), and the layers around a `tower::service_fn` that calls it: `examples/hyper_shared.rs` |
//! | a tower service that changes when it is called | put it behind `tower::buffer::Buffer`, inside all layers; the time in its queue counts, too |
//! | a tower service for one connection, which can be recreated | make it within `tower::service_fn` |
//!
//! # What the application may notice
//!
//! A profiled request runs on a *profile thread*: a thread of its own that polls it inside the application's runtime,
//! with [`Handle::block_on`](tokio::runtime::Handle::block_on). Other requests do not wait for it, even if it blocks.
//! The tasks that it spawns, the connections that it opens and everything that it leaves in pools live where they would
//! have lived without a profile. A few things differ from a handler that runs as a task on one of the runtime's own
//! threads:
//!
//! - `tokio::task::id()` panics, as in every `block_on` (`try_id()` is `None`), and `spawn_local` has no `LocalSet` to
//!   go to.
//! - Anything that the application sets up in `on_thread_start`, such as thread-locals, is missing.
//! - `block_in_place` runs its closure in place, even on a current-thread runtime.
//! - A current-thread runtime drives sockets and timers only on its own thread. While that thread is busy, a profiled
//!   request that waits for them goes on waiting.
//! - No limit holds in the request, or in work that it hands on with [`heeler::spawn`](crate::spawn) and the like.
//!   Limits in tasks of plain `tokio::spawn` still hold.
//!
//! Use [`inline`](ProfileLayer::inline) for services that cannot live with this. If a service is called outside a tokio
//! runtime, its request runs as if nobody had asked for a profile, and the response says so in the header
//! `x-geordi-error`. When the application's runtime shuts down, the profile ends with that outcome.
//!
//! One request runs at a time, [a few more](ProfileLayer::max_queued) wait, and further ones get the status 429. A
//! request is dropped if it takes longer than the [timeout](ProfileLayer::timeout), if it is cancelled, or if the
//! client that asked goes away before there is a result. A poll that does not return cannot be stopped. After five
//! seconds its profile is made of what was seen until then, and its thread no longer counts. With eight such threads in
//! a process, further requests for a profile get the status 503. A panic of the handler is the outcome of its profile.
//! With the header, the panic also goes on to the server, as it would have without the layer.
//!
//! # Tail profiles and jobs
//!
//! A [rule](crate::Rule) profiles a request in production: the next one on a route where requests keep being slow. Nobody
//! asks for it, so it is unlike the others. The request runs where it would have run, its client gets the response as ever,
//! and the limits and thresholds around it and in it apply. It waits for no turn. Its profile ends with the head of the
//! response, and keeps nothing of the body. If the request takes longer than the [timeout](ProfileLayer::timeout), the
//! profile ends and the request goes on. Everybody who may profile finds it in `?__geordi__=index`.
//! Somebody who looks at a request on the [console](https://docs.rs/heeler/latest/heeler/console/index.html) can ask for the
//! same of the next one on its route.
//!
//! [`ProfileLayer::job`] profiles work that is no request in the same way, and [`ProfileLayer::job_when_asked`] does so if
//! somebody has asked on the console. A process that ends soon afterwards waits for the profile with
//! [`ProfileLayer::flush`].
//!
//! Every poll of the request is traced, and its thread is sampled while it is inside one: some microseconds a poll, and a
//! signal a thousand times per second of computing.
//!
//! # On another machine
//!
//! With the feature `apalis-redis` or `apalis-postgres`, workers elsewhere make the profiles, and the asker does not notice:
//! see the module [`remote`](https://docs.rs/heeler/latest/heeler/profile/remote/index.html).
//!
//! # Who may see what
//!
//! The authorizer is asked at every step. A profile belongs to the person who asked for it, or
//! to everybody who may profile if a rule wanted it. If the authorizer tells
//! callers apart, other callers get the same answer as for an id that does not exist. A request that another site makes
//! a browser send cancels nothing. Answers forbid caches to store them. Pages run only their own scripts. A response's
//! body is only ever served as plain text or as bytes, whatever type it claims to have.
//!
//! A profile does not keep headers of the request and the response that carry credentials or in which a proxy
//! identifies somebody (`x-amzn-oidc-*`, `x-forwarded-client-cert`). It does not keep anything that looks like a secret
//! in the URI, in other headers, in errors and in notes, either: see [Privacy](crate::report#privacy).
//! [`secret_params`](ProfileLayer::secret_params) and [`secret_paths`](ProfileLayer::secret_paths) name more. The
//! response's body is kept as it is, up to [`max_body_bytes`](ProfileLayer::max_body_bytes). A page repeats the address
//! that it was asked for in its links.
//!
//! With `ProfileLayer::pyroscope` (feature `pyroscope`), the stacks of each profile and its route also go to a
//! [Pyroscope](https://docs.rs/heeler/latest/heeler/struct.Pyroscope.html) server, and everybody who may look there sees
//! them.
//!
//! # Where the ideas come from
//!
//! The flag, and the page that waits, are modelled on Python's [geordi](https://pypi.org/project/geordi/), which
//! profiles a Django request by its URL.

mod answer;
mod body;
mod bytes;
mod flag;
mod form;
mod format;
mod future;
mod id;
mod jobs;
#[cfg(feature = "console")]
mod known;
mod layer;
mod model;
mod page;
mod pending;
#[cfg(feature = "pprof")]
mod process_profile;
mod push;
mod record;
#[cfg(heeler_remote)]
#[cfg_attr(docsrs, doc(cfg(any(feature = "apalis-redis", feature = "apalis-postgres"))))]
pub mod remote;
#[cfg(heeler_remote)]
mod seal;
mod service;
mod start;
mod store;
mod supervisor;
mod tail;
#[cfg(test)]
mod testing;

pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use layer::ProfileLayer;
pub use model::{
    Node, Outcome, ProcessProfile, ProcessStack, Profile, Quality, Request, Response, SCHEMA, Slice, State,
};
pub use service::ProfileService;
pub use store::{ProfileStore, StoreStats};
