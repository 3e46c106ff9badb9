//! Debug information that the linker has not put into the executable: `split-debuginfo = "packed"` or `"unpacked"`.

use std::path::{Path, PathBuf};

use super::object_file::{Bytes, Dwarf, ObjectFile, Unit};

/// Calls `then` with the part of a unit that was split off, or with `unit` itself if none was or it cannot be read.
pub(super) fn with_split_part<T>(
    dwarf: &Dwarf<'_>,
    unit: &Unit<'_>,
    module: &Path,
    then: impl FnOnce(&Dwarf<'_>, &Unit<'_>) -> T,
) -> T {
    if unit.dwo_id.is_none() {
        return then(dwarf, unit);
    }
    let package = read(&with_suffix(module, ".dwp"));
    if let Some(package) = &package
        && let Some((dwarf, unit)) = in_package(package, dwarf, unit)
    {
        return then(&dwarf, &unit);
    }
    let file = path(dwarf, unit).and_then(|path| read(&path));
    match file.as_ref().and_then(|file| in_file(file, dwarf, unit)) {
        Some((dwarf, unit)) => then(&dwarf, &unit),
        None => then(dwarf, unit),
    }
}

fn read(path: &Path) -> Option<ObjectFile> {
    let mut file = ObjectFile::read(path)?;
    file.inflate().is_ok().then_some(file)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn in_package<'a>(file: &'a ObjectFile, parent: &Dwarf<'a>, skeleton: &Unit<'a>) -> Option<(Dwarf<'a>, Unit<'a>)> {
    let section =
        |id: gimli::SectionId| Ok::<_, gimli::Error>(id.dwo_name().map(|name| file.section(name)).unwrap_or_default());
    let package = gimli::DwarfPackage::load(section, Bytes::default()).ok()?;
    let part = package.find_cu(skeleton.dwo_id?, parent).ok()??;
    first_unit(part, skeleton)
}

fn in_file<'a>(file: &'a ObjectFile, parent: &Dwarf<'a>, skeleton: &Unit<'a>) -> Option<(Dwarf<'a>, Unit<'a>)> {
    let mut part = file.sections(|id| id.dwo_name());
    part.make_dwo(parent);
    first_unit(part, skeleton)
}

fn first_unit<'a>(part: Dwarf<'a>, skeleton: &Unit<'a>) -> Option<(Dwarf<'a>, Unit<'a>)> {
    let header = part.units().next().ok()??;
    let mut unit = part.unit(header).ok()?;
    if unit.dwo_id != skeleton.dwo_id {
        return None;
    }
    unit.copy_relocated_attributes(skeleton);
    Some((part, unit))
}

fn path(dwarf: &Dwarf<'_>, unit: &Unit<'_>) -> Option<PathBuf> {
    let name = dwarf.attr_string(unit, unit.dwo_name().ok()??).ok()?.to_string_lossy().into_owned();
    let directory = unit.comp_dir.map(|directory| directory.to_string_lossy().into_owned()).unwrap_or_default();
    Some(Path::new(&directory).join(name))
}
