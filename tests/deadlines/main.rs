//! Deadlines of calls, from what is left here to what the peer reads: through mock services for what a layer decides, and
//! over sockets for what two services make of it.
#![cfg(feature = "timebox")]

#[path = "../common/mod.rs"]
mod common;

mod grpc;
mod headers;
mod hyper;
mod layers;
mod limits;
mod profiles;
#[cfg(feature = "reqwest")]
mod reqwest;
mod server;

use std::error::Error;

use heeler::Interrupted;

type BoxError = Box<dyn Error + Send + Sync>;

/// The interruption in an error, which has to be there.
#[track_caller]
fn interrupted(error: &(dyn Error + 'static)) -> Interrupted {
    match Interrupted::find(error) {
        Some(interrupted) => interrupted.clone(),
        None => panic!("not an interruption: {error:?}"),
    }
}
