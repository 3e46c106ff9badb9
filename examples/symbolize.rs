//! Names a report of a stripped binary, from the binary before it was stripped or from its separate debug file.
//!
//! ```text
//! cargo run --example symbolize -- slow_request_….json target/release/my-service
//! cargo run --example symbolize -- slow_request_….json my-service.debug named.json
//! ```
//!
//! Prints the named report as text, and writes it as JSON into the third file, if there is one. The report and the
//! binary belong together if they have the same build id. Frames of other modules stay as they are. For those, run it
//! again with `named.json` and the library.
//!
//! To keep the debug information when you strip a binary (`strip = true` in Cargo.toml leaves nothing to keep):
//!
//! ```text
//! objcopy --only-keep-debug my-service my-service.debug && strip my-service
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;

use addr2line::Loader;
use heeler::Report;
use heeler::report::{Frame, Location};
use object::Object as _;

/// Returns the report in a file (schema 1 or 2), named from a binary.
pub(crate) fn named(report: &Path, binary: &Path) -> Result<Report, Box<dyn Error>> {
    let mut report: Report = serde_json::from_slice(&read(report)?)?;
    let build_id = build_id(binary)?;
    let frames = || report.stacks.iter().flat_map(|stack| &stack.frames);
    if !frames().any(|frame| frame.build_id.as_ref() == Some(&build_id)) {
        let about = |frame: &Frame| Some(format!("{} {}", frame.module.as_deref()?, frame.build_id.as_deref()?));
        let known: BTreeSet<String> = frames().filter_map(about).collect();
        let known = Vec::from_iter(known).join(", ");
        let known = if known.is_empty() { "of modules without a build id".to_owned() } else { format!("of {known}") };
        return Err(format!("{} has the build id {build_id}, but the report is {known}", binary.display()).into());
    }
    let loader = Loader::new(binary).map_err(|error| format!("{} cannot be read: {error}", binary.display()))?;
    let mut has_names = false;
    report.symbolize(|frame, address| {
        let is_here = frame.build_id.as_ref() == Some(&build_id);
        // An address without a name stays as it is.
        let found = if is_here { locations(&loader, address).unwrap_or_default() } else { Vec::new() };
        has_names |= !found.is_empty();
        found
    });
    if !has_names {
        return Err(format!("{} has neither debug information nor symbols: is it stripped?", binary.display()).into());
    }
    Ok(report)
}

/// Returns the functions at an address: those that were inlined there, innermost first, then the one that has the code.
fn locations(loader: &Loader, address: u64) -> Result<Vec<Location>, Box<dyn Error>> {
    let mut found = Vec::new();
    let mut frames = loader.find_frames(address)?;
    while let Some(frame) = frames.next()? {
        let function = frame.function.as_ref().and_then(|name| name.demangle().ok());
        let (file, line) = frame.location.map_or((None, None), |place| (place.file.map(str::to_owned), place.line));
        found.push(Location::new(function.map(Into::into), file, line));
    }
    let symbol = || loader.find_symbol(address).map(|name| addr2line::demangle_auto(name.into(), None).into_owned());
    match found.last_mut() {
        Some(physical) => physical.function = physical.function.take().or_else(symbol),
        None => found.extend(symbol().map(|function| Location::new(Some(function), None, None))),
    }
    Ok(found)
}

/// Returns a binary's GNU build id, in hexadecimal.
fn build_id(binary: &Path) -> Result<String, Box<dyn Error>> {
    // Reads only what is needed from a large file.
    let opened = fs::File::open(binary).map_err(|error| format!("{} cannot be read: {error}", binary.display()))?;
    let bytes = object::ReadCache::new(opened);
    let file = object::File::parse(&bytes).map_err(|error| format!("{} is no binary: {error}", binary.display()))?;
    let id = file
        .build_id()?
        .ok_or_else(|| format!("{} has no build id: link with `-C link-arg=-Wl,--build-id`", binary.display()))?;
    Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (report, binary, json) = match &arguments[..] {
        [report, binary] => (report, binary, None),
        [report, binary, json] => (report, binary, Some(json)),
        _ => return Err("usage: symbolize <report.json> <unstripped binary or debug file> [<named.json>]".into()),
    };
    let report = named(report.as_ref(), binary.as_ref())?;
    if let Some(json) = json {
        fs::write(json, report.to_json() + "\n")?;
    }
    print!("{}", report.to_text());
    Ok(())
}
