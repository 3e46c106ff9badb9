//! One symbolized frame of a stack.

use serde::{Deserialize, Serialize};

/// One function on a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Frame {
    /// The function's name as a reader knows it (`photos::slow::load_photos`). `None` if the binary has no name for it.
    pub function: Option<String>,
    /// The source file, as the compiler recorded it.
    pub file: Option<String>,
    /// The line in that file, counted from 1.
    pub line: Option<u32>,
    /// That line's text, if the file is available.
    pub source: Option<String>,
    /// The executable or library that the code is in.
    pub module: Option<String>,
    /// That module's GNU build id, hexadecimal.
    pub build_id: Option<String>,
    /// The address in the module's file, as `0x1f00`, which doesn't depend on where the module was loaded. `addr2line`
    /// takes it. Together with the build id it is enough to name the frame later, see
    /// [`Report::symbolize`](crate::Report::symbolize). It is a return address, except in the first frame of a thread.
    pub address: String,
    /// Whether it is the application's own code: not std, and not from a registry or git dependency.
    pub own: bool,
    /// Whether it was inlined into the next frame.
    pub inlined: bool,
}
