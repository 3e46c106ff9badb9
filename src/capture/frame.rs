//! One frame of a stack, named.

use serde::{Deserialize, Serialize};

/// One function on a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Frame {
    /// The function as a reader knows it (`photos::slow::load_photos`); `None` if the binary has no name for it.
    pub function: Option<String>,
    /// The source file, as the compiler recorded it.
    pub file: Option<String>,
    /// The line in that file, counted from 1.
    pub line: Option<u32>,
    /// That line's text, where the file is at hand.
    pub source: Option<String>,
    /// The executable or library the code is in.
    pub module: Option<String>,
    /// That module's GNU build id, hexadecimal.
    pub build_id: Option<String>,
    /// The address in the module's file, as `0x1f00`, whatever it was loaded to: what `addr2line` takes. With the build id enough
    /// to name the frame later, see [`Report::symbolize`](crate::Report::symbolize). It is a return address, but for the first
    /// frame of a thread.
    pub address: String,
    /// The application's own code: not std, not from a registry or git dependency.
    pub own: bool,
    /// Inlined into the next frame.
    pub inlined: bool,
}
