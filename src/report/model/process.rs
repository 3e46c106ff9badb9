//! The process that makes the reports.

use super::deployment::of_environment;
use crate::capture::PerProcess;
use crate::report::model::{ProcessInfo, Stack};

/// Fills in what was left open: host, pid, executable, where the process runs as far as its environment says so, and the
/// executable's build id if a frame has it.
pub(crate) fn complete(process: &mut ProcessInfo, stacks: &[Stack]) {
    static THIS: PerProcess<ProcessInfo> = PerProcess::new(|| ProcessInfo {
        hostname: hostname(),
        pid: std::process::id(),
        executable: std::env::current_exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        ..of_environment(|name| std::env::var(name).ok())
    });
    let this = THIS.get();
    if process.hostname.is_empty() {
        process.hostname.clone_from(&this.hostname);
    }
    if process.pid == 0 {
        process.pid = this.pid;
    }
    if process.executable.is_empty() {
        process.executable.clone_from(&this.executable);
    }
    // A version belongs to its service.
    if process.service.is_none() {
        process.service.clone_from(&this.service);
        process.version = process.version.take().or_else(|| this.version.clone());
    }
    for (field, known) in [(&mut process.instance, &this.instance), (&mut process.zone, &this.zone)] {
        if field.is_none() {
            field.clone_from(known);
        }
    }
    if process.build_id.is_none() {
        let name = process.executable.rsplit(['/', '\\']).next();
        let mut frames = stacks.iter().flat_map(|stack| &stack.frames);
        process.build_id =
            frames.find(|frame| frame.module.as_deref() == name).and_then(|frame| frame.build_id.clone());
    }
}

/// Returns the host's name, from a source that needs no call into C.
pub(crate) fn hostname() -> String {
    let of_kernel =
        || std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let of_environment = || std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).unwrap_or_default();
    let name = of_kernel().unwrap_or_else(|_| of_environment());
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, own};

    #[test]
    fn fills_in_what_the_report_lacks() {
        let mut process = ProcessInfo::default();
        complete(&mut process, &[]);
        assert_eq!(process.pid, std::process::id());
        assert!(!process.hostname.is_empty() && !process.executable.is_empty());
        assert_eq!(process.build_id, None);

        let mut frame = own("app::load", 1);
        frame.build_id = Some("abc".to_owned());
        let mut given = ProcessInfo {
            hostname: "h".to_owned(),
            pid: 1,
            executable: "/opt/photos".to_owned(),
            ..ProcessInfo::default()
        };
        complete(&mut given, &[await_stack(&[frame])]);
        assert_eq!((&*given.hostname, given.pid, given.build_id.as_deref()), ("h", 1, Some("abc")));
    }
}
