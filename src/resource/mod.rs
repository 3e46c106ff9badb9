//! What work waits for, and who holds it: the application says so by one word around what it shares. See [`acquire`].

mod acquire;
mod held;
mod initialize;

pub use acquire::{Acquire, WaitFor, acquire, acquire_blocking, acquire_shared, wait_for};
pub use held::{Acquired, Held};
pub use initialize::{Initialize, initialize};
