//! A cheap clock.
//!
//! A request reads the clock once, when it begins. It reads the CPU's time stamp counter where that is invariant (9 ns
//! against the 23 ns of `Instant::now`), and the monotonic clock elsewhere. `quanta` decides and calibrates.
//!
//! The counter is calibrated once, in a fraction of a second, and not corrected later as the system's clocks are. It
//! drifts from them by up to 100 parts per million, as far as we have seen. What takes 30 ms by one may take 30.003 ms
//! by the other, and a box of ten hours may end four seconds early. A time that is converted from one to the other (a
//! deadline that is an `Instant`, a report's `started_at`) is off by as much. Tests allow a thousandth: `at_least` and
//! `at_most` in `tests/common`.

use std::sync::OnceLock;

/// The counter's scale, and this process's origin of time.
#[derive(Debug)]
pub(crate) struct Clock {
    clock: quanta::Clock,
    origin: u64,
}

impl Clock {
    /// Returns the process's clock. The first use calibrates it for up to 200 ms. A layer's constructor does that, so
    /// no request has to.
    #[inline]
    pub(crate) fn get() -> &'static Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        CLOCK.get_or_init(|| {
            let clock = quanta::Clock::new();
            let origin = clock.raw();
            Self { clock, origin }
        })
    }

    /// Returns the counter, not yet scaled.
    #[inline]
    pub(crate) fn ticks(&self) -> u64 {
        self.clock.raw()
    }

    /// Converts what [`Clock::ticks`] returned to nanoseconds since the origin.
    #[inline]
    pub(crate) fn nanos(&self, ticks: u64) -> u64 {
        self.clock.delta_as_nanos(self.origin, ticks)
    }
}

/// Returns the nanoseconds since this process's origin of time.
#[inline]
pub(crate) fn now() -> u64 {
    let clock = Clock::get();
    clock.nanos(clock.ticks())
}
