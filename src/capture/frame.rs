//! One symbolized frame of a stack.

use serde::{Deserialize, Serialize};

use crate::text::escape;
use crate::text::units::at;

/// Room for any name that a compiler makes. A longer one was made to be long.
const MAX_NAME: usize = 16 * 1024;

/// Few frames were left by a tail call, and the others need not say so.
fn is_false(flag: &bool) -> bool {
    !flag
}

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
    /// [`Report::symbolize`](crate::Report::symbolize). It is a return address, except in the first frame of a thread
    /// and in a frame that was left by a [tail call](Self::tail_call).
    pub address: String,
    /// Whether it is the application's own code: not std, and not from a registry or git dependency.
    pub own: bool,
    /// Whether it was inlined into the next frame.
    pub inlined: bool,
    /// Whether the function is no longer on the stack, because its last action was a tail call. The call instruction in
    /// the next frame shows that it was called. Line and address are those of the function's start.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tail_call: bool,
    /// Equal for frames of the same function, and of nothing else: all async blocks of a function have its
    /// [name](Self::function). Zero if that isn't known.
    #[serde(skip)]
    pub(crate) identity: u64,
}

impl Frame {
    /// Returns the function, or else its place, or else its address. Control characters, line ends, text-direction
    /// overrides and invisible characters are escaped, as in `\u{202e}`. Never empty. Not shortened up to 16,384
    /// characters.
    pub(crate) fn name(&self) -> String {
        let name = self.function.clone().filter(|function| !function.is_empty());
        let name = name.or_else(|| at(self.file.as_deref(), self.line)).unwrap_or_else(|| {
            let address = if self.address.is_empty() { "unknown" } else { &self.address };
            let module = self.module.as_ref().map(|module| format!(" in {module}")).unwrap_or_default();
            format!("{address}{module}")
        });
        match escape(&name, MAX_NAME).into_owned() {
            empty if empty.is_empty() => "unknown".to_owned(),
            name => name,
        }
    }
}
