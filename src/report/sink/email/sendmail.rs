//! Sends mails through the system's `sendmail`.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use lettre::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::report::sink::SinkError;
use crate::text::escape::escape;

/// How much of its output is shown, in characters.
const MAX_WORDS: usize = 200;

/// Exit codes, as in `sysexits.h`, that mean that this mail will never be taken: usage, data, no user, no host.
const REFUSED: [i32; 4] = [64, 65, 67, 68];

/// How long to wait for the rest of its output after it exits: a child of its own may keep the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs the program, and ends it if it takes longer than `timeout`.
pub(super) async fn send(
    command: &OsString,
    from: &Address,
    to: &[Address],
    mail: &[u8],
    timeout: Duration,
) -> Result<(), SinkError> {
    let mut process = Command::new(command);
    process.arg("-i").arg("-f").arg(from).arg("--").args(to);
    process.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let name = command.to_string_lossy();
    let mut child = process.spawn().map_err(|error| SinkError::transient(format!("{name} does not start: {error}")))?;
    let mut words = child.stderr.take().map(|stderr| {
        tokio::spawn(async move {
            let mut words = Vec::new();
            let mut stderr = stderr.take(4096);
            let _ = stderr.read_to_end(&mut words).await;
            // Read the rest, too, so that the program doesn't block on a full pipe.
            let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
            words
        })
    });
    let run = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A program that exits without reading has a reason, and an exit code.
            let _ = stdin.write_all(mail).await;
        }
        child.wait().await
    };
    let ended = tokio::time::timeout(timeout, run).await;
    let said = match &mut words {
        Some(task) if ended.is_ok() => match tokio::time::timeout(LAST_WORDS, &mut *task).await {
            Ok(words) => words.unwrap_or_default(),
            Err(_) => Vec::new(),
        },
        _ => Vec::new(),
    };
    if let Some(task) = words {
        task.abort();
    }
    let status = match ended {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(SinkError::transient(format!("{name} was lost: {error}"))),
        Err(_) => {
            let _ = child.start_kill();
            let _ = tokio::time::timeout(timeout, child.wait()).await;
            return Err(SinkError::transient(format!("{name} was still running after {timeout:?}, and was ended")));
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let failure = format!("{name} ended with {status}: {}", escape(said.trim(), MAX_WORDS));
    let refused = status.code().is_some_and(|code| REFUSED.contains(&code));
    Err(if refused { SinkError::permanent(failure) } else { SinkError::transient(failure) })
}
