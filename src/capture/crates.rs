//! Finds out which crate a frame is from, and whether that is the application's own code.

use std::path::{Path, PathBuf};

use super::fork::PerProcess;
use super::frame::Frame;
use super::own_frames::is_heelers;
use super::sys;

/// Directories of system libraries. What comes from there is never the application's own, unless it is the executable.
const SYSTEM: [&str; 6] = ["/lib/", "/lib64/", "/usr/lib", "/usr/include/", "/usr/src/", "/nix/store/"];

/// Returns whether `frame` is the application's own code: neither std nor a dependency, but the executable or a crate
/// of its workspace. `module_path` is the path of the executable or library that the frame is in, if known.
///
/// Functions in C are recognised only by their files, because a static executable contains those of the C library, too.
///
/// The decision is made by files, as the compiler recorded them. That includes a line of `tokio::select!` in one of the
/// application's functions. Its frame doesn't count as the application's own, because the frame around it has the line
/// to look at. Without debug information, only the executable's own crate can be distinguished from its dependencies,
/// by its name.
pub(crate) fn is_own(function: Option<&str>, file: Option<&str>, module_path: Option<&str>) -> bool {
    is_own_of((executable(), main_crate()), function, file, module_path)
}

/// Does the same for code of another process, whose executable is at this path.
pub(crate) fn is_own_elsewhere(
    executable: &str,
    function: Option<&str>,
    file: Option<&str>,
    module_path: Option<&str>,
) -> bool {
    let executable = Path::new(executable);
    is_own_of((executable, &crate_of_executable(executable)), function, file, module_path)
}

fn is_own_of(
    (executable, main_crate): (&Path, &str),
    function: Option<&str>,
    file: Option<&str>,
    module_path: Option<&str>,
) -> bool {
    if module_path.is_some_and(|path| is_system_library(path, executable)) || is_heelers(function, file) {
        return false;
    }
    match file {
        Some(file) => {
            let file = &file.replace('\\', "/");
            !is_std_path(file)
                && dependency_of_path(file).is_none()
                && !is_system(file)
                && !is_c_library_file(file)
                && !is_generated_by_a_dependency(file)
                && !file.contains("/vendor/")
                && !file.contains("/.cargo/registry/src/")
                && !file.contains("/.cargo/git/checkouts/")
                && !function.and_then(crate_of_function).is_some_and(is_std_crate_without_path)
        }
        None => function.and_then(crate_of_function).is_some_and(|name| name == main_crate),
    }
}

/// Returns whether `frame` is from one of `crates` (`my_crate` or `my-crate`), which the user declared to be their own.
pub(crate) fn is_of(frame: &Frame, crates: &[String]) -> bool {
    if frame.is_heelers() {
        return false;
    }
    let from = |name: &str| crates.iter().any(|own| same_crate(own, name));
    let file = frame.file.as_deref().map(|file| file.replace('\\', "/")).unwrap_or_default();
    if is_std_path(&file) {
        return false;
    }
    // The function may be theirs and the line in somebody else's macro. Then the frame around it has their line.
    match dependency_of_path(&file) {
        Some(package) => from(package),
        None => frame.function.as_deref().and_then(crate_of_function).is_some_and(from),
    }
}

/// Returns a name for what a frame belongs to, for "14 frames of tokio, hyper": `std`, a crate, or the library.
pub(crate) fn origin(frame: &Frame) -> Option<String> {
    let file = frame.file.as_deref().map(|file| file.replace('\\', "/"));
    if let Some(file) = &file {
        if is_std_path(file) {
            return Some("std".to_owned());
        }
        if let Some(name) = dependency_of_path(file) {
            return Some(name.replace('-', "_"));
        }
    }
    let name = frame.function.as_deref().and_then(crate_of_function);
    match name {
        Some(name) if is_std_crate(name) => Some("std".to_owned()),
        Some(name) => Some(name.to_owned()),
        None => frame.module.clone(),
    }
}

/// Returns whether the frame is from the standard library.
pub(crate) fn is_std(frame: &Frame) -> bool {
    frame.file.as_deref().is_some_and(|file| is_std_path(&file.replace('\\', "/")))
        || frame.function.as_deref().and_then(crate_of_function).is_some_and(is_std_crate)
}

/// Returns whether it is one of the standard library's crates, or of those that rustc generates.
pub(super) fn is_std_crate(name: &str) -> bool {
    matches!(name, "core" | "alloc" | "std" | "__rustc")
}

/// Returns the crate of a readable function name: `app` for `app::load`, `<app::Photo as core::..>::get`,
/// `<T as app::Store>::get`. `None` for a bare name, which may be from anywhere.
pub(crate) fn crate_of_function(function: &str) -> Option<&str> {
    let Some(inner) = function.strip_prefix('<') else { return first_segment(function) };
    let (this, of) = split_as(inner);
    first_segment(this).or_else(|| of.and_then(first_segment))
}

/// Returns the two sides of `T as Trait>::method`, at the outermost level.
fn split_as(inner: &str) -> (&str, Option<&str>) {
    let mut depth = 0usize;
    let mut before = 0;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'<' | b'(' | b'[' => depth += 1,
            b'>' if before == b'-' => {}
            b'>' | b')' | b']' if depth == 0 => return (&inner[..at], None),
            b'>' | b')' | b']' => depth -= 1,
            b' ' if depth == 0 && inner[at..].starts_with(" as ") => return (&inner[..at], Some(&inner[at + 4..])),
            _ => {}
        }
        before = byte;
    }
    (inner, None)
}

/// Returns `app` for `&mut app::Photo<T>`. `None` if it isn't a path of at least two segments.
fn first_segment(path: &str) -> Option<&str> {
    let mut path = path;
    loop {
        let before = path.len();
        path = path.trim_start_matches(['&', '*', '(', '[', '<', ' ']);
        for word in ["mut ", "const ", "dyn ", "impl "] {
            path = path.strip_prefix(word).unwrap_or(path);
        }
        if path.len() == before {
            break;
        }
    }
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(path.len());
    (end > 0 && path[end..].starts_with("::")).then(|| &path[..end])
}

fn is_std_path(file: &str) -> bool {
    file.starts_with("/rustc/") || file.contains("/lib/rustlib/src/rust/") || file.starts_with("/rust/deps/")
}

/// Returns whether it is a part of the runtime that rustc generates, which has no file of its own.
fn is_std_crate_without_path(name: &str) -> bool {
    name == "__rustc"
}

fn is_system(path: &str) -> bool {
    path.starts_with('[') || SYSTEM.iter().any(|directory| path.starts_with(directory))
}

/// The executable is the application's, wherever it is installed.
fn is_system_library(path: &str, executable: &Path) -> bool {
    is_system(path) && Path::new(path) != executable
}

/// Returns whether it is a file of the C library or of the compiler's runtime, linked into a static executable. Their
/// sources are wherever somebody built them (`/build/glibc-2.36/nptl/futex-internal.c`,
/// `/build/musl-1.2.5/src/time/nanosleep.c`).
fn is_c_library_file(file: &str) -> bool {
    const TREES: [&str; 6] = ["glibc", "musl", "libgcc", "compiler-rt", "sysdeps", "nptl"];
    // Distributions leave out where they built it.
    const PARTS: [&str; 12] = [
        "./csu/",
        "./elf/",
        "./io/",
        "./libio/",
        "./malloc/",
        "./misc/",
        "./posix/",
        "./signal/",
        "./socket/",
        "./stdlib/",
        "./string/",
        "./time/",
    ];
    let mut directories = file.split('/').rev().skip(1);
    let is_tree = |directory: &str| {
        TREES.iter().any(|tree| {
            let rest = directory.strip_prefix(tree);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.']))
        })
    };
    let is_c = [".c", ".S", ".s", ".h", ".cpp"].iter().any(|ending| file.ends_with(ending));
    is_c && (directories.any(is_tree) || PARTS.iter().any(|part| file.starts_with(part)))
}

/// Returns whether the file was generated by the build script of a package that wraps a library in C
/// (`target/release/build/tikv-jemalloc-sys-0123456789abcdef/out/build/src/arena.c`).
fn is_generated_by_a_dependency(file: &str) -> bool {
    let directories: Vec<&str> = file.split('/').collect();
    directories.windows(3).any(|of| {
        let is_package = has_hash(of[1]) && of[1][..of[1].len() - 17].ends_with("-sys");
        of[0] == "build" && is_package && of[2] == "out"
    })
}

/// Returns the package whose source `file` is, if it is in a cargo registry
/// (`/registry/src/<index>-<hash>/<name>-<version>/`) or in a git checkout (`/git/checkouts/<name>-<hash>/`), wherever
/// `CARGO_HOME` was.
pub(super) fn dependency_of_path(file: &str) -> Option<&str> {
    if let Some((_, rest)) = file.split_once("/registry/src/") {
        let (index, rest) = rest.split_once('/')?;
        let package = rest.split('/').next()?;
        return has_hash(index).then(|| without_version(package));
    }
    let (_, rest) = file.split_once("/git/checkouts/")?;
    let repository = rest.split('/').next()?;
    has_hash(repository).then(|| &repository[..repository.len() - 17])
}

/// Returns the module that a dependency's source file stands for: `tokio::sync::mutex` for
/// `/registry/src/<index>-<hash>/tokio-1.54.1/src/sync/mutex.rs`.
pub(crate) fn dependency_module(file: &str) -> Option<String> {
    let file = file.replace('\\', "/");
    let package = dependency_of_path(&file)?.replace('-', "_");
    let (_, path) = file.rsplit_once("/src/")?;
    let path = path.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let path = if path == "lib" { String::new() } else { format!("::{}", path.replace('/', "::")) };
    Some(package + &path)
}

fn has_hash(directory: &str) -> bool {
    directory.rsplit_once('-').is_some_and(|(name, hash)| {
        !name.is_empty() && hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// `tokio-util-0.7.20` → `tokio-util`. The version may contain hyphens (`libc-1.0.0-alpha.5`).
fn without_version(package: &str) -> &str {
    let version =
        package.match_indices('-').find(|(at, _)| package[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    version.map_or(package, |(at, _)| &package[..at])
}

fn same_crate(a: &str, b: &str) -> bool {
    let plain = |c: u8| if c == b'-' { b'_' } else { c };
    a.len() == b.len() && a.bytes().map(plain).eq(b.bytes().map(plain))
}

/// Returns the crate that the executable was built from, by the name of its file.
fn main_crate() -> &'static str {
    static NAME: PerProcess<String> = PerProcess::new(|| crate_of_executable(executable()));
    NAME.settled()
}

/// Returns the path of the executable. Without `/proc`, it is the path that the program was started with.
pub(super) fn executable() -> &'static Path {
    static PATH: PerProcess<PathBuf> = PerProcess::new(|| {
        let path = std::env::current_exe().ok().map(without_deletion);
        path.or_else(sys::started_path).unwrap_or_default()
    });
    PATH.settled()
}

/// Removes what the kernel appends to the path of a file that has been replaced, for example by a deployment.
fn without_deletion(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(before) => before.into(),
        None => path,
    }
}

fn crate_of_executable(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    // cargo appends a hash to what it puts into `deps/`, and test programs run from there.
    let stem = if has_hash(&stem) { &stem[..stem.len() - 17] } else { &stem[..] };
    stem.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_crate_of_a_function() {
        let table = [
            ("app::load", Some("app")),
            ("app::Photo<T>::load", Some("app")),
            ("<app::Photo<T> as core::future::Future>::poll", Some("app")),
            ("<T as app::Store>::get", Some("app")),
            ("<&mut F as core::future::future::Future>::poll", Some("core")),
            ("<&mut app::Photo as X>::poll", Some("app")),
            ("<(A, B) as app::Both>::poll", Some("app")),
            ("<fn() -> u8 as core::ops::function::FnOnce<()>>::call_once", Some("core")),
            ("<alloc::boxed::Box<dyn Fn() -> u8> as app::Run>::run", Some("alloc")),
            ("<dyn app::Store>::get", Some("app")),
            ("<[T]>::len", None),
            ("main", None),
            ("poll<..>", None),
            ("", None),
            ("<", None),
        ];
        for (function, expected) in table {
            assert_eq!(crate_of_function(function), expected, "{function}");
        }
    }

    /// Guards: which frames are marked as the application's own, and so which one leads the report.
    #[test]
    fn recognises_the_applications_own_code() {
        let registry = "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src/time/sleep.rs";
        let table = [
            (true, Some("app::load"), Some("/build/app/src/main.rs"), None),
            (true, Some("app::load"), Some("src/main.rs"), Some("/opt/app/bin/app")),
            (true, None, Some("src/watchdog/dogs.rs"), None),
            (true, Some("<T as app::Store>::get"), Some(r"C:\work\app\src\lib.rs"), None),
            (true, Some("sum_of_squares"), Some("/build/app/native/sum.c"), None),
            // A dependency's closure type can name the application's crate, and the other way round. The file decides.
            (false, Some("<app::load as core::future::Future>::poll"), Some(registry), None),
            (true, Some("<alloc::boxed::Box<T> as app::Run>::run"), Some("/build/app/src/run.rs"), None),
            (false, Some("tokio::time::sleep::Sleep::poll"), Some(registry), None),
            // A line of `tokio::select!`.
            (false, Some("app::load"), Some(registry), None),
            (false, Some("x::y"), Some("/cargo/registry/src/mirror-0123456789abcdef/x-1.0.0/src/lib.rs"), None),
            (false, Some("x::y"), Some("/home/me/.cargo/git/checkouts/x-0123456789abcdef/abc1234/src/lib.rs"), None),
            (false, Some("x::y"), Some("/build/app/vendor/x/src/lib.rs"), None),
            (
                false,
                Some("x::y"),
                Some(r"C:\Users\me\.cargo\registry\src\index.crates.io-1949cf8c6b5b557f\x-1.0.0\src\lib.rs"),
                None,
            ),
            (false, Some("core::ptr::drop_in_place"), Some("/rustc/5980/library/core/src/ptr/mod.rs"), None),
            (
                false,
                Some("std::thread::park"),
                Some("/opt/rust/lib/rustlib/src/rust/library/std/src/thread/mod.rs"),
                None,
            ),
            (false, Some("hashbrown::raw::x"), Some("/rust/deps/hashbrown-0.15.2/src/raw/mod.rs"), None),
            (false, Some("malloc"), Some("./malloc/malloc.c"), Some("/usr/lib/x86_64-linux-gnu/libc.so.6")),
            (false, Some("clock_gettime"), None, Some("[vdso]")),
            (false, Some("heeler::watchdog::future::poll"), Some("/build/heeler/src/watchdog/future.rs"), None),
            (false, Some("<heeler::Watched<F> as core::future::Future>::poll"), Some("src/watchdog/future.rs"), None),
            (false, Some("tokio::runtime::park"), None, None),
            (false, None, None, None),
            (false, Some("main"), None, None),
            // Frames of a static executable.
            (false, Some("epoll_wait"), None, Some("/opt/app/bin/app")),
            (false, Some("__syscall_cancel"), Some("/build/glibc-6V9RKT/glibc-2.36/nptl/cancellation.c"), None),
            (false, Some("start_thread"), Some("./glibc/nptl/pthread_create.c"), Some("/opt/app/bin/app")),
            (false, Some("__clock_nanosleep"), Some("./time/../sysdeps/unix/sysv/linux/clock_nanosleep.c"), None),
            (false, Some("__libc_malloc"), Some("./malloc/malloc.c"), Some("/opt/app/bin/app")),
            (true, Some("app::io::load"), Some("./io/load.rs"), Some("/opt/app/bin/app")),
            (false, Some("__timedwait_cp"), Some("/build/musl-1.2.5/src/thread/__timedwait.c"), None),
            (false, Some("__clone"), Some("/build/musl/src/thread/x86_64/clone.s"), None),
            (false, Some("_Unwind_RaiseException"), Some("/build/gcc-12/libgcc/unwind.inc.c"), None),
            (true, Some("tune"), Some("/build/app/musl_tuner.c"), None),
            (true, Some("tune"), Some("/build/app/musly/tune.c"), None),
            (true, Some("app::glibc::version"), Some("/build/app/src/glibc/version.rs"), None),
            (
                false,
                Some("je_arena_malloc"),
                Some("/build/app/target/release/build/tikv-jemalloc-sys-0123456789abcdef/out/build/src/arena.c"),
                None,
            ),
            (
                true,
                Some("app::api::decode"),
                Some("/build/app/target/release/build/app-0123456789abcdef/out/api.rs"),
                None,
            ),
        ];
        for (expected, function, file, module) in table {
            assert_eq!(is_own(function, file, module), expected, "{function:?} {file:?} {module:?}");
        }
    }

    /// Guards: the executable is the application's wherever it is installed. Libraries there are not.
    #[test]
    fn an_executable_in_a_system_directory_is_own_code() {
        assert!(executable().is_absolute() && executable().file_stem().is_some());
        for path in ["/nix/store/abc-app/bin/app", "/usr/libexec/app", "/usr/lib/app/app"] {
            assert!(!is_system_library(path, path.as_ref()) && is_system_library(path, "/opt/app".as_ref()));
        }
        assert!(is_own(Some("app::load"), Some("src/main.rs"), executable().to_str()));
        assert!(!is_own(Some("app::load"), Some("src/main.rs"), Some("/usr/lib/libapp.so")));
        let replaced = |path: &str| without_deletion(path.into()).display().to_string();
        assert_eq!(replaced("/opt/app (deleted)"), "/opt/app");
        assert_eq!(replaced("/opt/app"), "/opt/app");
    }

    #[test]
    fn a_declared_crate_counts_as_own_code() {
        let crates = ["house-lib".to_owned()];
        let mut frame = Frame { function: Some("house_lib::get".to_owned()), ..Frame::default() };
        assert!(is_of(&frame, &crates));
        frame.file = Some("/r/registry/src/mirror-0123456789abcdef/tokio-1.54.1/src/macros/select.rs".to_owned());
        assert!(!is_of(&frame, &crates));
        frame.file = Some("/rustc/5980/library/core/src/task.rs".to_owned());
        assert!(!is_of(&frame, &crates));
        (frame.function, frame.file) = (None, None);
        assert!(!is_of(&frame, &crates));
        frame.file = Some("/r/registry/src/mirror-0123456789abcdef/house-lib-0.3.1/src/lib.rs".to_owned());
        assert!(is_of(&frame, &crates));
        frame.file = Some("/r/registry/src/mirror-0123456789abcdef/house-lib-extra-0.3.1/src/lib.rs".to_owned());
        assert!(!is_of(&frame, &crates));
    }

    #[test]
    fn names_the_crate_a_frame_comes_from() {
        let frame = |function: Option<&str>, file: Option<&str>, module: Option<&str>| Frame {
            function: function.map(str::to_owned),
            file: file.map(str::to_owned),
            module: module.map(str::to_owned),
            ..Frame::default()
        };
        let registry = "/r/registry/src/mirror-0123456789abcdef/tokio-util-0.7.20/src/lib.rs";
        assert_eq!(origin(&frame(Some("poll"), Some(registry), None)).as_deref(), Some("tokio_util"));
        assert_eq!(origin(&frame(Some("core::f"), None, None)).as_deref(), Some("std"));
        assert_eq!(origin(&frame(Some("__read"), None, Some("libc.so.6"))).as_deref(), Some("libc.so.6"));
        assert_eq!(origin(&frame(None, None, None)), None);
        assert_eq!(without_version("libc-1.0.0-alpha.5"), "libc");
        assert_eq!(without_version("plain"), "plain");
    }

    #[test]
    fn the_executables_name_gives_the_crate() {
        assert_eq!(crate_of_executable(Path::new("/x/target/release/my-app")), "my_app");
        assert_eq!(crate_of_executable(Path::new("/x/deps/my_app-0123456789abcdef")), "my_app");
        assert_eq!(crate_of_executable(Path::new("")), "");
    }
}
