//! What is logged meanwhile.

use std::sync::{Mutex, OnceLock};

use crate::common::log::Log;

/// What the whole process logs meanwhile: reports are delivered on a thread of heeler's.
pub(crate) fn logged(run: impl FnOnce()) -> String {
    static LOG: OnceLock<Log> = OnceLock::new();
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let log = LOG.get_or_init(Log::start);
    log.clear();
    run();
    log.text()
}
