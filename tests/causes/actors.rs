//! Tasks that handle one message after another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heeler::report::Finding;
use heeler::{Actor, wait_for};
use tokio::sync::{mpsc, oneshot};

use super::{Service, THRESHOLD, fetch_rates, is, ms, shared};

type Message = oneshot::Sender<()>;

/// Guards: who waits for an actor's answer is told which message it is busy with, and where that is.
#[test]
fn an_actor_busy_with_another_message_is_named() {
    let service = Service::new(2);
    let rates = Actor::new("rates", Duration::MAX);
    let (queue, mut messages) = mpsc::channel::<Message>(16);
    let (actor, busy) = (rates.clone(), shared(AtomicBool::new(false)));
    let is_busy = busy.clone();
    service.driven.spawn(async move {
        while let Some(_answer) = messages.recv().await {
            busy.store(true, Ordering::Relaxed);
            actor.message("refresh", fetch_rates()).await;
        }
    });
    for path in ["/first", "/second"] {
        let (rates, queue, is_busy) = (rates.clone(), queue.clone(), is_busy.clone());
        service.request(path, async move {
            let (answer, answered) = oneshot::channel();
            if path == "/second" {
                is(|| is_busy.load(Ordering::Relaxed)).await;
            }
            wait_for(&rates, queue.send(answer)).await.unwrap();
            let _ = wait_for(&rates, answered).await;
        });
    }
    for path in ["/first", "/second"] {
        let sentence = service.sentence(path);
        assert!(sentence.contains("; \"rates\" is held by the job \"rates: refresh\" (taken "), "{sentence}");
        assert!(sentence.contains("at tests/causes/actors.rs:25; it waits in causes::fetch_rates"), "{sentence}");
    }
    let resource = service.report("/second").others.unwrap().resource.unwrap();
    assert_eq!((resource.certain, resource.queue), (true, 1), "the other request waits, too");
}

/// Guards: two actors that ask each other are a deadlock, told to both.
#[test]
fn two_actors_that_ask_each_other_are_a_deadlock() {
    let service = Service::new(2);
    let reports = |actor: Actor| actor.reports(service.reports.clone());
    let (orders, stock) = (reports(Actor::new("orders", THRESHOLD)), reports(Actor::new("stock", THRESHOLD)));
    let begun = shared([AtomicBool::new(false), AtomicBool::new(false)]);
    for (at, own, other) in [(0, orders.clone(), stock.clone()), (1, stock, orders)] {
        let begun = begun.clone();
        service.driven.spawn(async move {
            let ask = async {
                begun[at].store(true, Ordering::Relaxed);
                is(|| begun[1 - at].load(Ordering::Relaxed)).await;
                let (_asked, answered) = oneshot::channel::<()>();
                let _ = wait_for(&other, answered).await;
            };
            own.message("ask", ask).queued(4).await;
        });
    }
    let report = service.seen.wait("an actor", |report| report.job.as_deref() == Some("orders: ask"));
    let sentence = report.sentence();
    assert!(sentence.contains("; deadlock: the job \"stock: ask\" holds \"stock\" (taken "), "{sentence}");
    assert_eq!(report.others.unwrap().resource.unwrap().finding, Finding::Deadlock);
    assert!(report.notes.contains(&"4 messages were queued behind it when it began".to_owned()), "{:?}", report.notes);
    assert!(report.elapsed > ms(250));
}
