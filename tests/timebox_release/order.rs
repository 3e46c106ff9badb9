//! What is released, and in which order.

use std::sync::{Arc, Mutex};

use heeler::TimeboxExt as _;
use heeler::timebox::timebox;

use crate::common::{FOREVER, ms};

/// Notes its name when it is released.
struct Guard(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

/// Guards in an outer and an inner function, around a wait.
async fn work(released: &Arc<Mutex<Vec<&'static str>>>, wait: impl Future) {
    let guard = |name| Guard(name, released.clone());
    let _connection = guard("connection");
    let _transaction = guard("transaction");
    inner(guard("argument"), &guard, wait).await;
}

async fn inner(_argument: Guard, guard: &impl Fn(&'static str) -> Guard, wait: impl Future) {
    let _permit = guard("permit");
    let _file = guard("file");
    wait.await;
}

const ORDER: [&str; 5] = ["file", "permit", "argument", "transaction", "connection"];

/// Guards: an interruption releases in the same order as a return: what was declared last goes first, so that a transaction
/// ends before its connection. All of it is released before the caller has the error.
#[test]
fn an_interruption_releases_in_the_order_of_a_return() {
    crate::common::runtime(0).block_on(async {
        let released = Arc::default();
        work(&released, std::future::ready(())).timebox(FOREVER).await.unwrap();
        assert_eq!(*released.lock().unwrap(), ORDER);

        for limit in [ms(0), ms(1), ms(10)] {
            let released = Arc::default();
            work(&released, std::future::pending::<()>()).timebox(limit).await.unwrap_err();
            assert_eq!(*released.lock().unwrap(), ORDER, "{limit:?}");
        }

        // By the outer timebox, through an inner one.
        let released = Arc::default();
        let boxed = timebox(FOREVER, work(&released, std::future::pending::<()>()));
        timebox(ms(5), boxed).await.unwrap_err();
        assert_eq!(*released.lock().unwrap(), ORDER);
        // By an inner one: the outer goes on.
        let released = Arc::default();
        let boxed = timebox(ms(5), work(&released, std::future::pending::<()>()));
        timebox(FOREVER, boxed).await.unwrap().unwrap_err();
        assert_eq!(*released.lock().unwrap(), ORDER);
    });
}

/// Guards: a guard that panics when it is released does not stop the others, and the panic reaches the caller.
#[test]
fn a_panicking_guard_does_not_stop_the_others() {
    struct Panics;

    impl Drop for Panics {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("in a destructor"));
        }
    }

    let released = Arc::default();
    let boxed = async {
        let _first = Guard("first", Arc::clone(&released));
        let _panics = Panics;
        let _last = Guard("last", Arc::clone(&released));
        std::future::pending::<()>().await;
    }
    .timebox(ms(5));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| futures::executor::block_on(boxed)));
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "in a destructor");
    assert_eq!(*released.lock().unwrap(), ["last", "first"]);
    // The thread is no longer inside a timebox.
    assert!(heeler::timebox::remaining().is_none());
    assert!(heeler::checkpoint().is_ok());
}
