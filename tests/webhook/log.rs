//! What is logged meanwhile.

use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

/// Collects what is logged, as text.
#[derive(Default, Clone)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What the whole process logs meanwhile: reports are delivered on a thread of heeler's.
pub(crate) fn logged(run: impl FnOnce()) -> String {
    static LINES: std::sync::OnceLock<Lines> = std::sync::OnceLock::new();
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let lines = LINES.get_or_init(|| {
        let lines = Lines::default();
        tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).init();
        lines
    });
    lines.0.lock().unwrap().clear();
    run();
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}
