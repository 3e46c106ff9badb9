//! Reports for the benchmark itself.

use std::error::Error;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use heeler::{Report, Reports, Sink};

/// Passes reports on, with the time of their arrival.
struct Pass(Sender<(SystemTime, Report)>);

impl Sink for Pass {
    fn name(&self) -> &str {
        "pass"
    }

    fn deliver(&self, report: &Report) -> Result<(), Box<dyn Error + Send + Sync>> {
        let now = SystemTime::now();
        Ok(self.0.send((now, report.clone()))?)
    }
}

/// Reports that hold nothing back, and where they arrive.
pub(crate) fn reports() -> (Reports, Receiver<(SystemTime, Report)>) {
    let (sender, receiver) = channel();
    let reports = Reports::builder().log(false).sink(Pass(sender)).repeat_after(Duration::ZERO).build();
    (reports.expect("reports"), receiver)
}
