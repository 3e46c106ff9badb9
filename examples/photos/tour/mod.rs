//! The tour: a client that asks for every slow page, and checks that a report names the function to blame.

mod causes;
mod evidence;
#[cfg(feature = "email")]
mod mail;
mod table;
mod walk;

pub(crate) use causes::CAUSES;
pub(crate) use walk::walk;
