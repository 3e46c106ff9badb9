//! What the reporter does for the operator once a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::capture::PerProcess;
use crate::sync::lock_std;

/// How often the table is walked if nobody asks for metrics: long before a sum of generations can wrap around.
const KEEP_UP: Duration = Duration::from_secs(60);

/// Hands the metrics of the process to the collectors of metrics. Never panics because of them.
pub(in crate::report) fn publish() {
    static LAST: PerProcess<Mutex<Option<Instant>>> = PerProcess::new(Mutex::default);
    let due = {
        let mut last = lock_std(LAST.get());
        let due = last.is_none_or(|last| last.elapsed() >= KEEP_UP);
        if due {
            *last = Some(Instant::now());
        }
        due
    };
    if due {
        crate::report::metrics::keep_up();
    }
    #[cfg(feature = "metrics")]
    super::meters::publish();
}
