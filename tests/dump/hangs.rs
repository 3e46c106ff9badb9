//! A test that hangs.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use heeler::test::hang_guard;
use tokio::sync::Mutex;

use super::common::ms;

/// Is set in the process whose test hangs.
const HANGS: &str = "HEELER_TEST_HANGS";

async fn first_then_second(locks: &[Mutex<()>; 2]) {
    let _first = locks[0].lock().await;
    tokio::time::sleep(ms(10)).await;
    let _second = locks[1].lock().await;
}

async fn second_then_first(locks: &[Mutex<()>; 2]) {
    let _second = locks[1].lock().await;
    tokio::time::sleep(ms(10)).await;
    let _first = locks[0].lock().await;
}

/// The test that hangs. It runs only where another test starts it.
#[test]
fn a_test_that_deadlocks() {
    if std::env::var_os(HANGS).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
    runtime.block_on(hang_guard(ms(500), async {
        tokio::join!(first_then_second(&locks), second_then_first(&locks));
    }));
}

/// The same with a clock that stands still.
#[test]
fn a_test_that_deadlocks_in_paused_time() {
    if std::env::var_os(HANGS).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
    runtime.block_on(hang_guard(ms(500), async {
        tokio::join!(first_then_second(&locks), second_then_first(&locks));
    }));
}

fn output_of(test: &str) -> String {
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).args(["--exact", test]).env(HANGS, "1").output().unwrap();
    assert!(!output.status.success(), "the test fails");
    // What was printed past the runner, and what the runner says.
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Guards: a test that hangs says where each of its branches waits, and fails, whatever tokio's clock does.
#[test]
fn a_test_that_hangs_says_where() {
    for test in ["hangs::a_test_that_deadlocks", "hangs::a_test_that_deadlocks_in_paused_time"] {
        let text = output_of(test);
        assert!(text.contains("hang_guard at tests/dump/hangs.rs:"), "{text}");
        assert!(text.contains("not finished after 500 ms"), "{text}");
        for function in ["first_then_second", "second_then_first"] {
            assert!(text.contains(&format!("=> dump::hangs::{function}  tests/dump/hangs.rs:")), "{function}: {text}");
        }
        assert!(text.contains("where it waits was printed"), "{text}");
    }
}

/// Guards: a test in time is left alone, and its outcome passed on.
#[test]
fn a_test_in_time_is_left_alone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(hang_guard(Duration::from_secs(60), async {
        tokio::time::sleep(ms(5)).await;
        7
    }));
    assert_eq!(answer, 7);
}
