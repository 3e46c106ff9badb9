//! What the kernel tells about the CPU time that this process gets: a few files, below a directory that tests can choose.
//!
//! A sandbox may hide any of them. What isn't there is not known, and nothing is said of it.

use std::path::{Path, PathBuf};

/// The longest file that is read. Those here have a few hundred bytes.
const MAX: u64 = 64 * 1024;

/// Nanoseconds of a clock tick, as the kernel counts CPU time in `stat`. It has been a hundredth of a second everywhere.
const TICK: u64 = 10_000_000;

/// Where the files are.
#[derive(Debug)]
pub(super) struct HostFiles {
    root: PathBuf,
    /// The `cpu.stat` files of the cgroups that this process is in, from its own outwards.
    cgroups: Vec<PathBuf>,
}

/// CPU time that a cgroup was not allowed to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Throttling {
    /// How often.
    pub(super) times: u64,
    /// How long, in nanoseconds, added over CPUs.
    pub(super) nanos: u64,
}

/// What `stat` tells of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) major_faults: u64,
    /// CPU time of all threads, in nanoseconds.
    pub(super) cpu: u64,
}

/// What tasks of the machine wait for when the kernel says that they are under pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressure {
    Memory,
    Io,
}

impl Pressure {
    pub(super) const ALL: [Self; 2] = [Self::Memory, Self::Io];

    const fn file(self) -> &'static str {
        match self {
            Self::Memory => "proc/pressure/memory",
            Self::Io => "proc/pressure/io",
        }
    }

    /// Returns what they wait for.
    pub(super) const fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Io => "disks",
        }
    }
}

impl HostFiles {
    /// Finds the cgroup's files below `root`, which is `/` but for tests.
    pub(super) fn new(root: &Path) -> Self {
        let mut files = Self { root: root.to_owned(), cgroups: Vec::new() };
        files.cgroups = files.find_cgroups();
        files
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        read(&self.root.join(path))
    }

    /// Returns how long a thread has run, and how long it has been ready to run without a CPU, in nanoseconds. The kernel
    /// adds a wait when it is over.
    pub(super) fn run_times(&self, tid: i32) -> Option<(u64, u64)> {
        let text = self.read(format!("proc/self/task/{tid}/schedstat"))?;
        let mut fields = text.split_whitespace().map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    }

    pub(super) fn process(&self) -> Option<Process> {
        let text = self.read("proc/self/stat")?;
        // The name is in parentheses and may contain anything. The state follows, which is the third field.
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Process { major_faults: field(12)?, cpu: field(14)?.checked_add(field(15)?)?.saturating_mul(TICK) })
    }

    /// Returns for how long no task of the machine could go on, because all of them waited for the same kind of thing, in
    /// nanoseconds since it was started. (Linux, `Documentation/accounting/psi.rst`.)
    pub(super) fn stalled(&self, pressure: Pressure) -> Option<u64> {
        let text = self.read(pressure.file())?;
        let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
        let total = full.split_whitespace().find_map(|field| field.strip_prefix("total="))?;
        total.parse::<u64>().ok()?.checked_mul(1_000)
    }

    /// Returns the throttling of the cgroup that was throttled most. One further out limits this process as well.
    pub(super) fn throttling(&self) -> Option<Throttling> {
        let all = self.cgroups.iter().filter_map(|path| throttling(&read(path)?));
        all.max_by_key(|throttling| throttling.nanos)
    }

    /// Finds `cpu.stat` of both versions of cgroups. In a container, the paths are those of the host, but what is mounted
    /// is the container's own.
    fn find_cgroups(&self) -> Vec<PathBuf> {
        let own = self.read("proc/self/cgroup").unwrap_or_default();
        let mut found = Vec::new();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let mounts: &[&str] = match controllers {
                "" => &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
                _ if controllers.split(',').any(|name| name == "cpu") => {
                    &["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]
                }
                _ => continue,
            };
            for mount in mounts {
                let mount = self.root.join(mount);
                // `..` leads out of a namespace.
                let inside = Path::new(path).strip_prefix("/").ok().filter(|path| !path.starts_with(".."));
                let folders = inside.unwrap_or(Path::new("")).ancestors().map(|folder| mount.join(folder));
                found.extend(folders.map(|folder| folder.join("cpu.stat")).filter(|path| path.is_file()).take(8));
            }
        }
        found
    }
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Reads `cpu.stat`: microseconds in version 2, nanoseconds in version 1.
fn throttling(text: &str) -> Option<Throttling> {
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value?.trim().parse::<u64>().ok()
    };
    let nanos = number("throttled_usec").map(|micros| micros.saturating_mul(1_000));
    Some(Throttling { times: number("nr_throttled")?, nanos: nanos.or_else(|| number("throttled_time"))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> (tempfile::TempDir, HostFiles) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let files = HostFiles::new(root.path());
        (root, files)
    }

    const V1: &str = "nr_periods 10\nnr_throttled 7\nthrottled_time 5000\n";
    const V2: &str = "usage_usec 9\nuser_usec 4\nsystem_usec 5\nnr_periods 10\nnr_throttled 7\nthrottled_usec 5\n";

    /// Guards: each version of cgroups is found where it is mounted: of a process, of a container, and of what is around.
    #[test]
    fn finds_the_cgroup_of_either_version() {
        let known = Some(Throttling { times: 7, nanos: 5_000 });
        for (cgroup, path, text) in [
            ("0::/\n", "sys/fs/cgroup/cpu.stat", V2),
            ("0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/b.service/cpu.stat", V2),
            ("0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/cpu.stat", V2),
            ("0::/../..\n", "sys/fs/cgroup/cpu.stat", V2),
            ("5:memory:/x\n1:cpu:/x/y\n0::/\n", "sys/fs/cgroup/cpu/x/y/cpu.stat", V1),
            ("4:cpu,cpuacct:/docker/1\n", "sys/fs/cgroup/cpu,cpuacct/cpu.stat", V1),
        ] {
            let (_root, files) = files(&[("proc/self/cgroup", cgroup), (path, text)]);
            assert_eq!(files.throttling(), known, "{cgroup} {path}");
        }
        let both = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/cpu.stat", "nr_throttled 1\nthrottled_usec 1\n"),
            ("sys/fs/cgroup/a/cpu.stat", V2),
        ];
        assert_eq!(files(&both).1.throttling(), known, "the one that was throttled most");
    }

    /// Guards: a name in `stat` may contain anything, and a sandbox may hide every file.
    #[test]
    fn reads_what_is_there() {
        let stat = "42 (a) b 9 9) S 1 2 3 4 5 6 100 200 300 400 7 5 0 0 20 0 3 0 1 2";
        let (_root, there) = files(&[("proc/self/stat", stat), ("proc/self/task/7/schedstat", "100 2000 3\n")]);
        assert_eq!(there.process(), Some(Process { major_faults: 300, cpu: 120_000_000 }));
        assert_eq!((there.run_times(7), there.run_times(8)), (Some((100, 2_000)), None));
        assert_eq!(there.throttling(), None);
        for damaged in ["", "42", "42 (x) S", "42 (x) S 1 2 3 4 5 6 7 8 9 10 11 x y"] {
            let (_root, files) = files(&[("proc/self/stat", damaged), ("proc/self/cgroup", damaged)]);
            assert_eq!((files.process(), files.throttling()), (None, None), "{damaged}");
        }
    }

    /// Guards: how long everything waited is read from the kernel's own line about that.
    #[test]
    fn reads_what_all_tasks_waited_for() {
        let io = "some avg10=1.00 avg60=0.00 avg300=0.00 total=900\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n";
        let (_root, there) = files(&[("proc/pressure/io", io), ("proc/pressure/memory", "some avg10=0.00 total=5\n")]);
        assert_eq!((there.stalled(Pressure::Io), there.stalled(Pressure::Memory)), (Some(7_000), None));
    }

    /// Guards: this kernel writes what is expected here.
    #[cfg(target_os = "linux")]
    #[test]
    fn reads_this_process() {
        let files = HostFiles::new(Path::new("/"));
        if Path::new("/proc/self/stat").is_file() {
            assert!(files.process().is_some());
        }
    }
}
