//! What heeler costs in memory: what the allocator has given out, and what the kernel says of the process.
//!
//! - `memory.at_rest.anonymous`: what the process grows by when it is given heeler, until the first report.
//! - `memory.naming.anonymous`: the same, at most, while the stacks of the first report are named.
//! - `memory.{first_report,million_requests,thousand_reports}.heap`: what there is more than before heeler, afterwards.
//!
//! The same is a test for a binary of 300 MB (`tests/memory.rs`), which prints this table, too.
//!
//! ```text
//! cargo bench -p benches --bench memory
//! ```

#[path = "common/mod.rs"]
mod common;
#[path = "../tests/common/memory.rs"]
mod memory;

use common::{at_most, pick};
use memory::{Memory, mb};

fn main() {
    let life = memory::live(pick(1_000_000, 100_000), 1_000);
    let heap = |memory: Memory| mb(memory.heap.saturating_sub(life.before.heap));
    at_most("memory.at_rest.anonymous.mb", mb(life.at_rest.anonymous.saturating_sub(life.before.anonymous)), 3.0);
    at_most("memory.at_rest.heap.mb", heap(life.at_rest), 2.0);
    at_most("memory.naming.anonymous.mb", mb(life.naming.anonymous.saturating_sub(life.before.anonymous)), 64.0);
    at_most("memory.first_report.heap.mb", heap(life.first_report), 3.0);
    at_most("memory.million_requests.heap.mb", heap(life.many_requests), 3.0);
    at_most("memory.thousand_reports.heap.mb", heap(life.many_reports), 3.0);
}
