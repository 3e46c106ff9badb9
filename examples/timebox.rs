//! Seven ways to stop work in time.
//!
//! ```text
//! cargo run --release --example timebox
//! ```
//!
//! It takes about a second. The first error of a debug build may not say where it was, because symbolizing a place then
//! takes longer than it waits. With `HEELER_DISABLE_TIMEBOXES=1` no box fires, and it hangs.

use std::error::Error;
use std::io;
use std::time::Duration;

use heeler::timebox::{blocking, exclusive, interrupted, remaining};
use heeler::{Interrupted, Quota, TimeboxExt, checkpoint, timebox};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A call to a service that answers after that many milliseconds.
async fn fetch(millis: u64) -> &'static str {
    tokio::time::sleep(ms(millis)).await;
    "a photo"
}

/// Work without an `.await`. It checks whether its time is up.
fn checksum(rounds: u64) -> Result<u64, Interrupted> {
    let mut sum = 0_u64;
    for round in 0..rounds {
        checkpoint()?;
        sum = sum.wrapping_mul(31).wrapping_add(round);
    }
    Ok(sum)
}

/// A worker that can end cleanly at any moment, once it is told to.
async fn index() -> String {
    let mut pages = 0;
    loop {
        tokio::select! {
            _ = interrupted() => return format!("{pages} pages are indexed and saved"),
            _ = tokio::time::sleep(ms(10)) => pages += 1,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("1. A future. The error says where it was.");
    println!("   in time:  {}", fetch(5).timebox(ms(1_000)).await?);
    let late = fetch(60_000).timebox(ms(50)).label("fetch").await;
    println!("   too late: {}\n", late.unwrap_err());

    println!("2. Plain code, with checkpoints.");
    println!("   in time:  {}", blocking(ms(1_000), || checksum(10))?);
    println!("   too late: {}\n", blocking(ms(50), || checksum(u64::MAX)).unwrap_err());

    println!("3. Boxes in boxes: who has less time left, interrupts; the clock of the outer one goes on.");
    let outer = async {
        let inner = fetch(60_000).timebox(ms(30)).label("inner").await;
        let left = remaining().unwrap_or_default().as_millis();
        println!("   {}\n   the outer one has {left} ms left", inner.unwrap_err());
        fetch(60_000).timebox(ms(9_000)).label("without effect").await
    };
    println!("   {}\n", timebox(ms(80), outer).label("outer").await.unwrap_err());

    println!("4. A quota: one budget for all turns of a loop, spent only while they run.");
    let quota = Quota::new(ms(100))?;
    let mut turns = 0;
    while fetch(30).timebox(&quota).await.is_ok() {
        turns += 1;
    }
    println!("   {turns} turns, and {:?} of {:?} left\n", quota.remaining(), quota.total());

    println!("5. Two stages: at 50 ms it is told, and it has a second to end by itself.");
    println!("   {}\n", index().timebox(ms(50)).grace(ms(1_000)).await?);

    println!("6. An error of your own, or of the standard library.");
    let answer = fetch(60_000).timebox(ms(20)).or_err("503 Service Unavailable").await;
    println!("   {}", answer.unwrap_err());
    let error = fetch(60_000).timebox(ms(20)).map_err(io::Error::from).await.unwrap_err();
    println!("   {:?}, and it still knows: {}\n", error.kind(), Interrupted::find(&error).is_some());

    println!("7. One at a time: a job that must never run twice at once, in whatever process.");
    let job = || exclusive("heeler-example", ms(1_000), fetch(30));
    let (first, second) = tokio::join!(job(), job());
    println!("   {}\n   {}", first?, second.unwrap_err());
    Ok(())
}
