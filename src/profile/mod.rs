//! Where one request spent its time: `?__geordi__` at the end of any URL.
//!
//! Put a [`ProfileLayer`] around a service, and say who may. Whoever may appends the flag to any URL of the application: that
//! very request runs, once and by itself, and what comes back is where its time went: on CPU, blocked, waiting at which
//! `.await`, or waiting for its turn. To everybody else the flag is a parameter like any other.
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
//!     .rate(2_000)
//!     .cap(Duration::from_secs(60));
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
//! | `inline` | on the application's own runtime |
//! | `process` | also what the rest of the process does meanwhile: feature `pprof`, and only where it is [allowed](ProfileLayer::allow_process) |
//! | `index` | the profiles that are stored; with `q=…` those whose URL has these words |
//! | `<id>`, `<id>.<form>`, `<id>.status`, `<id>.response`, `<id>.vs.<id>`; with POST `<id>.cancel` | what became of one |
//!
//! Words are combined with commas: `?__geordi__=20x,json`. The header `x-geordi`, with the same words or just `1`, asks for a
//! profile beside the normal response, for POST, JSON and XHR: that response has the profile's id in `x-geordi-id`, and a
//! `Link` to it.
//!
//! # What the application may notice
//!
//! A profiled request runs on the *lane*, a tokio runtime of one worker apart from the application's, so that other requests
//! neither slow it nor suffer from it; what its handler spawns stays there. Connections and other things that need their own
//! runtime to go on (a pool's background task, say) are driven by that one as before. For what can not be used from another
//! runtime at all, there is [`inline`](ProfileLayer::inline).
//!
//! One request runs at a time, [a few more](ProfileLayer::queue) wait, and whoever comes then gets the status 429. A request
//! that takes longer than the [cap](ProfileLayer::cap) is dropped, as is one that is cancelled, or whose asker goes away
//! before there is a result. A panic of the handler is the outcome of its profile; with the header, it goes on to the server as
//! it would have without the layer.
//!
//! # Who may see what
//!
//! The authoriser is asked at every step. A profile is its asker's: for others, if the authoriser tells askers apart, it is as
//! unknown as an id that does not exist. What another site causes a browser to ask for starts and cancels nothing
//! (`Sec-Fetch-Site`, else `Origin` and `Referer`). Answers are not to be stored, pages run no script but their own, and what a
//! response's body was is never shown as what it claims to be.
//!
//! Of the request and the response, headers that carry credentials and values of parameters that look like secrets are not kept;
//! [`secret_params`](ProfileLayer::secret_params) names more. The response's body is kept as it is, up to
//! [`max_body`](ProfileLayer::max_body).
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
mod lane;
mod layer;
#[cfg(feature = "pprof")]
mod meanwhile;
mod model;
mod page;
mod record;
mod service;
mod start;
mod store;
#[cfg(test)]
mod testing;

pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use layer::ProfileLayer;
pub use model::{Meanwhile, Node, Outcome, ProcessStack, Profile, Quality, Request, Response, SCHEMA, Slice, State};
pub use service::ProfileService;
pub use store::{ProfileStore, StoreStats};
