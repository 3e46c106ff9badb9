//! Filters of system calls.

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};

/// What becomes of a system call.
pub(crate) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
pub(crate) const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
pub(crate) const REFUSE: u32 = refuse(libc::EPERM);

/// It fails with that error.
pub(crate) const fn refuse(error: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | error as u32
}

/// From now on the calls of the list come to `listed`, and all others to `others`: on this thread, or with the flag
/// `SECCOMP_FILTER_FLAG_TSYNC` on every one.
pub(crate) fn filter(calls: &[i64], listed: u32, others: u32, flags: libc::c_ulong) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = vec![statement(BPF_LD | BPF_W | BPF_ABS, 0)];
    for call in calls {
        let compare = libc::sock_filter { jt: 0, jf: 1, ..statement(BPF_JMP | BPF_JEQ | BPF_K, *call as u32) };
        program.extend([compare, statement(BPF_RET | BPF_K, listed)]);
    }
    program.push(statement(BPF_RET | BPF_K, others));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program lives for the time of the calls, which change what this process may do from here on.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program);
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}
