//! Time, as cheap as it comes.
//!
//! A request reads a clock once, when it begins: the CPU's time stamp counter where that is invariant (9 ns against the
//! 23 ns of `Instant::now`), the monotonic clock elsewhere. `quanta` decides and calibrates.
//!
//! It is calibrated once, in a fraction of a second, and not corrected later as the system's clocks are: it goes faster or
//! slower than those, by up to 100 parts per million, as far as we have seen. What takes 30 ms by one may take 30.003 ms by
//! the other, and a box of ten hours may end four seconds early. Where a time of one becomes a time of the other (a deadline
//! that is an `Instant`, a report's `started_at`), it is off by as much. Tests allow a thousandth: `at_least` and `at_most`
//! in `tests/common`.

use std::sync::OnceLock;

/// The counter's scale, and where this process's time begins.
#[derive(Debug)]
pub(crate) struct Clock {
    clock: quanta::Clock,
    origin: u64,
}

impl Clock {
    /// The process's clock. The first use calibrates it, for up to 200 ms: a layer's constructor does that, no request.
    #[inline]
    pub(crate) fn get() -> &'static Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        CLOCK.get_or_init(|| {
            let clock = quanta::Clock::new();
            let origin = clock.raw();
            Self { clock, origin }
        })
    }

    /// The counter, not yet scaled.
    #[inline]
    pub(crate) fn ticks(&self) -> u64 {
        self.clock.raw()
    }

    /// Nanoseconds since the origin for what [`Clock::ticks`] returned.
    #[inline]
    pub(crate) fn nanos(&self, ticks: u64) -> u64 {
        self.clock.delta_as_nanos(self.origin, ticks)
    }
}

/// Nanoseconds since this process's origin of time.
#[inline]
pub(crate) fn now() -> u64 {
    let clock = Clock::get();
    clock.nanos(clock.ticks())
}
