//! Stores that fail, hang, are slow, or ignore conditions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::common::{PATIENCE, until};
use crate::stores::Shaky;
use crate::{Instance, counted, firsts, get_stuck, instances, messages, sums_up};

fn shaky(number: usize) -> (Arc<Shaky>, Arc<dyn ObjectStore>, Vec<Instance>) {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let shaky = Shaky::new(Arc::clone(&memory));
    let store: Arc<dyn ObjectStore> = shaky.clone();
    let instances = instances(number, &store, |fleet| fleet);
    (shaky, memory, instances)
}

fn all_get_stuck(instances: &[Instance], jobs: u64) {
    get_stuck(instances.iter().map(Instance::sinks), jobs);
}

/// Guards: where a condition means nothing, everybody would believe to be the first. It is found out, and each tells people.
#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    each_tells_people_without_conditions(|shaky| &shaky.ignores);
}

/// Guards: the same where conditions are refused, as by a client of S3 that is set up without them.
#[test]
fn a_store_that_rejects_conditions_is_found_out() {
    each_tells_people_without_conditions(|shaky| &shaky.rejects);
}

/// Guards: the same where the server does not know conditions, and answers as if it were broken.
#[test]
fn a_store_that_breaks_at_conditions_is_found_out() {
    each_tells_people_without_conditions(|shaky| &shaky.breaks);
}

fn each_tells_people_without_conditions(which: fn(&Shaky) -> &AtomicBool) {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let shaky = Shaky::new(Arc::clone(&memory));
    which(&shaky).store(true, SeqCst);
    let store: Arc<dyn ObjectStore> = shaky.clone();
    let instances = crate::instances(3, &store, |fleet| fleet);
    until("all know", || {
        instances.iter().all(|instance| instance.reports.fleet().unwrap().heeds_conditions == Some(false))
    });
    all_get_stuck(&instances, 2);
    until("each tells people", || messages(&instances) == 3);
    for instance in &instances {
        assert!(instance.reports.blocking_flush(PATIENCE));
        let fleet = instance.messages().remove(0).fleet.unwrap();
        assert!(fleet.alone);
        assert_eq!(instance.reports.fleet().unwrap().messages_alone, 1);
    }
    assert_eq!((messages(&instances), counted(&memory)), (3, 6), "once for each, and all are counted");
}

/// Guards: while the store is down, each instance tells people for itself. What it has to count and to keep waits, and is all
/// there when the store is back.
#[test]
fn each_tells_people_while_the_store_is_down() {
    let (shaky, memory, instances) = shaky(3);
    shaky.down.store(true, SeqCst);
    all_get_stuck(&instances, 2);
    until("each tells people", || messages(&instances) == 3);
    for instance in &instances {
        let (stats, fleet) = (instance.reports.stats(), instance.reports.fleet().unwrap());
        sums_up(&stats);
        assert_eq!((stats.undelivered, fleet.unwritten), (0, 2));
        assert!(
            !instance.reports.blocking_flush(Duration::from_millis(100)),
            "nothing is said to be there that is not"
        );
    }
    shaky.down.store(false, SeqCst);
    for instance in &instances {
        assert!(instance.reports.blocking_flush(PATIENCE), "{:?}", instance.reports.fleet());
        let stats = instance.reports.stats();
        sums_up(&stats);
        assert_eq!((stats.delivered, instance.reports.fleet().unwrap().unwritten), (stats.made, 0));
    }
    assert_eq!(counted(&memory), 6);
    all_get_stuck(&instances, 1);
    instances.iter().for_each(|instance| assert!(instance.reports.blocking_flush(PATIENCE)));
    assert_eq!((messages(&instances), counted(&memory)), (3, 9), "people know of it");
}

/// Guards: a store that never answers delays the message by seconds, and nothing else at all.
#[test]
fn a_store_that_hangs_delays_no_other_sink() {
    let (shaky, memory, instances) = shaky(2);
    shaky.hangs.store(true, SeqCst);
    let began = Instant::now();
    all_get_stuck(&instances, 1);
    until("other sinks have it", || instances.iter().all(|instance| firsts(&instance.all) == 1));
    assert_eq!(messages(&instances), 0, "after {:?}", began.elapsed());
    until("each tells people", || messages(&instances) == 2);
    shaky.hangs.store(false, SeqCst);
    for instance in &instances {
        assert!(instance.reports.blocking_flush(PATIENCE), "{:?}", instance.reports.fleet());
        sums_up(&instance.reports.stats());
    }
    assert_eq!(counted(&memory), 2);
}

/// Guards: requests that fail now and then, or that fail although they have worked, make neither a second message nor a wrong
/// count.
#[test]
fn errors_now_and_then_change_nothing() {
    let (shaky, memory, instances) = shaky(4);
    shaky.errors.store(10, SeqCst);
    shaky.delay.store(20, SeqCst);
    all_get_stuck(&instances, 3);
    until("people are told", || messages(&instances) > 0);
    for instance in &instances {
        assert!(instance.reports.blocking_flush(PATIENCE), "{:?}", instance.reports.fleet());
        sums_up(&instance.reports.stats());
    }
    assert_eq!((messages(&instances), counted(&memory)), (1, 12));
    let failed: u64 = instances.iter().map(|instance| instance.reports.fleet().unwrap().failed_requests).sum();
    assert!(failed > 0, "of {} requests", shaky.requests());
}

/// Guards: an instance that has nothing to report asks the store for nothing.
#[test]
fn a_quiet_instance_costs_nothing() {
    let (shaky, _, instances) = shaky(2);
    for instance in &instances {
        // What is done once a day is done.
        assert!(instance.reports.blocking_flush(PATIENCE));
    }
    let mut before = shaky.requests();
    until("it is quiet", || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, shaky.requests()) == shaky.requests()
    });
    for instance in &instances {
        assert!(instance.reports.blocking_flush(PATIENCE));
    }
    assert_eq!(shaky.requests(), before);
}
