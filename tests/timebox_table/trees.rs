//! Random trees of boxes within boxes, on the real engine, against a model of what should come of them.
//!
//! A tree is taken only if no two of its moments are close to each other in the model. A machine that is busier than that can
//! still mix them up, so that a tree that went otherwise is tried again: what is wrong is wrong each time. What no delay can
//! excuse is asserted at once.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use heeler::timebox::blocking;
use heeler::{Interrupted, TimeboxExt};

use super::common::{PATIENCE, alone, at_least, ms, runtime};
use super::work_for;

/// No two moments of a tree are closer, in milliseconds.
const MARGIN: u64 = 25;
const TREES: usize = 60;
const TRIES: usize = 5;

#[derive(Debug, Clone)]
enum Step {
    Nap(u64),
    Box(Tree),
}

/// A box with a limit in milliseconds, and what is done in it.
#[derive(Debug, Clone)]
struct Tree {
    number: usize,
    limit: u64,
    steps: Vec<Step>,
}

/// Which boxes ended, in which order, and whether in time.
type Events = Vec<(usize, bool)>;

fn label(number: usize) -> String {
    format!("box {number}")
}

fn grow(rng: &mut Rng, depth: usize, next: &mut usize) -> Tree {
    let number = *next;
    *next += 1;
    let steps = (0..rng.usize(1..4))
        .map(|_| match depth < 3 && rng.bool() {
            true => Step::Box(grow(rng, depth + 1, next)),
            false => Step::Nap(rng.u64(10..120)),
        })
        .collect();
    Tree { number, limit: rng.u64(20..300), steps }
}

/// What should come of it. The moments that matter are noted, so that trees can be refused in which they are close.
#[derive(Default)]
struct Model {
    now: u64,
    events: Events,
    moments: Vec<u64>,
}

impl Model {
    /// `Err` with the number of the box that was interrupted.
    fn run(&mut self, tree: &Tree, around: Option<(usize, u64)>) -> Result<(), usize> {
        let own = self.now + tree.limit;
        let (owner, deadline) = match around {
            // With no more time than what is around it, it does nothing.
            Some((owner, deadline)) if own >= deadline => (owner, deadline),
            _ => (tree.number, own),
        };
        self.moments.push(own);
        let result = tree.steps.iter().try_for_each(|step| match step {
            Step::Nap(nap) => {
                let end = self.now + nap;
                self.moments.push(end);
                self.now = end.min(deadline);
                if end < deadline { Ok(()) } else { Err(owner) }
            }
            // Each handler handles only its own interruption.
            Step::Box(inner) => match self.run(inner, Some((owner, deadline))) {
                Err(interrupted) if interrupted != inner.number => Err(interrupted),
                _ => Ok(()),
            },
        });
        match result {
            Err(interrupted) if interrupted != tree.number => {}
            result => self.events.push((tree.number, result.is_ok())),
        }
        result
    }

    fn is_clear(&mut self) -> bool {
        self.moments.sort_unstable();
        self.moments.dedup();
        self.moments.windows(2).all(|pair| pair[1] - pair[0] >= MARGIN)
    }
}

fn clear_trees(rng: &mut Rng) -> Vec<(Tree, Events)> {
    let mut trees = Vec::new();
    while trees.len() < TREES {
        let tree = grow(rng, 0, &mut 0);
        let mut model = Model::default();
        let _ = model.run(&tree, None);
        let nested = tree.steps.iter().any(|step| matches!(step, Step::Box(_)));
        if nested && model.is_clear() {
            trees.push((tree, model.events));
        }
    }
    trees
}

/// What holds however late everybody is.
#[track_caller]
fn never_early(tree: &Tree, start: Instant, around: Option<Instant>, error: &Interrupted) {
    let limit = ms(tree.limit);
    assert!(error.is_from(&label(tree.number)) && error.limit() == limit, "{error}");
    assert!(error.elapsed() >= limit && start.elapsed() >= at_least(limit), "{error}");
    // One clock is read before the timebox opens, and another when it does.
    let slack = ms(5);
    assert!(around.is_none_or(|around| start + limit <= around + slack), "{error}: there is less time around it");
}

fn futures_of(
    tree: &Tree,
    around: Option<Instant>,
    events: std::sync::Arc<std::sync::Mutex<Events>>,
) -> BoxFuture<'_, ()> {
    async move {
        let start = Instant::now();
        let own = start + ms(tree.limit);
        let deadline = around.map_or(own, |around| around.min(own));
        let steps = async {
            for step in &tree.steps {
                match step {
                    Step::Nap(nap) => tokio::time::sleep(ms(*nap)).await,
                    Step::Box(inner) => futures_of(inner, Some(deadline), events.clone()).await,
                }
            }
        };
        let result = steps.timebox(ms(tree.limit)).label(label(tree.number)).await;
        if let Err(error) = &result {
            never_early(tree, start, around, error);
        }
        events.lock().unwrap().push((tree.number, result.is_ok()));
    }
    .boxed()
}

/// Plain boxes have no label: the limit tells them apart.
fn plain(tree: &Tree, events: &mut Events) -> Result<(), Interrupted> {
    let result = blocking(ms(tree.limit), || {
        for step in &tree.steps {
            match step {
                Step::Nap(nap) => drop(work_for(ms(*nap))?),
                Step::Box(inner) => match plain(inner, events) {
                    Err(error) if error.limit() != ms(inner.limit) => return Err(error),
                    _ => {}
                },
            }
        }
        Ok(())
    });
    match &result {
        Err(error) if error.limit() != ms(tree.limit) => {}
        result => events.push((tree.number, result.is_ok())),
    }
    result
}

/// Runs all at once, and those that went otherwise once more.
fn try_all(mut trees: Vec<(Tree, Events)>, all: impl Fn(&[(Tree, Events)]) -> Vec<Events>) {
    for _ in 0..TRIES {
        let seen = all(&trees);
        assert_eq!(seen.len(), trees.len());
        let wrong: Vec<_> = trees.into_iter().zip(seen).filter(|((_, expected), seen)| expected != seen).collect();
        if wrong.is_empty() {
            return;
        }
        eprintln!("{} went otherwise; the first: {:?}", wrong.len(), wrong[0]);
        trees = wrong.into_iter().map(|(tree, _)| tree).collect();
    }
    panic!("each time: {trees:?}");
}

/// Guards: which timebox interrupts which future, and that the clock of an outer one goes on after the inner one ended.
#[test]
fn nested_futures_are_interrupted_by_the_right_timebox() {
    let _guard = alone();
    let runtime = runtime(2);
    try_all(clear_trees(&mut Rng::with_seed(4)), |trees| {
        let tasks = trees.iter().map(|(tree, _)| {
            let tree = tree.clone();
            runtime.spawn(async move {
                let events = std::sync::Arc::<std::sync::Mutex<Events>>::default();
                futures_of(&tree, None, events.clone()).await;
                let events = events.lock().unwrap();
                events.clone()
            })
        });
        let tasks = tasks.collect::<Vec<_>>();
        let all = runtime.block_on(async { tokio::time::timeout(PATIENCE, join_all(tasks)).await });
        all.expect("no tree takes so long").into_iter().map(|events| events.expect("nothing is early")).collect()
    });
}

/// Guards: the same for plain code, with one thread per tree.
#[test]
fn nested_closures_are_interrupted_by_the_right_timebox() {
    let _guard = alone();
    let mut trees = clear_trees(&mut Rng::with_seed(5));
    // If two timeboxes have the same limit, their interruptions cannot be told apart.
    trees.retain(|(tree, _)| {
        let mut limits = limits(tree);
        limits.sort_unstable();
        limits.windows(2).all(|pair| pair[0] < pair[1])
    });
    try_all(trees, |trees| {
        std::thread::scope(|scope| {
            let threads = trees.iter().map(|(tree, _)| {
                scope.spawn(|| {
                    let (start, mut events) = (Instant::now(), Events::new());
                    if let Err(error) = plain(tree, &mut events) {
                        assert!(
                            error.limit() == ms(tree.limit) && start.elapsed() >= at_least(error.limit()),
                            "{error}"
                        );
                    }
                    events
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("nothing is early")).collect()
        })
    });
}

fn limits(tree: &Tree) -> Vec<Duration> {
    let inner = tree.steps.iter().flat_map(|step| match step {
        Step::Nap(_) => Vec::new(),
        Step::Box(inner) => limits(inner),
    });
    std::iter::once(ms(tree.limit)).chain(inner).collect()
}
