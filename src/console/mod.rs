//! A page about what is in flight, and where each of it is, *now*: also while the service does not answer any more.
//!
//! [`console`](console()) is a service to nest under any path of the application. It answers only while the application's
//! runtime does. [`Console::serve`] and [`Console::serve_unix`] have a listener, a thread and a runtime of their own, so
//! they answer while every worker of the application is blocked.
//!
//! ```no_run
//! use heeler::authorize::bearer;
//! use heeler::Reports;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let reports = Reports::default();
//! let console = heeler::console(reports, bearer(std::env::var("CONSOLE_TOKEN")?)?);
//! // For people with a tunnel to the machine: ssh -L 9200:localhost:9200 web1
//! console.serve("127.0.0.1:9200".parse()?)?;
//! // For people on the machine: curl --unix-socket /run/my-service/heeler/console.sock http://heeler/?form=text
//! console.serve_unix("/run/my-service/heeler/console.sock")?;
//! # Ok(())
//! # }
//! ```
//!
//! Within the application, as for axum:
//!
//! ```
//! # use heeler::{Reports, authorize};
//! # fn app(reports: Reports, token: String) -> Result<axum::Router, heeler::Error> {
//! let console = heeler::console(reports, authorize::bearer(token)?);
//! let app = axum::Router::new().nest_service("/console", console);
//! # Ok(app)
//! # }
//! # app(Reports::default(), "correct-horse-battery-staple".to_owned()).unwrap();
//! ```
//!
//! # What it shows
//!
//! | query | answer |
//! |---|---|
//! | | the table of what is in flight, the oldest first, which updates itself |
//! | `?view=places` | the same by place, each with its stack |
//! | `?view=resources` | who holds and who waits for what has a name, and deadlocks, as a picture |
//! | `?view=threads` | all threads of the process by stack |
//! | `?view=runtimes` | the delays of [watched](crate::watch_runtime) runtimes |
//! | `?view=history` | what reports were about, with their count and trend, stored profiles, and the state of each sink; `?report=` is one of the reports |
//! | `?profile=` | a stored profile as a flamegraph, or with `&form=json` as JSON, without the response's body |
//! | `?view=fleet` | with a [`Fleet`](https://docs.rs/heeler/latest/heeler/struct.Fleet.html): the incidents of all instances in the last seven days, who has how many reports of each, and since which release, and the profiles that they have made, if their layers share a store; `?fleet=` is one of them, with its first and its worst report |
//! | `?view=switches` | watchdogs, which can be switched off or given another threshold for some minutes, and [rules](crate::Rule), which can be given another budget |
//! | `?work=5cf400b2380cbd97` | one piece of work, with its stack |
//! | `?work=5cf400b2380cbd97`, with a button | has the next request on this route profiled, or the next [job](crate::ProfileLayer::job_when_asked) of that name |
//! | `?form=text`, `?form=json`, `?form=svg` | a [dump](crate::dump()) as text, as JSON, as a flamegraph whose width is work |
//! | `?form=table` | the table as JSON |
//! | `?sort=` and `?q=` | the table's order (`age`, `place`, `route`, `polls`, `left`), and a text that its lines contain |
//!
//! The table is cheap, because it is made every second: it knows where work is that runs for longer than an eighth of its
//! threshold, and asks of what runs for a second the 512 oldest. Everything else takes a [dump](crate::dump()), which
//! polls the rest once. Many who look at the same time share one.
//!
//! # Who may look
//!
//! Callers whom the [authorizer](crate::authorize) allows. Everyone else gets a 404. A listener on
//! a loopback address also checks `Host`, because a page elsewhere can have a developer's browser ask any name that leads
//! there (DNS rebinding). The Unix socket needs no token. It admits the user that the service runs as, and root.
//!
//! Of profiles, a caller sees those that [rules](crate::Rule) wanted, and those that the same caller has asked for: both
//! authorizers must have given the same name, or none.
//!
//! The console's own requests are not in its table and have no thresholds, also if it is nested within a
//! [`WatchdogLayer`](crate::WatchdogLayer). Pages load nothing from elsewhere, and work without a script up to the refresh.

mod answer;
mod body;
mod order;
mod page;
mod query;
mod serve;
#[cfg(unix)]
mod serve_unix;
mod service;
mod snapshots;
mod stream;
mod switches;

pub use body::ResponseBody;
pub use service::{Console, ResponseFuture, console};
