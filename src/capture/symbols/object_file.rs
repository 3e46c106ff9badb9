//! The file of an executable or library, open only while names are looked up in it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapMut};
use miniz_oxide::inflate::decompress_slice_iter_to_slice as inflate;
use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{CompressionFormat, NativeEndian, Object as _, ObjectSection as _};

use super::ModuleName;
use crate::capture::modules::Modules;

type Elf<'a> = ElfFile<'a, FileHeader64<NativeEndian>>;

/// How many bytes of one file are taken into memory at most. This concerns sections that are compressed, and files that
/// the program has not mapped itself.
const MAX_IN_MEMORY: usize = 48 << 20;

/// Where separate debug information is installed.
const DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// Why a file's debug information is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Compressed by something other than zlib, or larger than [`MAX_IN_MEMORY`].
    Compressed,
}

/// An ELF file of the process's own class and byte order.
#[derive(Debug)]
pub(super) struct ObjectFile {
    content: Content,
    /// Sections that are compressed in the file.
    inflated: Vec<(String, MmapMut)>,
}

#[derive(Debug)]
enum Content {
    /// A file that the program runs. The kernel can drop its pages.
    Mapped(Mmap),
    /// Any other file. Somebody may cut it short while it is read, and a mapping would fault.
    Read { bytes: MmapMut, len: usize },
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Read { bytes, len } => &bytes[..*len],
        }
    }
}

impl ObjectFile {
    /// Opens the file of `module`. `None` if it cannot be opened or has been replaced since it was loaded.
    pub(super) fn open(module: &ModuleName) -> Option<Self> {
        // For the executable, the kernel knows which file is running, even if another is at its path by now.
        let is_executable = Modules::current().list.first().is_some_and(|first| *first.name == *module);
        let running = if is_executable { open_file(Path::new("/proc/self/exe")) } else { None };
        let file = match running {
            Some(running) => running,
            None if module.build_id.is_none() && is_deleted(&module.path) => return None,
            None => open_file(Path::new(&module.path))?,
        };
        Self::map(&file)?.with_build_id(module.build_id.as_deref())
    }

    /// Opens the debug information that was taken out of `module`'s file, if it is installed where debuggers look for
    /// it.
    pub(super) fn open_separate(&self, module: &ModuleName) -> Option<Self> {
        let build_id = module.build_id.as_deref()?;
        let by_id = build_id.split_at_checked(2).map(|(first, rest)| {
            PathBuf::from(DEBUG_DIRECTORY).join(".build-id").join(first).join(format!("{rest}.debug"))
        });
        let directory = Path::new(&module.path).parent()?;
        let link = self.elf()?.gnu_debuglink().ok().flatten();
        let link = link.and_then(|(name, _)| std::str::from_utf8(name).ok()).filter(|name| !name.contains('/'));
        let by_link = link.into_iter().flat_map(|name| {
            let installed = directory.strip_prefix("/").map(|rest| Path::new(DEBUG_DIRECTORY).join(rest).join(name));
            [Some(directory.join(name)), Some(directory.join(".debug").join(name)), installed.ok()]
        });
        let mut candidates = by_id.into_iter().chain(by_link.flatten());
        // The build id proves that they belong together. To check the link's checksum, all of it would have to be read.
        candidates.find_map(|path| Self::read(&path)?.with_build_id(Some(build_id)).filter(Self::has_debug_information))
    }

    /// Maps a file that the program runs.
    fn map(file: &File) -> Option<Self> {
        // SAFETY: mapped for reading, privately. Nobody can cut the running executable short, and cutting a loaded
        // library short ends the program: see the table in `memory.rs`.
        let map = unsafe { Mmap::map(file) }.ok()?;
        Self::of(Content::Mapped(map))
    }

    /// Reads a file that may belong to anybody, if it is not too large.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut file = open_file(path)?;
        let len = usize::try_from(file.metadata().ok()?.len()).ok().filter(|len| *len <= MAX_IN_MEMORY)?;
        // Not on the heap, which may not return the memory.
        let mut bytes = MmapMut::map_anon(len.max(1)).ok()?;
        file.read_exact(&mut bytes[..len]).ok()?;
        Self::of(Content::Read { bytes, len })
    }

    fn of(content: Content) -> Option<Self> {
        let found = Self { content, inflated: Vec::new() };
        found.elf().is_some().then_some(found)
    }

    /// Returns the same file, unless its build id is another.
    fn with_build_id(self, expected: Option<&str>) -> Option<Self> {
        let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let is_same = expected.is_none() || self.elf()?.build_id().ok().flatten().map(hex).as_deref() == expected;
        is_same.then_some(self)
    }

    pub(super) fn elf(&self) -> Option<Elf<'_>> {
        Elf::parse(self.content.bytes()).ok()
    }

    pub(super) fn has_debug_information(&self) -> bool {
        self.elf().is_some_and(|elf| elf.section_by_name(".debug_info").is_some_and(|section| section.size() > 0))
    }

    /// Inflates the compressed sections, so that [`sections`](Self::sections) has them.
    ///
    /// # Errors
    ///
    /// If they are too large, or compressed in another way.
    pub(super) fn inflate(&mut self) -> Result<(), Unreadable> {
        let mut inflated = Vec::new();
        let in_memory = if let Content::Read { len, .. } = self.content { len } else { 0 };
        let mut room = MAX_IN_MEMORY - in_memory;
        let elf = self.elf();
        for section in elf.iter().flat_map(|elf| elf.sections()) {
            let Ok(name) = section.name() else { continue };
            if !name.starts_with(".debug_") || is_not_needed(name) {
                continue;
            }
            let Ok(data) = section.compressed_data() else { return Err(Unreadable::Compressed) };
            if data.format == CompressionFormat::None {
                continue;
            }
            let size = usize::try_from(data.uncompressed_size).unwrap_or(usize::MAX);
            if data.format != CompressionFormat::Zlib || size > room {
                return Err(Unreadable::Compressed);
            }
            room -= size;
            let mut bytes = MmapMut::map_anon(size.max(1)).map_err(|_| Unreadable::Compressed)?;
            if inflate(&mut bytes[..size], std::iter::once(data.data), true, false) != Ok(size) {
                return Err(Unreadable::Compressed);
            }
            inflated.push((name.to_owned(), bytes));
        }
        self.inflated = inflated;
        Ok(())
    }

    /// Returns a section's bytes, inflated. Empty if there is no such section.
    pub(super) fn section(&self, name: &str) -> Bytes<'_> {
        let inflated = self.inflated.iter().find(|(known, _)| known == name).map(|(_, bytes)| &bytes[..]);
        let in_file = || self.elf()?.section_by_name(name)?.data().ok();
        Bytes::new(inflated.or_else(in_file).unwrap_or_default(), gimli::NativeEndian)
    }

    /// Returns the debug information's sections, by the names that `named` gives them.
    pub(super) fn sections(&self, named: impl Fn(gimli::SectionId) -> Option<&'static str>) -> Dwarf<'_> {
        let load = |id| Ok::<_, gimli::Error>(named(id).map(|name| self.section(name)).unwrap_or_default());
        // The closure returns no error.
        gimli::Dwarf::load(load).unwrap_or_default()
    }
}

/// Opens a regular file. Never waits, not even for the other end of a pipe.
fn open_file(path: &Path) -> Option<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

/// Returns whether the file that was loaded from `path` is no longer there, so that another is there now.
fn is_deleted(path: &str) -> bool {
    let deleted = format!("{path} (deleted)");
    std::fs::read_to_string("/proc/self/maps").is_ok_and(|maps| maps.lines().any(|line| line.ends_with(&deleted)))
}

/// Returns whether it is a section for debuggers that has no functions or lines.
fn is_not_needed(name: &str) -> bool {
    matches!(
        name.strip_suffix(".dwo").unwrap_or(name),
        ".debug_loc"
            | ".debug_loclists"
            | ".debug_pubnames"
            | ".debug_pubtypes"
            | ".debug_gnu_pubnames"
            | ".debug_gnu_pubtypes"
            | ".debug_names"
            | ".debug_macro"
            | ".debug_macinfo"
            | ".debug_frame"
            | ".debug_types"
            | ".debug_gdb_scripts"
    )
}

/// Bytes of a file.
pub(super) type Bytes<'a> = gimli::EndianSlice<'a, gimli::NativeEndian>;
/// Debug information.
pub(super) type Dwarf<'a> = gimli::Dwarf<Bytes<'a>>;
/// A compilation unit.
pub(super) type Unit<'a> = gimli::Unit<Bytes<'a>>;
