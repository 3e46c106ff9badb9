//! How long to pause after a sink has failed.

use std::time::Duration;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause, however many failures there were.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Returns the pause after this many failures in a row. It doubles each time, and is moved at random by up to a half,
/// so that the processes of a service don't all return to a server at the same moment. `random` is from 0 to 1.
pub(in crate::report) fn pause(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    pause.mul_f64(0.5 + random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_bound() {
        let seconds = [1, 2, 3, 4, 9, 10, u32::MAX].map(|failures| pause(failures, 0.5).as_secs());
        assert_eq!(seconds, [1, 2, 4, 8, 256, 300, 300]);
        assert_eq!((pause(1, 0.0), pause(1, 1.0)), (FIRST / 2, FIRST * 3 / 2));
        assert_eq!(pause(0, f64::NAN.max(0.5)), FIRST);
    }
}
