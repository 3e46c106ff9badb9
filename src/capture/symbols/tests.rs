use std::hint::black_box;

use super::*;

/// An address of this program.
#[cfg(heeler_copies)]
fn address(pc: u64, is_return: bool) -> Address {
    let modules = crate::capture::modules::Modules::current();
    let module = modules.find(pc).unwrap();
    Address { pc, is_return, module: Some(module.name.clone()), relative: pc - module.bias, has_left: false }
}

#[cfg(not(heeler_copies))]
fn address(pc: u64, is_return: bool) -> Address {
    Address { pc, is_return, module: None, relative: pc, has_left: false }
}

fn name(symbols: &mut Symbols, address: &Address) -> Vec<Frame> {
    symbols.frames(std::slice::from_ref(address))
}

#[inline(never)]
fn target(input: u64) -> u64 {
    black_box(input) + 1
}

fn target_address() -> u64 {
    target as fn(u64) -> u64 as usize as u64
}

/// Guards: an exact address is not taken for a return address, at a function's very first instruction, where the byte
/// before belongs to another function.
#[test]
fn names_the_first_instruction_of_a_function() {
    target(1);
    let mut symbols = Symbols::new();
    let at = address(target_address(), false);
    let frames = name(&mut symbols, &at);
    let frame = frames.last().unwrap();
    assert_eq!(frame.function.as_deref(), Some("heeler::capture::symbols::tests::target"));
    assert!(frame.file.as_deref().unwrap().ends_with("src/capture/symbols/tests.rs"));
    assert!(frame.line.is_some());
    assert!(!frame.own, "heeler's code is not the application's");
    assert!(!frame.inlined);
    assert_eq!(frame.address, format!("{:#x}", at.relative));
    let module = at.module.as_deref();
    assert_eq!(frame.module.as_deref(), module.map(|module| module.name.as_str()));
    assert_eq!(frame.build_id.as_deref(), module.and_then(|module| module.build_id.as_deref()));
}

fn return_addresses() -> Vec<Address> {
    let mut here = Vec::new();
    backtrace::trace(|frame| {
        here.push(frame.ip() as u64);
        true
    });
    here.into_iter().filter(|pc| *pc != 0).map(|pc| address(pc, true)).collect()
}

#[test]
fn return_addresses_get_the_callers_name() {
    let frames = Symbols::new().frames(&return_addresses());
    let this = "heeler::capture::symbols::tests::return_addresses";
    assert!(frames.iter().any(|frame| frame.function.as_deref() == Some(this)), "{frames:#?}");
    let std = frames.iter().find(|frame| frame.function.as_deref().is_some_and(|name| name.starts_with("std::")));
    assert!(std.unwrap().file.as_deref().unwrap().starts_with("/rustc/"));
}

/// Guards: names are looked up once, are forgotten on request, and belong to a module.
#[test]
fn names_are_cached_until_forgotten() {
    let mut symbols = Symbols::new();
    let at = address(target_address(), false);
    assert!(!symbols.kept.has(&at));
    name(&mut symbols, &at);
    assert!(symbols.kept.has(&at));
    // Another library at the same address.
    let module = ModuleName { name: "other".to_owned(), path: "/nowhere/other".to_owned(), build_id: None };
    let other = Address { module: Some(Arc::new(module)), ..at.clone() };
    assert!(!symbols.kept.has(&other));
    assert_eq!(name(&mut symbols, &other).last().unwrap().module.as_deref(), Some("other"));
    name(&mut symbols, &at);
    symbols.forget();
    assert!(!symbols.kept.has(&at));
}

/// Guards: an address outside every module gives a frame with only the address.
#[test]
fn an_unknown_address_is_a_frame_without_a_name() {
    let mut symbols = Symbols::new();
    for pc in [0, 1, u64::MAX] {
        for is_return in [true, false] {
            let frames = name(&mut symbols, &Address { pc, is_return, module: None, relative: pc, has_left: false });
            assert_eq!(frames.len(), 1);
            assert_eq!((frames[0].function.as_deref(), &*frames[0].address), (None, &*format!("{pc:#x}")));
        }
    }
}

/// Guards: frames come in the order in which they were asked for, whatever was known before.
#[test]
fn frames_keep_the_requested_order() {
    let addresses = return_addresses();
    let all = Symbols::new().frames(&addresses);
    let mut symbols = Symbols::new();
    name(&mut symbols, &addresses[1]);
    assert_eq!(symbols.frames(&addresses), all);
    let backwards: Vec<Address> = addresses.iter().rev().cloned().collect();
    let one_by_one: Vec<Frame> = backwards.iter().flat_map(|address| name(&mut Symbols::new(), address)).collect();
    assert_eq!(Symbols::new().frames(&backwards), one_by_one);
}

#[cfg(heeler_copies)]
mod files {
    use std::path::PathBuf;
    use std::process::Command;

    use super::super::look_up::look_up;
    use super::super::object_file::ObjectFile;
    use super::super::survey::survey_of;
    use super::super::symbol_table::each_function;
    use super::*;

    /// Returns what the `backtrace` crate says.
    fn by_backtrace(address: &Address) -> Vec<Named> {
        let mut found = Vec::new();
        let pc = address.pc + u64::from(!address.is_return);
        backtrace::resolve(pc as usize as *mut _, |symbol| {
            let function = symbol.name().and_then(|name| readable(&format!("{name:#}")));
            let file = symbol.filename().map(|path| path.to_string_lossy().into_owned());
            found.push(Named { function, file, line: symbol.lineno(), ..Named::default() });
        });
        found
    }

    /// Guards: functions, inlined functions, files and lines are the same as those of `addr2line`, throughout a large
    /// program.
    #[test]
    fn names_are_those_of_addr2line() {
        let here = address(target_address(), false);
        let (module, bias) = (here.module.clone().unwrap(), here.pc - here.relative);
        let file = ObjectFile::open(&module).unwrap();
        let (mut addresses, mut functions) = (Vec::new(), 0_u64);
        each_function(&file, |start, size, _| {
            functions += 1;
            if functions % 251 == 0 {
                let offset = functions * 7_919 % size;
                addresses.push(address(bias + start + offset, offset > 0 && functions % 2 == 0));
            }
            true
        });
        assert!(addresses.len() > 100, "{}", addresses.len());
        addresses.sort_by_key(|address| address.pc);
        let all: Vec<&Address> = addresses.iter().collect();
        let (mut inlined, mut differ) = (0, Vec::new());
        for (address, mut ours) in all.iter().zip(look_up(&all)) {
            ours.iter_mut().for_each(|place| place.identity = 0);
            let mut theirs = by_backtrace(address);
            inlined += ours.len().saturating_sub(1);
            // Lines alone have no name for what is not inlined. That is taken from the symbol table.
            for (theirs, ours) in theirs.iter_mut().zip(&ours) {
                theirs.function = theirs.function.take().or_else(|| ours.function.clone());
            }
            // A function that is also inlined elsewhere has a name there, without the path that the symbol table has.
            if let (Some(theirs), Some(Named { function: Some(full), .. })) = (theirs.last_mut(), ours.last()) {
                let plain = theirs.function.as_deref().and_then(|name| name.split('<').next()).unwrap_or_default();
                if !plain.is_empty() && full.ends_with(&format!("::{plain}")) {
                    theirs.function = Some(full.clone());
                }
            }
            if ours != theirs {
                differ.push((address.relative, ours, theirs));
            }
        }
        println!("{} addresses, {inlined} functions inlined there", all.len());
        assert!(inlined > 50, "{inlined}");
        assert!(differ.is_empty(), "{} differ: {:#x?}", differ.len(), &differ[..differ.len().min(5)]);
    }

    /// Guards: an application that captures a backtrace neither waits for heeler, nor makes it wait.
    #[test]
    fn no_lock_is_shared_with_backtraces() {
        let mut frames = Vec::new();
        // The callback runs under the lock of the `backtrace` crate.
        backtrace::resolve((target_address() + 1) as *mut std::ffi::c_void, |_| {
            let naming = std::thread::spawn(|| name(&mut Symbols::new(), &address(target_address(), false)));
            frames = naming.join().unwrap();
        });
        assert_eq!(frames[0].function.as_deref(), Some("heeler::capture::symbols::tests::target"));
    }

    const SOURCE: &str = "
        #[inline(always)] fn inner(n: u64) -> u64 { let n = std::hint::black_box(n); n + 1 }
        #[inline(never)] fn outer(n: u64) -> u64 { inner(n) * 2 }
        mod deep { #[inline(never)] pub async fn waits() -> u64 { super::outer(std::hint::black_box(1)) } }
        fn main() {
            let mut future = std::pin::pin!(deep::waits());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = std::future::Future::poll(future.as_mut(), &mut context);
        }";

    /// Builds a program with these flags, in its own folder.
    fn program(flags: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("app.rs");
        std::fs::write(&source, SOURCE).unwrap();
        let program = folder.path().join("app");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let base = [
            "--edition",
            "2024",
            "--crate-name",
            "app",
            "-Copt-level=3",
            "-Clink-arg=-Wl,--build-id",
            "-o",
            "app",
            "app.rs",
        ];
        let built = Command::new(rustc).current_dir(folder.path()).args(base).args(flags).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        (folder, program)
    }

    fn module(path: &std::path::Path, like: &std::path::Path) -> ModuleName {
        let file = ObjectFile::read(like).unwrap();
        let build_id = object::Object::build_id(&file.elf().unwrap()).unwrap().unwrap().iter();
        let build_id = Some(build_id.map(|byte| format!("{byte:02x}")).collect());
        ModuleName { name: "app".to_owned(), path: path.to_str().unwrap().to_owned(), build_id }
    }

    /// Returns what is found about the call within `outer`, whose address is taken from `like`.
    fn named(path: &std::path::Path, like: &std::path::Path) -> Vec<Named> {
        let mut relative = 0;
        each_function(&ObjectFile::read(like).unwrap(), |start, _, name| {
            relative = if name.contains("5outer") { start + 8 } else { relative };
            relative == 0
        });
        assert!(relative > 0);
        let address = Address {
            pc: relative,
            is_return: true,
            module: Some(Arc::new(module(path, like))),
            relative,
            has_left: false,
        };
        let mut named = look_up(&[&address]).pop().unwrap_or_default();
        named.retain(|place| !place.function.as_deref().is_some_and(|name| name.contains("black_box")));
        named
    }

    fn functions(named: &[Named]) -> Vec<&str> {
        named.iter().filter_map(|place| place.function.as_deref()).collect()
    }

    /// Guards: the build's settings decide what can be named, and nothing that can be named is left out.
    #[test]
    fn debug_settings_decide_what_is_named() {
        let with_all: [&[&str]; 8] = [
            &["-Cdebuginfo=2"],
            &["-Cdebuginfo=limited"],
            &["-Cdebuginfo=2", "-Clto=fat"],
            &["-Cdebuginfo=2", "-Csplit-debuginfo=packed"],
            &["-Cdebuginfo=2", "-Csplit-debuginfo=unpacked"],
            &["-Cdebuginfo=2", "-Clink-arg=-Wl,--compress-debug-sections=zlib"],
            &["-Cdebuginfo=2", "-Csymbol-mangling-version=v0"],
            &["-Cdebuginfo=2", "-Cdwarf-version=5"],
        ];
        for flags in with_all {
            let (_folder, program) = program(flags);
            let named = named(&program, &program);
            assert_eq!(functions(&named), ["app::inner", "app::outer"], "{flags:?} {named:#?}");
            assert!(named[0].file.as_deref().unwrap().ends_with("app.rs"), "{flags:?} {named:#?}");
            assert_eq!((named[0].line, named[1].line), (Some(2), Some(3)), "{flags:?}");
            assert_eq!(survey_of(&module(&program, &program), 0), DebugInformation::Full, "{flags:?}");
        }
        let (_folder, lines) = program(&["-Cdebuginfo=line-tables-only"]);
        let named_lines = named(&lines, &lines);
        assert_eq!(functions(&named_lines), ["inner", "app::outer"], "{named_lines:#?}");
        assert_eq!((named_lines[0].line, named_lines[1].line), (Some(2), Some(3)));
        assert_eq!(survey_of(&module(&lines, &lines), 0), DebugInformation::Lines);
        let (folder, none) = program(&["-Cdebuginfo=0"]);
        assert_eq!(survey_of(&module(&none, &none), 0), DebugInformation::SymbolTable);
        let stripped = folder.path().join("stripped");
        let strip = Command::new("strip").arg(&none).arg("-o").arg(&stripped).status().unwrap();
        assert!(strip.success());
        assert_eq!(survey_of(&module(&stripped, &none), 0), DebugInformation::Nothing);
        assert_eq!(functions(&named(&none, &none)), ["app::outer"]);
    }

    /// Guards: debug information that was split off is found beside the program, by its link. That of another program
    /// is not used.
    #[test]
    fn finds_separate_debug_information() {
        let [(folder, program), (_other_folder, other)] =
            ["2", "1"].map(|level| program(&["-g", &format!("-Copt-level={level}")]));
        let objcopy = |arguments: &[&str]| {
            let done = Command::new("objcopy").current_dir(folder.path()).args(arguments).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        objcopy(&["--only-keep-debug", "app", "app.debug"]);
        objcopy(&["--strip-all", "--add-gnu-debuglink=app.debug", "app", "stripped"]);
        let stripped = folder.path().join("stripped");
        assert_eq!(functions(&named(&stripped, &program)), ["app::inner", "app::outer"]);
        std::fs::copy(&other, folder.path().join("app.debug")).unwrap();
        assert_eq!(named(&stripped, &program), []);
        // Another file is at the path by now.
        assert_eq!(named(&other, &program), []);
    }

    /// Guards: a file that is cut short, or damaged in the parts that are read, gives fewer or other names, and nothing
    /// fails.
    #[test]
    fn damaged_files_only_lose_names() {
        use object::{Object as _, ObjectSection as _};
        let (folder, program) = program(&["-Cdebuginfo=2"]);
        let whole = std::fs::read(&program).unwrap();
        let damaged = folder.path().join("damaged");
        let sections: Vec<(u64, u64)> = {
            let file = ObjectFile::read(&program).unwrap();
            let elf = file.elf().unwrap();
            let is_read = |name: &str| name.starts_with(".debug_") || name == ".symtab" || name == ".strtab";
            elf.sections()
                .filter(|section| section.name().is_ok_and(is_read))
                .filter_map(|section| section.file_range())
                .collect()
        };
        assert!(sections.len() > 6, "{sections:?}");
        let mut named_otherwise = 0;
        let expected = named(&program, &program);
        for (start, len) in sections {
            for part in 0..4 {
                let mut bytes = whole.clone();
                let (from, to) = (start + part * len / 4, start + (part + 1) * len / 4);
                for at in (from..to).step_by(7 + part as usize) {
                    bytes[at as usize] = bytes[at as usize].wrapping_mul(31) ^ at as u8;
                }
                std::fs::write(&damaged, bytes).unwrap();
                named_otherwise += usize::from(named(&damaged, &program) != expected);
            }
        }
        assert!(named_otherwise > 2, "the damage shows: {named_otherwise}");
        for part in 1..20 {
            std::fs::write(&damaged, &whole[..whole.len() * part / 20]).unwrap();
            assert_eq!(named(&damaged, &program), [], "the list of sections is at the end");
        }
    }

    /// Guards: only a file is opened to look for names, never the end of a pipe that nobody writes to.
    #[test]
    fn a_pipe_is_never_waited_for() {
        let (folder, program) = program(&["-Cdebuginfo=2"]);
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(named(&pipe, &program), []);
        assert!(ObjectFile::read(&pipe).is_none());
    }

    /// Guards: names are those of the program that runs, even after another file took its place, as in a deployment.
    #[test]
    fn a_replaced_program_is_named_from_itself() {
        const CHILD: &str = "HEELER_TEST_REPLACED";
        let here = std::env::current_exe().unwrap();
        if std::env::var_os(CHILD).is_some() {
            let before = name(&mut Symbols::new(), &address(target_address(), false));
            let (_folder, other) = program(&["-Cdebuginfo=2"]);
            // By another name first, because a running program's file cannot be written to.
            let beside = here.with_extension("new");
            std::fs::copy(other, &beside).unwrap();
            std::fs::rename(beside, &here).unwrap();
            assert!(std::env::current_exe().unwrap().to_string_lossy().ends_with(" (deleted)"));
            assert_eq!(name(&mut Symbols::new(), &address(target_address(), false)), before);
            assert_eq!(before[0].function.as_deref(), Some("heeler::capture::symbols::tests::target"));
            return;
        }
        let folder = tempfile::tempdir_in(here.parent().unwrap()).unwrap();
        let child = folder.path().join("child");
        std::fs::hard_link(&here, &child).unwrap();
        let test = "capture::symbols::tests::files::a_replaced_program_is_named_from_itself";
        let done = Command::new(&child).args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(String::from_utf8_lossy(&done.stdout).contains("1 passed"));
    }
}
