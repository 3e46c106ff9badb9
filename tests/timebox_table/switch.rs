//! The off switch: new boxes do not fire, running ones do.

use std::process::Command;
use std::sync::mpsc;

use heeler::timebox::{blocking, is_enabled, set_enabled};
use heeler::{Quota, timebox};

use super::common::{FOREVER, PATIENCE, in_own_process, in_process_of, ms, runtime};
use super::{SHORT, forever, run, work, work_for};

/// Longer than a box that was on would have lasted.
fn nothing_fires() {
    run(async {
        let nap = timebox(SHORT, tokio::time::sleep(SHORT * 5));
        nap.await.unwrap();
    });
    assert_eq!(blocking(SHORT, || work_for(SHORT * 5)).unwrap(), 7);
    let quota = Quota::new(ms(1)).unwrap();
    assert_eq!(blocking(&quota, || work_for(SHORT)).unwrap(), 7);
    assert_eq!(quota.remaining(), quota.total(), "a disabled timebox spends nothing");
}

/// "Can be disabled by a function": for a debugger that is attached while the program runs.
#[test]
fn a_function_disables_timeboxes() {
    in_own_process("switch::a_function_disables_timeboxes", || {
        assert!(is_enabled());
        let runtime = runtime(1);
        let (begun, begins) = mpsc::channel();
        let running = runtime.spawn(timebox(ms(300), async move {
            begun.send(()).unwrap();
            forever().await
        }));
        begins.recv_timeout(PATIENCE).unwrap();
        let (begun, begins) = mpsc::channel();
        let plain = std::thread::spawn(move || {
            blocking(ms(300), || {
                begun.send(()).unwrap();
                work()
            })
        });
        begins.recv_timeout(PATIENCE).unwrap();

        set_enabled(false);
        assert!(!is_enabled());
        nothing_fires();
        assert!(runtime.block_on(running).unwrap().is_err(), "a running timebox expires");
        assert!(plain.join().unwrap().is_err(), "a running timebox expires");

        set_enabled(true);
        assert!(is_enabled());
        run(async { timebox(SHORT, forever()).await.unwrap_err() });
        blocking(SHORT, work).unwrap_err();
    });
}

/// "Can be disabled by an environment variable". After that, only a call of the function enables them again.
#[test]
fn an_environment_variable_disables_timeboxes() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("HEELER_DISABLE_TIMEBOXES", "1");
    in_process_of(command, "switch::an_environment_variable_disables_timeboxes", || {
        assert!(!is_enabled());
        nothing_fires();
        assert_eq!(run(timebox(FOREVER, async { 7 })).unwrap(), 7);
        set_enabled(true);
        blocking(SHORT, work).unwrap_err();
    });
}

/// Guards: any other value means nothing.
#[test]
fn other_values_do_not_disable_timeboxes() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("HEELER_DISABLE_TIMEBOXES", "0");
    in_process_of(command, "switch::other_values_do_not_disable_timeboxes", || {
        assert!(is_enabled());
        blocking(SHORT, work).unwrap_err();
    });
}
