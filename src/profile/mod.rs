//! Where one request spent its time: `?__geordi__` at the end of any URL.
//!
//! Put a [`ProfileLayer`] around a service, and say who may profile. Those people append the flag to any URL of the application: that
//! very request runs, once and by itself, and what comes back is where its time went: on CPU, blocked, without a CPU, waiting
//! at which `.await`, or waiting for its turn. To everybody else the flag is a parameter like any other.
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
//! Layers that are added to the application *inside* of it are part of what is profiled; those outside (authentication,
//! compression, access logs) are not.
//!
//! # What can be asked for
//!
//! | `?__geordi__=` | |
//! |---|---|
//! | nothing | in a browser a page with the progress, and then the result; else the flamegraph |
//! | `svg`, `html`, `folded`, `speedscope`, `json`; with their features `pprof`, `firefox`, `dot`, `pdf` | the profile in this form, when it is done |
//! | `20x` | 20 runs in one profile, for requests that are too short for one: GET and HEAD alone |
//! | `inline` | as a task of the application's runtime |
//! | `process` | also what the rest of the process does meanwhile: feature `pprof`, and only where it is [allowed](ProfileLayer::allow_process_profiles) |
//! | `index` | the profiles that are stored; with `q=…` those whose URL has these words |
//! | `<id>`, `<id>.<form>`, `<id>.status`, `<id>.response`, `<id>.vs.<id>`; with POST `<id>.cancel` | what became of one |
//!
//! Words are combined with commas: `?__geordi__=20x,json`. The header `x-geordi`, with the same words or just `1`, asks for a
//! profile beside the normal response, for POST, JSON and XHR: that response has the profile's id in `x-geordi-id`, and a
//! `Link` to it.
//!
//! # Starting a profile
//!
//! A profile runs the request, so a person must have meant to start it. A page can have a browser ask for anything with the
//! credentials that it adds by itself; an image, a script, a frame or a `no-cors` fetch starts nothing.
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
//! "Asks" means: the answer is a page with a button. The button's POST names the question by a number that nobody can guess;
//! it holds once, for five minutes, for the same URL and for whoever was asked, and leads on to the GET that starts it. No
//! other page can read or frame that page. What does not take `text/html`, and what is no GET, gets the status 403 and a
//! sentence. Another instance does not know the question: behind a balancer, instances with pages need sessions that stick.
//!
//! The header starts one run at once unless it comes from another origin (`Sec-Fetch-Site`, else `Origin` and `Referer`):
//! only a script can set it, and a script of another origin only if the service's answer to a preflight (CORS) lets it. More
//! than one run by the header is for clients that are no browser. A script that has nothing but a cookie uses the header, too.
//!
//! # Services that are not `Clone`
//!
//! A profile runs a clone of the service, so that the one inside of this layer must be [`Clone`]. The layers of watchdog and
//! timeboxes do not ask for it.
//!
//! | what is not `Clone` | what to do |
//! |---|---|
//! | a service of hyper's, called by reference | put it behind an [`Arc`](std::sync::Arc), and the layers around a `tower::service_fn` that calls it: `examples/hyper_shared.rs` |
//! | a service of tower's that changes as it is called | put it behind `tower::buffer::Buffer`, inside of all layers: the time in its queue counts, too |
//! | a service of tower's for one connection, which may be made anew | make it within `tower::service_fn` |
//!
//! # What the application may notice
//!
//! A profiled request runs on a *profile thread*: a thread of its own that polls it inside the application's runtime, by
//! [`Handle::block_on`](tokio::runtime::Handle::block_on). Even if it blocks, other requests do not wait for it. The tasks that
//! it spawns and the connections that it opens live where they would have lived without a profile, and so does everything that
//! it leaves in pools. A few things differ from a handler that runs as a task on one of the runtime's own threads:
//!
//! - `tokio::task::id()` panics, as in every `block_on` (`try_id()` is `None`), and `spawn_local` has no `LocalSet` to go to.
//! - What the application sets up in `on_thread_start`, such as thread-locals, is missing.
//! - `block_in_place` runs its closure in place, on a current-thread runtime, too.
//! - A current-thread runtime drives sockets and timers only while its own thread does. While that thread is busy, a profiled
//!   request that waits for them goes on waiting.
//! - No limit holds in the request and in what it hands on by [`heeler::spawn`](crate::spawn) and its like. Limits in tasks of
//!   plain `tokio::spawn` hold as ever.
//!
//! [`inline`](ProfileLayer::inline) is for services that cannot do with this. Where a service is called outside of a tokio
//! runtime, its request runs as if nobody had asked, and the response says so in the header `x-geordi-error`. When the
//! application's runtime shuts down, the profile ends, and that is its outcome.
//!
//! One request runs at a time, [a few more](ProfileLayer::max_queued) wait, and whoever comes then gets the status 429. A request
//! that takes longer than the [timeout](ProfileLayer::timeout) is dropped, as is one that is cancelled, or whose asker goes away
//! before there is a result. A poll that does not return cannot be stopped: five seconds later its profile is made of what was
//! seen until then, and its thread no longer counts. With eight such threads in a process, further requests for a profile get
//! the status 503. A panic of the handler is the outcome of its profile; with the header, it goes on to the server as
//! it would have without the layer.
//!
//! # Who may see what
//!
//! The authoriser is asked at every step. A profile is its asker's: for others, if the authoriser tells askers apart, it is as
//! unknown as an id that does not exist. What another site causes a browser to ask for cancels nothing. Answers are not to be stored, pages run no script but their own, and what a
//! response's body was is never shown as what it claims to be.
//!
//! Of the request and the response, headers that carry credentials or say who somebody is to a proxy (`x-amzn-oidc-*`,
//! `x-forwarded-client-cert`) are not kept, nor is whatever looks like a secret in the URI, in other headers, in errors and in
//! notes: see [Privacy](crate::report#privacy). [`secret_params`](ProfileLayer::secret_params) and
//! [`secret_paths`](ProfileLayer::secret_paths) name more. The response's body is kept as it is, up to
//! [`max_body_bytes`](ProfileLayer::max_body_bytes); a page repeats the address that it was asked for in its links.
//!
//! # Where the ideas come from
//!
//! The flag, and the page that waits, are after Python's [geordi](https://pypi.org/project/geordi/), which profiles a Django
//! request by its URL.

mod answer;
mod body;
mod bytes;
mod flag;
mod form;
mod format;
mod future;
mod id;
mod jobs;
mod layer;
mod model;
mod page;
#[cfg(feature = "pprof")]
mod process_profile;
mod record;
mod service;
mod start;
mod store;
mod supervisor;
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
