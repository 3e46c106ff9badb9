//! The executable and the libraries of this process, with what is needed to unwind through them.
//!
//! They are read from memory, under the loader's own lock (`dl_iterate_phdr`), so that they are what runs, even if a
//! deployment has replaced the file since. The executable's tables are used in place, because it is never unloaded. A
//! library's tables are copied, because it may be.

#[cfg(heeler_copies)]
pub(crate) use imp::{Bytes, Module, Modules};

/// Returns the addresses of the code of the module that heeler is linked into, which is the application's own.
pub(crate) fn code_range() -> std::ops::Range<u64> {
    #[cfg(heeler_copies)]
    return imp::code_range();
    // Any address will do, because walked stacks contain only code addresses.
    #[cfg(not(heeler_copies))]
    return 0..u64::MAX;
}

#[cfg(heeler_copies)]
mod imp {
    use std::ops::{Deref, Range};
    use std::sync::{Arc, Mutex};

    use object::elf::{FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_GNU_EH_FRAME, PT_LOAD, PT_NOTE};
    use object::{NativeEndian, read::elf::NoteIterator};

    use crate::capture::crates::executable as executable_path;
    use crate::capture::fork::PerProcess;
    use crate::capture::symbols::ModuleName;
    use crate::capture::unforked::unforked;
    use crate::sync::lock_std;

    /// How `.eh_frame_hdr` begins: its version, and how it encodes where `.eh_frame` is.
    const VERSION: u8 = 1;
    const PCREL_SDATA4: u8 = 0x1b;

    /// Bytes of a module.
    #[derive(Debug, Clone)]
    pub(crate) enum Bytes {
        InPlace(&'static [u8]),
        Copied(Arc<[u8]>),
    }

    impl Default for Bytes {
        fn default() -> Self {
            Self::InPlace(&[])
        }
    }

    impl Deref for Bytes {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            match self {
                Self::InPlace(bytes) => bytes,
                Self::Copied(bytes) => bytes,
            }
        }
    }

    /// One loaded object.
    #[derive(Debug)]
    pub(crate) struct Module {
        pub(crate) name: Arc<ModuleName>,
        /// From the lowest to the highest mapped address.
        pub(crate) range: Range<u64>,
        /// What the loader added to the addresses in the file.
        pub(crate) bias: u64,
        pub(crate) code: Vec<Range<u64>>,
        /// `.eh_frame_hdr`: its address and bytes.
        pub(crate) header: (u64, Bytes),
        /// `.eh_frame`, possibly with what follows it.
        pub(crate) frames: (u64, Bytes),
    }

    impl Module {
        pub(crate) fn is_code(&self, address: u64) -> bool {
            self.code.iter().any(|code| code.contains(&address))
        }
    }

    /// What is loaded at one moment.
    #[derive(Debug, Default)]
    pub(crate) struct Modules {
        pub(crate) list: Vec<Module>,
        /// The loader's counts of loads and unloads.
        pub(crate) version: (u64, u64),
    }

    impl Modules {
        /// Returns what is loaded now. All callers share it as long as nothing changes.
        pub(crate) fn current() -> Arc<Self> {
            static SHARED: PerProcess<Mutex<Option<Arc<Modules>>>> = PerProcess::new(Mutex::default);
            let mut shared = lock_std(SHARED.get());
            if let Some(known) = shared.as_ref().filter(|known| known.is_current()) {
                return known.clone();
            }
            let loaded = Arc::new(Self::load());
            *shared = Some(loaded.clone());
            loaded
        }

        fn load() -> Self {
            let mut modules = Self::default();
            // The loader names the executable first.
            let mut executable = true;
            iterate(&mut |info| {
                modules.version = (info.dlpi_adds, info.dlpi_subs);
                // SAFETY: the loader holds its lock while it calls back: the object is loaded.
                let module = unsafe { read(info, executable) };
                executable = false;
                modules.list.extend(module);
                false
            });
            // Static programs have no loader that lists it.
            if let Some(start) = vdso().filter(|start| modules.find(*start).is_none()) {
                // SAFETY: the kernel has mapped it, and nothing unmaps it.
                modules.list.extend(unsafe { read_vdso(start) });
            }
            modules
        }

        /// Returns whether nothing was loaded or unloaded since.
        pub(crate) fn is_current(&self) -> bool {
            let mut version = (0, 0);
            iterate(&mut |info| {
                version = (info.dlpi_adds, info.dlpi_subs);
                true
            });
            version == self.version
        }

        pub(crate) fn find(&self, address: u64) -> Option<&Module> {
            self.list.iter().find(|module| module.range.contains(&address))
        }
    }

    pub(super) fn code_range() -> Range<u64> {
        static RANGE: PerProcess<Range<u64>> = PerProcess::new(|| {
            let here = code_range as *const () as u64;
            let modules = Modules::current();
            let module = modules.find(here);
            let code = module.and_then(|module| module.code.iter().find(|code| code.contains(&here)).cloned());
            code.unwrap_or(0..0)
        });
        RANGE.settled().clone()
    }

    type Visit<'a> = dyn FnMut(&libc::dl_phdr_info) -> bool + 'a;

    /// Calls `visit` for each loaded object until it has seen enough.
    fn iterate(visit: &mut Visit<'_>) {
        extern "C" fn trampoline(info: *mut libc::dl_phdr_info, _size: usize, data: *mut libc::c_void) -> libc::c_int {
            // SAFETY: `data` is the `&mut &mut Visit` below, which outlives the call. Nothing else uses it during the
            // call.
            let visit = unsafe { &mut *data.cast::<&mut Visit<'_>>() };
            // SAFETY: the loader passes a valid description for the time of this call.
            libc::c_int::from(visit(unsafe { &*info }))
        }
        let mut visit = visit;
        // SAFETY: the trampoline has the expected signature and gets the pointer it expects. A panic in `visit` would
        // end the process at the `extern "C"` boundary, but `visit` has no reason to panic.
        unforked(|| unsafe { libc::dl_iterate_phdr(Some(trampoline), (&raw mut visit).cast()) });
    }

    /// Returns where the kernel has put its own library.
    fn vdso() -> Option<u64> {
        const AT_SYSINFO_EHDR: libc::c_ulong = 33;
        // SAFETY: looks a number up.
        Some(unsafe { libc::getauxval(AT_SYSINFO_EHDR) }).filter(|start| *start != 0)
    }

    /// # Safety
    ///
    /// It is mapped there, and stays.
    unsafe fn read_vdso(start: u64) -> Option<Module> {
        // SAFETY: it begins with this header; the program headers that it speaks of are mapped with it.
        let (headers, info) = unsafe {
            let header = &*std::ptr::with_exposed_provenance::<libc::Elf64_Ehdr>(start as usize);
            let headers = std::ptr::with_exposed_provenance::<libc::Elf64_Phdr>((start + header.e_phoff) as usize);
            let info: libc::dl_phdr_info = std::mem::zeroed();
            (std::slice::from_raw_parts(headers, usize::from(header.e_phnum)), info)
        };
        let first = headers.iter().find(|header| header.p_type == PT_LOAD.0)?;
        let info = libc::dl_phdr_info {
            dlpi_addr: start.wrapping_sub(first.p_vaddr),
            dlpi_phdr: headers.as_ptr(),
            dlpi_phnum: headers.len() as u16,
            ..info
        };
        // SAFETY: the caller's promise.
        unsafe { read(&info, false) }
    }

    /// Reads one object's headers and tables.
    ///
    /// # Safety
    ///
    /// The object is loaded and stays so for the time of the call, or for ever if `executable`.
    unsafe fn read(info: &libc::dl_phdr_info, executable: bool) -> Option<Module> {
        let bias = info.dlpi_addr;
        // SAFETY: the loader's own array of program headers.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let loaded: Vec<_> = headers.iter().filter(|header| header.p_type == PT_LOAD.0).collect();
        let start = loaded.iter().map(|header| bias + header.p_vaddr).min()?;
        let end = loaded.iter().map(|header| bias + header.p_vaddr + header.p_memsz).max()?;
        let code = loaded.iter().filter(|header| header.p_flags & PF_X.0 != 0);
        let code = code.map(|header| bias + header.p_vaddr..bias + header.p_vaddr + header.p_memsz).collect();
        // The bytes from an address to the end of the segment that it is in.
        let rest = |address: u64| {
            let segment = loaded
                .iter()
                .find(|header| (bias + header.p_vaddr..bias + header.p_vaddr + header.p_filesz).contains(&address))?;
            let len = bias + segment.p_vaddr + segment.p_filesz - address;
            // SAFETY: within a segment that is mapped and, by the caller's promise, stays so as long as it is used.
            Some(unsafe { std::slice::from_raw_parts(address as *const u8, len as usize) })
        };
        let keep = |bytes: &'static [u8]| if executable { Bytes::InPlace(bytes) } else { Bytes::Copied(bytes.into()) };
        let mut header = (0, Bytes::InPlace(&[]));
        let mut frames = (0, Bytes::InPlace(&[]));
        if let Some(table) = headers.iter().find(|header| header.p_type == PT_GNU_EH_FRAME.0) {
            let address = bias + table.p_vaddr;
            let bytes = rest(address)?;
            let bytes = &bytes[..bytes.len().min(table.p_memsz as usize)];
            if let Some(target) = frames_address(address, bytes) {
                let bytes_of_frames = rest(target)?;
                frames = (target, without_signing(bytes_of_frames).unwrap_or_else(|| keep(bytes_of_frames)));
                header = (address, keep(bytes));
            }
        }
        let build_id = headers.iter().filter(|header| header.p_type == PT_NOTE.0).find_map(|header| {
            let bytes = rest(bias + header.p_vaddr)?;
            build_id(&bytes[..bytes.len().min(header.p_filesz as usize)], header.p_align)
        });
        // SAFETY: a string of the loader's, or null.
        let path = (!info.dlpi_name.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(info.dlpi_name) });
        let mut path = path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        // glibc has no name for it. musl has the one that it was called by, or a link.
        if executable && (!path.starts_with('/') || path == "/proc/self/exe") {
            path = executable_path().display().to_string();
        } else if path.is_empty() && vdso().is_some_and(|vdso| (start..end).contains(&vdso)) {
            path = "[vdso]".to_owned();
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let name = Arc::new(ModuleName { name, path, build_id });
        Some(Module { name, range: start..end, bias, code, header, frames })
    }

    /// Returns a copy that doesn't mention signed return addresses, if the original does. `framehop` takes the
    /// instruction for an error, and strips the signatures without it.
    #[cfg(target_arch = "aarch64")]
    fn without_signing(frames: &[u8]) -> Option<Bytes> {
        crate::capture::signed::without_signing(frames).map(|frames| Bytes::Copied(frames.into()))
    }

    /// Return addresses are not signed.
    #[cfg(not(target_arch = "aarch64"))]
    fn without_signing(_frames: &[u8]) -> Option<Bytes> {
        None
    }

    /// Returns where `.eh_frame` is, from its header, in the one encoding that linkers use there: a 32-bit offset from
    /// itself.
    fn frames_address(address: u64, header: &[u8]) -> Option<u64> {
        let offset = header.get(4..8)?.try_into().ok()?;
        (header[0] == VERSION && header[1] == PCREL_SDATA4)
            .then(|| (address + 4).wrapping_add_signed(i64::from(i32::from_ne_bytes(offset))))
    }

    fn build_id(notes: &[u8], align: u64) -> Option<String> {
        let mut notes = NoteIterator::<FileHeader64<NativeEndian>>::new(NativeEndian, align, notes).ok()?;
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"GNU" && note.n_type(NativeEndian) == NT_GNU_BUILD_ID {
                return Some(note.desc().iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
        None
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::capture::fork::{in_child, in_own_process};
        use crate::capture::notice_forks;

        /// Guards: a child never has a copy of the loader's lock that was held by a thread that read what is loaded.
        #[test]
        fn no_fork_copies_the_loaders_lock() {
            in_own_process(module_path!(), "no_fork_copies_the_loaders_lock", || {
                notice_forks();
                std::thread::spawn(|| {
                    loop {
                        assert!(!Modules::load().list.is_empty());
                    }
                });
                for _ in 0..50 {
                    in_child(|| {
                        let mut seen = false;
                        iterate(&mut |_| {
                            seen = true;
                            true
                        });
                        seen
                    });
                }
            });
        }

        /// Guards: the kernel's own library is known even if no loader lists it.
        #[test]
        fn the_vdso_is_read_from_memory() {
            let Some(start) = vdso() else { return };
            // SAFETY: the kernel has said that it is there.
            let read = unsafe { read_vdso(start) }.unwrap();
            assert_eq!(read.name.path, "[vdso]");
            assert!(read.range.contains(&start) && !read.code.is_empty());
            // Since Linux 5.9 it has no tables on aarch64, so that its trampoline isn't taken for a common frame.
            assert!(cfg!(target_arch = "aarch64") || !read.frames.1.is_empty());
            let modules = Modules::current();
            let listed = modules.find(start).unwrap();
            assert_eq!((&listed.range, listed.bias, &listed.code), (&read.range, read.bias, &read.code));
            assert_eq!(listed.name.build_id, read.name.build_id);
        }

        /// Guards: the executable has its path and its build id, under any name that the loader has for it.
        #[test]
        fn the_executable_has_its_name() {
            let modules = Modules::current();
            let executable = &modules.list[0].name;
            assert_eq!(executable.path, std::env::current_exe().unwrap().display().to_string());
            assert!(executable.build_id.is_some(), "{executable:?}");
        }
    }
}
