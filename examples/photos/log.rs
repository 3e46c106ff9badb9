//! What goes to the terminal: everybody's warnings (reports are warnings) and heeler's messages about itself.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// During the tour each report becomes a line of its table, and need not be logged as well.
static TOUR: AtomicBool = AtomicBool::new(false);

pub(crate) fn start() {
    let wanted = dynamic_filter_fn(|metadata, _| {
        let heeler = metadata.target().starts_with("heeler");
        let most = match (heeler, TOUR.load(Ordering::Relaxed)) {
            (true, true) => Level::ERROR,
            (true, false) => Level::INFO,
            (false, _) => Level::WARN,
        };
        *metadata.level() <= most
    });
    let terminal = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(wanted);
    tracing_subscriber::registry().with(terminal).init();
}

/// Keeps reports out of the log until dropped.
pub(crate) struct Quiet(());

impl Quiet {
    pub(crate) fn start() -> Self {
        TOUR.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        TOUR.store(false, Ordering::Relaxed);
    }
}
