//! A sink that passes every report on.

use std::sync::Mutex;
use std::sync::mpsc::Sender;

use heeler::Report;
use heeler::report::Sink;

pub(crate) struct Collected(Mutex<Sender<Report>>);

impl Collected {
    pub(crate) fn sending_to(sender: Sender<Report>) -> Self {
        Self(Mutex::new(sender))
    }
}

impl Sink for Collected {
    fn name(&self) -> &str {
        "collected"
    }

    fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
        let _ = self.0.lock().unwrap().send(report.clone());
        Ok(())
    }
}
