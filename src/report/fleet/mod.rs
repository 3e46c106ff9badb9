//! All instances of a service as one: one message per incident, and a page about all of them.
//!
//! A service with three hundred instances has one incident, and without more three hundred mails about it. The instances of a
//! [`Fleet`] share a bucket (or a directory), and nothing else: no database, no leader, no connection to each other. heeler
//! needs of the bucket that it can create an object only if it does not exist, and that it says when an object was written.
//!
//! ```
//! use std::sync::Arc;
//!
//! use heeler::{Fleet, Reports};
//! # use object_store::memory::InMemory;
//!
//! # let bucket = InMemory::new();
//! // let bucket = object_store::aws::AmazonS3Builder::from_env().with_bucket_name("slow-requests").build()?;
//! let reports = Reports::builder()
//!     .service("photos", env!("CARGO_PKG_VERSION"))
//!     // .email(..), .webhook(..)
//!     .fleet(Fleet::new(Arc::new(bucket), "photos"))
//!     .build()?;
//! # Ok::<(), heeler::Error>(())
//! ```
//!
//! # What people get
//!
//! Mail, webhooks and sinks that [tell people](crate::Sink::tells_people) get, of all instances together:
//!
//! - one message when an incident begins, with the first report. It says which instances are affected, as far as they are known
//!   three seconds later;
//! - one when it has spread to another route, or has twice as many reports as in the last message and at least ten more: after
//!   five times [`take_over_after`](Fleet::take_over_after) at the earliest, which is five minutes by default, then after ten more, then
//!   twenty, and so on;
//! - one when it has ended: no instance had a report for [15 minutes](Fleet::ends_after). The next report begins another
//!   incident, with another message. Nobody says that it has ended if all instances that had a report of it are gone by then, or
//!   if another instance has the first new report within two minutes of the end.
//!
//! All instances should have the same sinks, because any of them may be the one that tells people. All other sinks get the reports
//! of their own instance, each of them: the log, the directory, Sentry, OpenTelemetry. Updates of
//! a report, which say where a request is later and how it ended, are for these alone. What a message says of the fleet is
//! [`Report::fleet`](crate::Report::fleet).
//!
//! Reports are about one incident if their cause is the same: the work that holds up the others, and where that is
//! ([`Report::incident`](crate::Report::incident)). If no cause is known, it is the work's own route and place.
//!
//! # Who tells people
//!
//! The first instance that creates `claim-1` in the incident's folder does. After its message has arrived, it creates `told`. If
//! there is no `told` [60 seconds](Fleet::take_over_after) after the claim, by the store's clock, another instance creates
//! `claim-2` and tells people, and so on, each attempt with twice the time of the one before it. So people are told at least
//! once, and almost always exactly once, no matter when an instance dies, provided that another instance has a report of the incident, or that
//! the dead one's report is in a [spool](crate::ReportsBuilder::spool) that the next process takes over. Clocks of instances are never compared: all times are those
//! that the store gives to objects.
//!
//! | | what happens | what you see | test |
//! |---|---|---|---|
//! | an instance dies before it has told people | another one that has a report of the incident does, after a minute | `claim-2` | `processes::another_tells_people_after_a_kill` |
//! | the store is down, hangs or is slow | after five seconds, each instance tells people for itself. Reports wait for the store like for any other sink; counts wait in memory | the message says so; [`messages_alone`](FleetStats::messages_alone), [`queued`](crate::Stats::queued), [`unwritten`](FleetStats::unwritten) | `shaky::each_tells_people_while_the_store_is_down`, `shaky::a_store_that_hangs_delays_no_other_sink` |
//! | some instances cannot reach it | these tell people for themselves. When they can, their counts are added | | `processes::counts_are_exact_after_a_partition` |
//! | it fails now and then | requests are tried three times | [`failed_requests`](FleetStats::failed_requests) | `shaky::errors_now_and_then_change_nothing` |
//! | it ignores or rejects conditions | each instance finds out when it starts, and tells people for itself. Indexes of past days are not put together | an error in the log, [`heeds_conditions`](FleetStats::heeds_conditions) | `shaky::a_store_that_ignores_conditions_is_found_out`, `shaky::a_store_that_rejects_conditions_is_found_out` |
//! | it fails each request that has a condition | the same, after some seconds. It is tried again after ten minutes | the same | `shaky::a_store_that_breaks_at_conditions_is_found_out` |
//! | its answer is lost | the next attempt finds the object of the first | [`failed_requests`](FleetStats::failed_requests) | `an_answer_that_is_lost_silences_no_news` |
//! | an instance dies after it has noted news and before it has told people | people do not hear of this news, only of the next | `news-doubled-1` | |
//! | objects are no records, or a later version wrote them | they are left alone. The later version's counts are added up | "could not be read" on the console's page | `garbage_and_later_versions_are_survived`, `what_a_later_version_wrote_stays` |
//! | clocks of instances are wrong | nothing. Their reports are in the day that they believe in | | `clocks_that_differ_change_nothing` |
//! | a sink refuses the message for good, or there is no room for it | the next report asks again, and has a message once the claim has expired | [`undelivered`](crate::Stats::undelivered) | `a_message_that_is_refused_for_good_does_not_silence_the_incident` |
//! | no mail can be sent | few instances try: the second after one minute, the third two minutes later, the fourth after four more. Once one has told people, the others leave it | `claim-3` | `claims::another_takes_over_later_each_time` |
//! | more than 1,000 reports wait for the store at once, or 16 MiB of them | this instance tells people of the others for itself | [`messages_alone`](FleetStats::messages_alone) | `many_incidents_at_the_start_are_shared` |
//! | more than 1,000 incidents at a time while the store is down | the counts of the quietest are given up | [`uncounted`](FleetStats::uncounted) | `incidents_beyond_a_thousand_are_given_up_and_counted` |
//! | the process ends without a [flush](crate::Reports::flush) | its last counts are lost, half a minute's at most. Its reports are kept by a [spool](crate::ReportsBuilder::spool), if there is one | [`recovered`](crate::Stats::recovered) in the next process | `processes::a_spool_keeps_reports_for_the_store` |
//!
//! With several sinks that tell people, people count as told once the first of them has taken the message. The others try on. If the
//! process ends before they have it, their copy in a [spool](crate::ReportsBuilder::spool) is left to the message that was sent.
//!
//! The tests are in `tests/fleet` and `src/report/fleet`. A fleet has a thread of its own. No request and no other sink ever waits
//! for the store. While people's messages wait for its answer, they count as [`queued`](crate::Stats::queued).
//!
#![doc = include_str!("../../../docs/fleet.md")]
//!
//! # What it costs
//!
//! An instance without reports makes a handful of requests a day. The [guide](crate::guide#what-a-fleet-costs) has the arithmetic for 300 of them.
//!
//! # Before the process ends
//!
//! [`Reports::flush`](crate::Reports::flush) also waits until the store has all counts. A store that fails is tried again until
//! the time of the flush is up. Reports for people that wait for another
//! instance's message are then left to that instance.

mod claiming;
mod claims;
mod compacting;
mod conditions;
mod flushing;
mod incident;
mod key;
mod layout;
mod member;
#[cfg(feature = "console")]
mod merging;
mod outbox;
mod questions;
mod records;
mod runtime;
mod settings;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod simulation;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod upkeep;
#[cfg(feature = "console")]
mod view;

pub(crate) use member::Member;
pub(in crate::report) use outbox::FleetSink;
pub use settings::Fleet;
pub use stats::FleetStats;
pub(crate) use stats::total;
