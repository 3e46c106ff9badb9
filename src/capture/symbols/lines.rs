//! Files and lines, from a unit's line program.

use std::collections::HashMap;

use gimli::AttributeValue;

use super::object_file::{Bytes, Dwarf, Unit};

/// A file's index in the unit's list, and a line.
type Row = (u64, Option<u32>);

/// Returns a line as a report has it. The compiler uses zero for "none".
pub(super) fn number(line: u64) -> Option<u32> {
    u32::try_from(line).ok().filter(|line| *line > 0)
}

/// Returns the file that an attribute names.
pub(super) fn file_index(value: AttributeValue<Bytes<'_>>) -> Option<u64> {
    match value {
        AttributeValue::FileIndex(index) => Some(index),
        other => other.udata_value(),
    }
}

/// Returns the file and line of each of `addresses`, which ascend.
pub(super) fn find(unit: &Unit<'_>, addresses: &[u64]) -> Vec<Option<Row>> {
    let mut found = vec![None; addresses.len()];
    let Some(program) = unit.line_program.clone() else { return found };
    let mut rows = program.rows();
    // The previous row of the same sequence, and where that sequence starts.
    let mut before: Option<(u64, Row)> = None;
    let mut start = 0;
    while let Ok(Some((_, row))) = rows.next_row() {
        let address = row.address();
        match before {
            // A sequence of code that the linker has dropped starts at zero.
            Some((from, line)) if start != 0 && from < address => {
                let first = addresses.partition_point(|address| *address < from);
                for at in first..addresses.len() {
                    if addresses[at] >= address {
                        break;
                    }
                    found[at].get_or_insert(line);
                }
            }
            Some(_) => {}
            None => start = address,
        }
        let line = row.line().and_then(|line| number(line.get()));
        before = (!row.end_sequence()).then_some((address, (row.file_index(), line)));
    }
    found
}

/// The paths of a unit's files.
pub(super) struct Lines<'a> {
    dwarf: &'a Dwarf<'a>,
    unit: &'a Unit<'a>,
    known: HashMap<u64, Option<String>>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(dwarf: &'a Dwarf<'a>, unit: &'a Unit<'a>) -> Self {
        Self { dwarf, unit, known: HashMap::new() }
    }

    /// Returns the file's path, which is absolute if the compiler was told where it runs.
    pub(super) fn path(&mut self, file: u64) -> Option<String> {
        if let Some(known) = self.known.get(&file) {
            return known.clone();
        }
        let path = self.read(file);
        self.known.insert(file, path.clone());
        path
    }

    fn read(&self, file: u64) -> Option<String> {
        let header = self.unit.line_program.as_ref()?.header();
        let file = header.file(file)?;
        let text = |value| Some(self.dwarf.attr_string(self.unit, value).ok()?.to_string_lossy().into_owned());
        let mut path = self.unit.comp_dir.map(|directory| directory.to_string_lossy().into_owned()).unwrap_or_default();
        // Directory 0 is the one in which the compiler ran.
        if file.directory_index() != 0
            && let Some(directory) = file.directory(header)
        {
            append(&mut path, &text(directory)?);
        }
        append(&mut path, &text(file.path_name())?);
        Some(path)
    }
}

fn append(path: &mut String, part: &str) {
    if part.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(part);
}
