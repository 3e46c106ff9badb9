//! What the process logs.

use std::sync::{Arc, Mutex};

/// What the process has logged since the start of this, as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Everything from now on; for a process that nothing else logs in.
    pub(crate) fn start() -> Self {
        Self::begin(false)
    }

    /// The same, with the name of the thread in each line.
    pub(crate) fn start_with_threads() -> Self {
        Self::begin(true)
    }

    fn begin(threads: bool) -> Self {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_thread_names(threads);
        subscriber.with_writer(move || writer.clone()).init();
        log
    }

    /// The lines that say this.
    pub(crate) fn lines_with(&self, words: &str) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}
