//! systemd's watchdog: a beat while the runtimes beat, and a dump before the process is killed.

use std::thread::JoinHandle;
use std::time::Duration;

use sd_notify::NotifyState;

use super::beat::{of_each, turns};
use crate::capture::sys;
use crate::error::{Error, Result};
use crate::report::{Reports, log_later};
use crate::text::units::duration;

/// In so many tenths of the time, the thread that asks the runtimes has its turn many times.
const ROUNDS: u32 = 5;

/// Tells systemd that the service is ready, and then, for `WatchdogSec=`, that it is alive: while every
/// [watched](crate::watch_runtime) runtime has run something within half of that time. Returns whether there is such a
/// watchdog.
///
/// When a runtime has run nothing for a quarter of the time, a [dump](Reports::dump) is sent to `reports`. Until it has
/// been written, but for no longer than the whole time, systemd goes on hearing the beat. So the evidence is there before the process is killed. Use a
/// [directory](crate::ReportsBuilder::directory) or a [spool](crate::ReportsBuilder::spool), because there is little time for a network.
///
/// With `HEELER_DISABLE=1` in the environment, the beat depends on nothing: systemd would otherwise end the process. For the
/// same reason it goes on if heeler's own thread fails to ask the runtimes, and the log says so.
///
/// Call it when the service is ready to serve. `NOTIFY_SOCKET` and `WATCHDOG_USEC` stay in the environment.
///
/// ```no_run
/// # fn main() -> Result<(), heeler::Error> {
/// let reports = heeler::Reports::builder().directory("/var/log/my-service/slow").build()?;
/// heeler::watch_runtime("main", &tokio::runtime::Handle::current(), reports.clone());
/// heeler::notify_systemd(reports)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns an error if there is a `NOTIFY_SOCKET` that cannot be written to, or if no thread can be started.
pub fn notify_systemd(reports: Reports) -> Result<bool, Error> {
    let failed = |error| Error::listener("systemd cannot be notified".to_owned(), error);
    sd_notify::notify(&[NotifyState::Ready]).map_err(failed)?;
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(false) };
    let started = std::thread::Builder::new().name("heeler-systemd".into()).spawn(move || {
        sys::block_signals();
        run(&reports, limit);
    });
    started.map_err(|error| Error::thread("the thread that notifies systemd", error))?;
    Ok(true)
}

fn run(reports: &Reports, limit: Duration) {
    let mut dump: Option<JoinHandle<()>> = None;
    let mut has_dumped = false;
    let mut asking = Asking::default();
    loop {
        // With heeler disabled, no runtime is watched, and nothing keeps the beat back.
        // Time in which nobody has asked, because the whole process stood still, is no silence.
        let longest = of_each(|pulse| (pulse.silence(), pulse.name.clone())).into_iter().max_by_key(|(time, _)| *time);
        let silence = longest.as_ref().map_or(Duration::ZERO, |(silence, _)| *silence);
        asking.look(longest.is_some());
        if silence < limit / 4 {
            has_dumped = false;
        } else if !has_dumped && dump.is_none() {
            has_dumped = true;
            let name = longest.map(|(_, name)| name).unwrap_or_default();
            dump = start_dump(reports.clone(), &name, silence, limit);
        }
        dump.take_if(|dump| dump.is_finished());
        // Whoever writes the evidence may be as slow as a full disk. It gets as much time again.
        let is_alive = silence < limit / 2 || (dump.is_some() && silence < limit);
        if is_alive && let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
            log_later(move || tracing::error!(target: "heeler", %error, "systemd cannot be notified"));
        }
        std::thread::sleep(limit / 10);
    }
}

/// Whether the runtimes are asked at all. If heeler itself fails, that is no reason to have the process killed, but must be
/// said. Counted in rounds, because the whole process may have stood still.
#[derive(Default)]
struct Asking {
    turns: u64,
    rounds: u32,
}

impl Asking {
    fn look(&mut self, is_expected: bool) {
        let turns = turns();
        self.rounds = if is_expected && turns == self.turns { self.rounds.saturating_add(1) } else { 0 };
        self.turns = turns;
        if self.rounds == ROUNDS {
            log_later(|| {
                tracing::error!(target: "heeler", "the runtimes are not asked any more, and systemd goes on hearing that they are alive");
            });
        }
    }
}

/// Sends a dump on a thread of its own, so that the beat goes on.
fn start_dump(reports: Reports, name: &str, silence: Duration, limit: Duration) -> Option<JoinHandle<()>> {
    let (silence, end) = (duration(silence), duration(limit));
    let reason = format!("the runtime \"{name}\" has run nothing for {silence} (WatchdogSec={end})");
    let started = std::thread::Builder::new().name("heeler-dump".into()).spawn(move || {
        sys::block_signals();
        reports.blocking_dump(&reason);
        // What has not arrived by then is in the spool, if there is one.
        let _ = reports.blocking_flush(limit / 4);
    });
    let failed = |error| {
        log_later(move || tracing::error!(target: "heeler", %error, "a dump is not sent: no thread could be started"));
    };
    started.map_err(failed).ok()
}
