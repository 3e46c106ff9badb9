//! Measures how much work is slow on this machine, in this build. This happens once at the start, so that the slow
//! pages which burn time (and don't just wait) last about as long as those that wait.

use std::time::{Duration, Instant};

use sqlx::SqlitePool;

use crate::Problem;
use crate::slow::blocking::is_valid_tag;
use crate::slow::database::find_by_camera;

/// Returns a tag that takes `is_valid_tag` between half of `target` and all of it.
///
/// One more letter doubles the time, so this measures short tags and extrapolates from there.
pub(crate) fn tag(target: Duration) -> String {
    const MEASURABLE: Duration = Duration::from_millis(5);
    let tag = |letters: usize| format!("{}!", "a".repeat(letters));
    let mut letters = 8;
    let mut took = validate(&tag(letters));
    while took < MEASURABLE {
        letters += 1;
        took = validate(&tag(letters));
    }
    // The fastest of a few, because another process may have used the core meanwhile.
    for _ in 0..3 {
        took = took.min(validate(&tag(letters)));
    }
    while took * 2 <= target {
        letters += 1;
        took *= 2;
    }
    tag(letters)
}

fn validate(tag: &str) -> Duration {
    let begun = Instant::now();
    std::hint::black_box(is_valid_tag(tag));
    begun.elapsed()
}

/// How many shots of a camera `find_by_camera` finds in about `target`. Each costs a scan of the whole table.
pub(crate) async fn shots(pool: &SqlitePool, target: Duration) -> Result<i64, Problem> {
    let mut scan = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        find_by_camera(pool, "Leica M6", 2).await?;
        scan = scan.min(begun.elapsed() / 2);
    }
    let shots = target.as_micros() / scan.as_micros().max(1);
    Ok(i64::try_from(shots)?.max(2))
}
