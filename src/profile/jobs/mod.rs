//! One job per profile: from its place in the queue to the profile in the store.

mod assemble;
mod job;
mod process_sampling;
mod queue;
mod run;
mod supervise;
mod thread;
mod turn;

pub(super) use assemble::{Subject, profile, reduce, request, response, route};
pub(super) use job::{Asker, Job, Jobs, Stop};
pub(super) use queue::{Queue, Ticket};
pub(super) use run::{Again, Head, Run, Seen, Thrown, run};
pub(super) use supervise::{Course, Either, Ended, both, either, keep, supervise};
pub(super) use turn::UNRETURNED;
