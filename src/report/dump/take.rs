//! Taking a dump.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use super::Dump;
use crate::capture::{PerProcess, sys};
use crate::disabled::is_disabled;
use crate::log::log_safely;
use crate::monitor::{DumpBudget, DumpEvidence, DumpStacks, take_dump};
use crate::report::assemble::Assembler;
use crate::report::runtimes::runtimes;
use crate::report::threads::{ThreadDump, look_within};
use crate::sync::lock_std;

/// How long a whole dump asks and looks. What is not known by then is said to be unknown.
const WHOLE: Look = Look {
    budget: DumpBudget {
        polls: Duration::from_millis(400),
        older_than: Duration::ZERO,
        most: usize::MAX,
        threads: Duration::from_millis(200),
    },
    threads: Some(Duration::from_millis(300)),
};

/// What can be known every second at little cost: where all is that runs for long, and some that runs for a second.
const CHEAP: Look = Look {
    budget: DumpBudget {
        polls: Duration::from_millis(50),
        older_than: Duration::from_secs(1),
        most: 512,
        threads: Duration::from_millis(50),
    },
    threads: None,
};

/// What a dump looks at.
#[derive(Debug, Clone, Copy)]
struct Look {
    budget: DumpBudget,
    /// How long the threads of the process are looked at, if at all.
    threads: Option<Duration>,
}

/// What dumps learn of symbols and threads serves the next.
struct Taker {
    assembler: Assembler,
    stacks: DumpStacks,
}

impl Taker {
    fn new() -> Self {
        Self { assembler: Assembler::new(), stacks: DumpStacks::new() }
    }

    fn take(&mut self, look: Look) -> Dump {
        // Taking stacks may stall a runtime for a moment, which is no news.
        let runtimes = runtimes();
        let evidence = take_dump(look.budget, &mut self.stacks);
        let looked = look.threads.map(look_within);
        let threads = looked.map_or_else(ThreadDump::default, |looked| self.assembler.threads(looked));
        self.assembler.dump(evidence, threads, runtimes)
    }
}

/// One dump at a time.
static TAKER: PerProcess<Mutex<Taker>> = PerProcess::new(|| Mutex::new(Taker::new()));

/// Returns everything that is in flight, and where each of it is, at this moment: requests, jobs and child work, grouped by
/// place; who holds and who waits for what has a name; and the threads.
///
/// Work that runs for long has a record of where it waits. Other work is polled once more, as for a report. Threads are
/// looked at as [`threads`](crate::threads()) does. All of it is bounded: a dump asks and looks for a second at most, at
/// 100,000 pieces of work at most, and says what it leaves out. No runtime is needed for it, so it works while every worker of
/// the application is blocked.
///
/// With `HEELER_DISABLE=1` in the environment it is empty.
///
/// It is taken on a thread of its own, so this can be called on any executor. If the future is dropped before it is
/// ready, the dump goes nowhere.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let dump = heeler::dump().await;
/// println!("{dump}");
/// # }
/// ```
pub async fn dump() -> Dump {
    if is_disabled() {
        return nothing();
    }
    let (done, taken) = tokio::sync::oneshot::channel();
    let started = std::thread::Builder::new().name("heeler-dump".into()).spawn(move || {
        sys::block_signals();
        // The caller may have given up.
        let _ = done.send(blocking_dump());
    });
    match (started, taken.await) {
        (Ok(_), Ok(dump)) => dump,
        (started, _) => {
            // Better late than never.
            log_safely(|| {
                let error = started.err();
                tracing::warn!(target: "heeler", ?error, "a dump blocks its caller: it has no thread of its own");
            });
            blocking_dump()
        }
    }
}

/// Like [`dump`](dump()), but blocks the thread for as long as it takes: for code that isn't async.
///
/// ```
/// let dump = heeler::blocking_dump();
/// println!("{} in flight", dump.in_flight);
/// ```
#[must_use]
pub fn blocking_dump() -> Dump {
    look(WHOLE)
}

/// Takes a dump that can be taken every second. It polls little, and does not look at the threads of the process. What began
/// a moment ago has no place yet.
pub(crate) fn cheap_dump() -> Dump {
    look(CHEAP)
}

fn look(look: Look) -> Dump {
    let began = Instant::now();
    if is_disabled() {
        return nothing();
    }
    let mut taker = lock_std(TAKER.get());
    let taken = catch_unwind(AssertUnwindSafe(|| taker.take(look)));
    let mut dump = taken.unwrap_or_else(|_| {
        // It may be in the middle of anything.
        *taker = Taker::new();
        nothing()
    });
    drop(taker);
    dump.took = began.elapsed();
    dump
}

/// Returns a dump of a process in which nothing is in flight.
fn nothing() -> Dump {
    Assembler::new().dump(DumpEvidence::nothing(), ThreadDump::default(), Vec::new())
}

impl DumpEvidence {
    /// Returns the evidence of a process in which nothing is in flight.
    fn nothing() -> Self {
        Self {
            taken: SystemTime::now(),
            work: Vec::new(),
            places: Vec::new(),
            resources: Vec::new(),
            deadlocks: Vec::new(),
            omitted: 0,
            claims: HashMap::new(),
            unobserved: 0,
        }
    }
}
