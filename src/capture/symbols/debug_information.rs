//! Functions, files and lines from DWARF, only from the units that cover the requested addresses.
//!
//! Each unit is read from start to end for all addresses in it, and nothing of it is kept. So symbolizing takes little
//! memory, however much debug information there is, and leaves none behind. `addr2line`, whose rules this follows,
//! indexes every unit first: 30 MB for 86 MB of `.debug_info`.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;

use gimli::{AttributeValue, DebugInfoOffset, constants as dw};

use super::lines::{self, Lines};
use super::object_file::{Bytes, Dwarf, Unit};
use super::split::with_split_part;

type Value<'a> = AttributeValue<Bytes<'a>>;
type UnitHeader<'a> = gimli::UnitHeader<Bytes<'a>>;
type Result<T> = std::result::Result<T, gimli::Error>;

/// How often one entry may refer to another for its name.
const MAX_REFERENCES: usize = 16;

/// An address of the file, and what is known about it.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// The address of an instruction. For a return address, it is that of the call.
    pub(super) address: u64,
    /// Innermost first: the functions inlined there, then the one that has the code.
    pub(super) places: Vec<Place>,
}

/// A function, and where the address is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) function: Option<Name>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// A function's name as it is in the debug information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// Mangled, with the path.
    Linkage(String),
    /// Only the last part, which may not tell much: `{async_fn#0}`.
    Plain(String),
}

/// Fills in the places of `probes`, which ascend by address. What the debug information does not contain stays empty.
/// `path` is the module's. Parts that were split off are beside it.
pub(super) fn name(dwarf: &Dwarf<'_>, path: &Path, probes: &mut [Probe]) {
    let references = References::new(dwarf);
    for (offset, covered) in units(dwarf, probes) {
        // Units may claim another's code. The first that knows a function there is right.
        let is_open = |at: &usize| !probes[*at].places.iter().any(|place| place.function.is_some());
        let covered: Vec<usize> = covered.into_iter().filter(is_open).collect();
        if covered.is_empty() {
            continue;
        }
        let Ok(unit) = dwarf.unit_header(offset).and_then(|header| dwarf.unit(header)) else { continue };
        name_in_unit(&references, &unit, path, probes, &covered);
    }
}

fn name_in_unit(references: &References<'_>, unit: &Unit<'_>, path: &Path, probes: &mut [Probe], covered: &[usize]) {
    let addresses: Vec<u64> = covered.iter().map(|at| probes[*at].address).collect();
    let chains = if unit.dwo_id.is_none() {
        calls(references, unit, &addresses)
    } else {
        with_split_part(references.dwarf, unit, path, |dwarf, unit| calls(&References::new(dwarf), unit, &addresses))
    };
    let lines = lines::find(unit, &addresses);
    let mut files = Lines::new(references.dwarf, unit);
    for ((at, chain), line) in covered.iter().zip(&chains).zip(lines) {
        let mut place = Place::default();
        if let Some((file, line)) = line {
            (place.file, place.line) = (files.path(file), line);
        }
        let places = &mut probes[*at].places;
        if chain.is_empty() && !places.is_empty() {
            continue;
        }
        places.clear();
        for call in chain.iter().rev() {
            place.function = call.function.clone();
            let file = call.file.and_then(|file| files.path(file));
            places.push(std::mem::replace(&mut place, Place { function: None, file, line: call.line }));
        }
        if chain.is_empty() && (place.file.is_some() || place.line.is_some()) {
            places.push(place);
        }
    }
}

/// Returns whether functions of the unit around `address` have their full names, including inlined ones. `None` if
/// there is no such unit.
pub(super) fn has_full_names(dwarf: &Dwarf<'_>, path: &Path, address: u64) -> Option<bool> {
    let (offset, _) = units(dwarf, &[Probe { address, places: Vec::new() }]).pop_first()?;
    let unit = dwarf.unit_header(offset).and_then(|header| dwarf.unit(header)).ok()?;
    Some(with_split_part(dwarf, &unit, path, |_, unit| has_linkage_names(unit).unwrap_or(false)))
}

fn has_linkage_names(unit: &Unit<'_>) -> Result<bool> {
    let mut entries = unit.entries_raw(None)?;
    while !entries.is_empty() {
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        if abbreviation.attributes().iter().any(|spec| spec.name() == dw::DW_AT_linkage_name) {
            return Ok(true);
        }
        entries.skip_attributes(abbreviation.attributes())?;
    }
    Ok(false)
}

/// Returns the units that cover the addresses, with the indices of those they cover.
pub(super) fn units(dwarf: &Dwarf<'_>, probes: &[Probe]) -> BTreeMap<DebugInfoOffset, Vec<usize>> {
    let mut found: BTreeMap<DebugInfoOffset, Vec<usize>> = BTreeMap::new();
    let mut is_missing = vec![true; probes.len()];
    let mut note = |unit: DebugInfoOffset, range: &gimli::Range, is_missing: &mut [bool]| {
        // Code that the linker has dropped starts at zero.
        for at in covered(probes, |probe| probe.address, range).filter(|_| range.begin != 0) {
            is_missing[at] = false;
            let of_unit = found.entry(unit).or_default();
            if !of_unit.contains(&at) {
                of_unit.push(at);
            }
        }
    };
    let mut indexed = HashSet::new();
    for header in dwarf.debug_aranges.headers().map_while(Result::ok) {
        let unit = header.debug_info_offset();
        // Entries that make no sense have been seen among good ones, as `addr2line` notes.
        let (mut good, mut bad) = (0, 0);
        for range in header.entries() {
            match range {
                Ok(range) => {
                    good += 1;
                    note(unit, &range.range(), &mut is_missing);
                }
                Err(_) => bad += 1,
            }
        }
        if good > 0 && bad == 0 {
            indexed.insert(unit);
        }
    }
    if !is_missing.contains(&true) {
        return found;
    }
    // Other compilers leave that index out.
    for header in dwarf.units().map_while(Result::ok) {
        let Some(offset) = header.debug_info_offset().filter(|offset| !indexed.contains(offset)) else { continue };
        let Ok(unit) = dwarf.unit(header) else { continue };
        let Ok(ranges) = dwarf.unit_ranges(&unit) else { continue };
        for range in ranges.filter_map(Result::ok) {
            note(offset, &range, &mut is_missing);
        }
        if !is_missing.contains(&true) {
            break;
        }
    }
    found
}

/// Returns which of `list`, which ascends, are in `range`.
fn covered<T>(list: &[T], address: impl Fn(&T) -> u64, range: &gimli::Range) -> std::ops::Range<usize> {
    let from = list.partition_point(|entry| address(entry) < range.begin);
    let to = list.partition_point(|entry| address(entry) < range.end);
    from..to.max(from)
}

/// A function that covers an address, and where it was inlined into the one around it.
#[derive(Debug)]
struct Call {
    function: Option<Name>,
    file: Option<u64>,
    line: Option<u32>,
}

/// Returns which functions cover each of `addresses`, outermost first.
fn calls(references: &References<'_>, unit: &Unit<'_>, addresses: &[u64]) -> Vec<Vec<Call>> {
    let mut chains: Vec<Vec<Function<'_>>> = addresses.iter().map(|_| Vec::new()).collect();
    // What was found before an error is as good as without it.
    let _ = functions(references.dwarf, unit, addresses, &mut chains);
    let call = |function: Function<'_>| Call {
        function: references.name_of(unit, &function.reference, MAX_REFERENCES),
        file: function.call_file,
        line: function.call_line,
    };
    chains.into_iter().map(|chain| chain.into_iter().map(call).collect()).collect()
}

/// The entry of a function that covers an address.
#[derive(Debug, Clone)]
struct Function<'a> {
    /// Distinguishes it from other entries of the unit.
    number: usize,
    reference: Reference<'a>,
    call_file: Option<u64>,
    call_line: Option<u32>,
}

/// Where an entry gets its name from.
#[derive(Debug, Default, Clone)]
struct Reference<'a> {
    linkage: Option<Value<'a>>,
    name: Option<Value<'a>>,
    origin: Option<Value<'a>>,
}

impl<'a> Reference<'a> {
    fn note(&mut self, attribute: dw::DwAt, value: Value<'a>) {
        match attribute {
            dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => self.linkage = Some(value),
            dw::DW_AT_name => self.name = Some(value),
            dw::DW_AT_abstract_origin | dw::DW_AT_specification => self.origin = Some(value),
            _ => {}
        }
    }
}

/// The addresses that an entry covers.
#[derive(Debug, Default)]
struct Extent<'a> {
    low: Option<u64>,
    high: Option<u64>,
    size: Option<u64>,
    ranges: Option<Value<'a>>,
}

impl<'a> Extent<'a> {
    fn note(&mut self, dwarf: &Dwarf<'a>, unit: &Unit<'a>, attribute: dw::DwAt, value: Value<'a>) -> Result<()> {
        match attribute {
            dw::DW_AT_low_pc => self.low = dwarf.attr_address(unit, value)?,
            dw::DW_AT_high_pc => match value.udata_value() {
                Some(size) => self.size = Some(size),
                None => self.high = dwarf.attr_address(unit, value)?,
            },
            dw::DW_AT_ranges => self.ranges = Some(value),
            _ => {}
        }
        Ok(())
    }

    fn each(self, dwarf: &Dwarf<'a>, unit: &Unit<'a>, mut visit: impl FnMut(u64, u64)) -> Result<()> {
        if let Some(ranges) = self.ranges {
            if let Some(mut ranges) = dwarf.attr_ranges(unit, ranges)? {
                while let Some(range) = ranges.next()? {
                    visit(range.begin, range.end);
                }
            }
        } else if let Some(low) = self.low
            && let Some(high) = self.high.or_else(|| low.checked_add(self.size?))
        {
            visit(low, high);
        }
        Ok(())
    }
}

/// Fills in, outermost first, which functions cover each of `addresses`.
fn functions<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    addresses: &[u64],
    chains: &mut [Vec<Function<'a>>],
) -> Result<()> {
    let mut entries = unit.entries_raw(None)?;
    // The functions around the entry that cover any of them, by depth and number. What is inlined elsewhere is skipped.
    let mut around: Vec<(isize, usize)> = Vec::new();
    let mut number = 0;
    while !entries.is_empty() {
        let depth = entries.next_depth();
        while around.last().is_some_and(|(outer, _)| depth <= *outer) {
            around.pop();
        }
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        let is_inlined = match abbreviation.tag() {
            dw::DW_TAG_subprogram => false,
            dw::DW_TAG_inlined_subroutine if !around.is_empty() => true,
            _ => {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
        };
        let (mut reference, mut extent) = (Reference::default(), Extent::default());
        let (mut call_file, mut call_line) = (None, None);
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            match attribute.name() {
                dw::DW_AT_call_file => call_file = lines::file_index(attribute.value()),
                dw::DW_AT_call_line => call_line = attribute.udata_value().and_then(lines::number),
                name => {
                    let value = attribute.value();
                    reference.note(name, value);
                    extent.note(dwarf, unit, name, value)?;
                }
            }
        }
        let mut found = Vec::new();
        extent.each(dwarf, unit, |begin, end| {
            if begin != 0 {
                found.extend(covered(addresses, |address| *address, &gimli::Range { begin, end }));
            }
        })?;
        if found.is_empty() {
            continue;
        }
        for at in found {
            let chain = &mut chains[at];
            chain.retain(|outer| is_inlined && around.iter().any(|(_, number)| *number == outer.number));
            chain.push(Function { number, reference: reference.clone(), call_file, call_line });
        }
        around.push((depth, number));
        number += 1;
    }
    Ok(())
}

/// Looks up names that are outside the function's entry.
struct References<'a> {
    dwarf: &'a Dwarf<'a>,
    /// All units, read when one of them refers to another, as link-time optimization makes them do.
    headers: OnceCell<Vec<UnitHeader<'a>>>,
    /// Some units that were referred to.
    units: RefCell<HashMap<usize, Rc<Unit<'a>>>>,
}

/// How many units that others refer to are kept while names are looked up.
const MAX_UNITS: usize = 64;

impl<'a> References<'a> {
    fn new(dwarf: &'a Dwarf<'a>) -> Self {
        Self { dwarf, headers: OnceCell::new(), units: RefCell::default() }
    }

    /// Returns the name of an entry, or of one that it refers to.
    fn name_of(&self, unit: &Unit<'_>, reference: &Reference<'_>, left: usize) -> Option<Name> {
        let text = |value: Value<'_>| {
            let text = self.dwarf.attr_string(unit, value).ok()?.to_string_lossy().into_owned();
            (!text.is_empty()).then_some(text)
        };
        if let Some(linkage) = reference.linkage.and_then(text) {
            return Some(Name::Linkage(linkage));
        }
        if let Some(name) = reference.name.and_then(text) {
            return Some(Name::Plain(name));
        }
        let left = left.checked_sub(1)?;
        match reference.origin? {
            AttributeValue::UnitRef(offset) => {
                let entry = unit.entry(offset).ok()?;
                self.name_of(unit, &reference_of(&entry), left)
            }
            AttributeValue::DebugInfoRef(offset) => {
                let unit = self.unit_around(offset)?;
                let entry = unit.entry(offset.to_unit_offset(&unit.header)?).ok()?;
                self.name_of(&unit, &reference_of(&entry), left)
            }
            _ => None,
        }
    }

    fn unit_around(&self, offset: DebugInfoOffset) -> Option<Rc<Unit<'a>>> {
        let headers = self.headers.get_or_init(|| self.dwarf.units().map_while(Result::ok).collect());
        let start = |header: &UnitHeader<'_>| header.debug_info_offset().map_or(usize::MAX, |start| start.0);
        let header = &headers[headers.partition_point(|header| start(header) <= offset.0).checked_sub(1)?];
        let mut units = self.units.borrow_mut();
        if let Some(unit) = units.get(&start(header)) {
            return Some(unit.clone());
        }
        if units.len() >= MAX_UNITS {
            units.clear();
        }
        let unit = Rc::new(self.dwarf.unit(*header).ok()?);
        units.insert(start(header), unit.clone());
        Some(unit)
    }
}

fn reference_of<'a>(entry: &gimli::DebuggingInformationEntry<Bytes<'a>>) -> Reference<'a> {
    let mut reference = Reference::default();
    for attribute in entry.attrs() {
        reference.note(attribute.name(), attribute.value());
    }
    reference
}
