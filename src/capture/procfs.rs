//! What `/proc` says of a thread of this process. Needs no privilege: a thread group may always look at itself.

/// What a thread is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) tid: i32,
    pub(crate) name: String,
    /// `R`, `S`, `D`, ..
    pub(crate) state: Option<char>,
    /// The number of the system call it sleeps in.
    pub(crate) call: Option<usize>,
    /// Where in the kernel it sleeps.
    pub(crate) wchan: Option<String>,
    /// The kernel's line on the call: number, arguments, stack pointer, program counter.
    line: String,
}

/// Looks at a thread; what cannot be read stays empty.
pub(crate) fn look(tid: i32) -> Activity {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/task/{tid}/{file}")).unwrap_or_default();
    let line = read("syscall").trim_end().to_owned();
    let stat = read("stat");
    let wchan = read("wchan");
    Activity {
        tid,
        name: read("comm").trim_end().to_owned(),
        // The name stands in parentheses and may hold any character: the state follows the last one.
        state: stat.rfind(')').and_then(|end| stat[end + 1..].trim_start().chars().next()),
        call: line.split(' ').next().and_then(|number| number.parse().ok()),
        wchan: Some(wchan).filter(|place| !place.is_empty() && place != "0"),
        line,
    }
}

impl Activity {
    /// Whether the thread sits in a system call, and in the same one at the same place.
    pub(crate) fn same_call(&self, other: &Self) -> bool {
        self.call.is_some() && self.line == other.line
    }

    /// Stack pointer and program counter of a thread that sits in a system call.
    #[cfg(all(heeler_copies, target_arch = "x86_64"))]
    pub(crate) fn registers(&self) -> Option<(u64, u64)> {
        self.call?;
        let mut words = self.line.rsplit(' ').map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16));
        let pc = words.next()?.ok()?;
        let sp = words.next()?.ok()?;
        Some((sp, pc))
    }

    /// The system call's name.
    pub(crate) fn call_name(&self) -> Option<String> {
        let number = self.call?;
        #[cfg(target_os = "linux")]
        if let Some(call) = syscalls::Sysno::new(number) {
            return Some(call.name().to_owned());
        }
        Some(number.to_string())
    }

    /// The state in words.
    pub(crate) fn state_name(&self) -> Option<&'static str> {
        Some(match self.state? {
            'R' => "running",
            'S' => "sleeping",
            'D' => "uninterruptible",
            'T' | 't' => "stopped",
            'Z' | 'X' => "ended",
            'I' => "idle",
            _ => "unknown",
        })
    }

    /// Whether it has the CPU, or wants it.
    pub(crate) fn on_cpu(&self) -> Option<bool> {
        self.state.map(|state| state == 'R')
    }
}

#[cfg(all(test, heeler_copies))]
mod tests {
    use super::*;

    /// A thread that sleeps is seen sleeping in a system call with a name.
    #[test]
    fn a_sleeping_thread_is_seen_in_its_call() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let (tid, tell) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("sleeper (1) x".into())
            .spawn(move || {
                tid.send(super::super::sys::thread_id()).unwrap();
                receive.recv().unwrap_err();
            })
            .unwrap();
        let tid = tell.recv().unwrap();
        // On its way there it may sleep elsewhere, for memory say.
        let sleeps = |seen: &Activity| seen.state == Some('S') && seen.call_name().as_deref() == Some("futex");
        let seen = std::iter::repeat_with(|| look(tid)).take(1_000_000).find(sleeps).unwrap();
        assert_eq!(seen.name, "sleeper (1) x");
        assert_eq!(seen.on_cpu(), Some(false));
        drop(send);
        thread.join().unwrap();
    }
}
