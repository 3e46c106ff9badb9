//! Chromium, where there is one: the one that `CHROMIUM` names, or `chromium`, `chromium-browser` or `google-chrome` on `PATH`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The browser, if there is one.
fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CHROMIUM") {
        return Some(path.into());
    }
    let directories: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().flat_map(|name| directories.iter().map(move |path| path.join(name))).find(|path| path.is_file())
}

/// Ends with the test.
pub(crate) struct Chromium(Child);

impl Chromium {
    /// Starts it without a window. All that it keeps is in `directory`. Without one, this says so, and there is `None`.
    pub(crate) fn start(directory: &Path, window: (u32, u32), url: &str) -> Option<Self> {
        let Some(chromium) = find() else {
            println!("skipped: no Chromium found, set CHROMIUM to its path");
            return None;
        };
        let mut command = Command::new(chromium);
        // It leaves files where temporary ones go.
        command.env("TMPDIR", directory);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.arg(format!("--window-size={},{}", window.0, window.1));
        command.arg(format!("--user-data-dir={}", directory.display())).arg(url);
        Some(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()))
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
