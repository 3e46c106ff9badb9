//! Random programs of everything that futures are made of. Each has one value, whatever order its parts run in.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use proptest::prelude::*;
use tokio::sync::{Mutex, Notify, Semaphore, broadcast, mpsc, oneshot};

use super::common::FOREVER;

/// See the module. Durations are microseconds.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Ready(u8),
    Sleep(u16),
    Yield(u8),
    /// Computes without giving way.
    Busy(u16),
    /// Takes a free permit again and again: tokio makes it give way.
    Drain(u16),
    Blocking(u8),
    Join(Box<[Tree; 3]>),
    /// Until both are done.
    Select(Box<[Tree; 2]>),
    /// Beside branches that never end.
    SelectNever(Box<Tree>),
    Timeout(Box<Tree>),
    Lock(Vec<Tree>),
    FuturesLock(Vec<Tree>),
    Permits(u8, Vec<Tree>),
    Notify(Box<Tree>),
    Oneshot(Box<Tree>),
    Mpsc(u8, Vec<Tree>),
    Broadcast(u8, Vec<Tree>),
    Spawn(Box<Tree>),
    SpawnChild(Box<Tree>),
    Unordered(Vec<Tree>),
    UnorderedChildren(Vec<Tree>),
    Shared(u8, Box<Tree>),
    Watch(Box<Tree>),
    /// Unwinds at its end, and is caught.
    Panic(Box<Tree>),
    /// Dropped before it ends.
    Dropped(Box<Tree>),
}

pub(crate) fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<u8>().prop_map(Tree::Ready),
        (0..4_000_u16).prop_map(Tree::Sleep),
        (0..20_u8).prop_map(Tree::Yield),
        (0..1_500_u16).prop_map(Tree::Busy),
        (0..1_000_u16).prop_map(Tree::Drain),
        any::<u8>().prop_map(Tree::Blocking),
    ];
    leaf.prop_recursive(4, 24, 4, |tree| {
        let one = || tree.clone().prop_map(Box::new);
        let two = (tree.clone(), tree.clone()).prop_map(|(a, b)| Box::new([a, b]));
        let three = (tree.clone(), tree.clone(), tree.clone()).prop_map(|(a, b, c)| Box::new([a, b, c]));
        let some = || prop::collection::vec(tree.clone(), 1..4);
        prop_oneof![
            three.prop_map(Tree::Join),
            two.prop_map(Tree::Select),
            one().prop_map(Tree::SelectNever),
            one().prop_map(Tree::Timeout),
            some().prop_map(Tree::Lock),
            some().prop_map(Tree::FuturesLock),
            (1..3_u8, some()).prop_map(|(permits, trees)| Tree::Permits(permits, trees)),
            one().prop_map(Tree::Notify),
            one().prop_map(Tree::Oneshot),
            (1..3_u8, some()).prop_map(|(room, trees)| Tree::Mpsc(room, trees)),
            (1..3_u8, some()).prop_map(|(receivers, trees)| Tree::Broadcast(receivers, trees)),
            one().prop_map(Tree::Spawn),
            one().prop_map(Tree::SpawnChild),
            some().prop_map(Tree::Unordered),
            some().prop_map(Tree::UnorderedChildren),
            (1..4_u8, one()).prop_map(|(times, tree)| Tree::Shared(times, tree)),
            one().prop_map(Tree::Watch),
            one().prop_map(Tree::Panic),
            one().prop_map(Tree::Dropped),
        ]
    })
}

/// Order matters where it is fixed: two different trees rarely have one value.
fn mix(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(17, |mixed, value| mixed.rotate_left(5).wrapping_mul(0x9e37_79b9).wrapping_add(value))
}

fn sum(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(3, u64::wrapping_add)
}

fn values(trees: &[Tree]) -> impl Iterator<Item = u64> {
    trees.iter().map(Tree::value)
}

fn start(trees: &[Tree]) -> Vec<BoxFuture<'static, u64>> {
    trees.iter().map(Tree::run).collect()
}

impl Tree {
    /// What it comes to.
    pub(crate) fn value(&self) -> u64 {
        match self {
            Self::Ready(value) | Self::Blocking(value) => u64::from(*value),
            Self::Sleep(_) => 1,
            Self::Yield(times) => u64::from(*times),
            Self::Busy(_) => 2,
            Self::Drain(times) => u64::from(*times),
            Self::Join(trees) => mix(values(&trees[..])),
            Self::Select(trees) => mix(values(&trees[..])),
            Self::SelectNever(tree) | Self::Timeout(tree) | Self::Notify(tree) | Self::Oneshot(tree) => {
                tree.value() + 1
            }
            Self::Lock(trees) | Self::FuturesLock(trees) | Self::Permits(_, trees) => sum(values(trees)),
            Self::Mpsc(_, trees) => mix(values(trees)),
            Self::Broadcast(receivers, trees) => mix((0..*receivers).map(|_| mix(values(trees)))),
            Self::Spawn(tree) | Self::SpawnChild(tree) | Self::Watch(tree) | Self::Panic(tree) => tree.value() + 2,
            Self::Unordered(trees) | Self::UnorderedChildren(trees) => sum(values(trees)),
            Self::Shared(times, tree) => tree.value().wrapping_mul(u64::from(*times)),
            Self::Dropped(_) => 5,
        }
    }

    /// A future that comes to it.
    pub(crate) fn run(&self) -> BoxFuture<'static, u64> {
        self.leaf().or_else(|| self.branches()).or_else(|| self.one()).unwrap_or_else(|| self.many())
    }

    fn leaf(&self) -> Option<BoxFuture<'static, u64>> {
        Some(match *self {
            Self::Ready(value) => async move { u64::from(value) }.boxed(),
            Self::Sleep(micros) => async move {
                tokio::time::sleep(Duration::from_micros(micros.into())).await;
                1
            }
            .boxed(),
            Self::Yield(times) => async move {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
                times.into()
            }
            .boxed(),
            Self::Busy(micros) => async move {
                let until = Instant::now() + Duration::from_micros(micros.into());
                while Instant::now() < until {
                    std::hint::black_box(vec![micros; 10]);
                }
                2
            }
            .boxed(),
            Self::Drain(times) => async move {
                let permits = Semaphore::new(1);
                for _ in 0..times {
                    drop(permits.acquire().await);
                }
                times.into()
            }
            .boxed(),
            Self::Blocking(value) => async move { heeler::spawn_blocking(move || value.into()).await.unwrap() }.boxed(),
            _ => return None,
        })
    }

    fn branches(&self) -> Option<BoxFuture<'static, u64>> {
        Some(match self {
            Self::Join(trees) => {
                let [a, b, c] = [trees[0].run(), trees[1].run(), trees[2].run()];
                async { mix(<[u64; 3]>::from(tokio::join!(a, b, c))) }.boxed()
            }
            Self::Select(trees) => {
                let [mut a, mut b] = [trees[0].run().fuse(), trees[1].run().fuse()];
                async move {
                    let (mut first, mut second) = (None, None);
                    while first.is_none() || second.is_none() {
                        tokio::select! {
                            value = &mut a, if first.is_none() => first = Some(value),
                            value = &mut b, if second.is_none() => second = Some(value),
                        }
                    }
                    mix([first.unwrap(), second.unwrap()])
                }
                .boxed()
            }
            Self::SelectNever(tree) => {
                let tree = tree.run();
                async move {
                    let (_send, never) = oneshot::channel::<u64>();
                    let notify = Notify::new();
                    tokio::select! {
                        value = tree => value + 1,
                        _ = never => 0,
                        () = notify.notified() => 0,
                        () = tokio::time::sleep(FOREVER) => 0,
                    }
                }
                .boxed()
            }
            Self::Dropped(tree) => {
                let tree = tree.run();
                async move {
                    let either = futures::future::select(tree, Box::pin(tokio::time::sleep(Duration::from_millis(2))));
                    drop(either.await);
                    5
                }
                .boxed()
            }
            _ => return None,
        })
    }

    fn one(&self) -> Option<BoxFuture<'static, u64>> {
        Some(match self {
            Self::Timeout(tree) => {
                let tree = tree.run();
                async { tokio::time::timeout(FOREVER, tree).await.unwrap() + 1 }.boxed()
            }
            Self::Notify(tree) => {
                let (tree, notify) = (tree.run(), Notify::new());
                async move {
                    let sender = async {
                        let value = tree.await;
                        notify.notify_one();
                        value
                    };
                    tokio::join!(notify.notified(), sender).1 + 1
                }
                .boxed()
            }
            Self::Oneshot(tree) => {
                let (tree, (send, receive)) = (tree.run(), oneshot::channel());
                async { tokio::join!(receive, async { send.send(tree.await).unwrap() }).0.unwrap() + 1 }.boxed()
            }
            Self::Spawn(tree) => {
                let tree = tree.run();
                async { tokio::spawn(tree).await.unwrap() + 2 }.boxed()
            }
            Self::SpawnChild(tree) => {
                let tree = tree.run();
                async { heeler::spawn(tree).await.unwrap() + 2 }.boxed()
            }
            Self::Watch(tree) => {
                let reports = heeler::Reports::builder().without_log().build().unwrap();
                let tree = heeler::watch("inner", Duration::from_millis(2), tree.run()).reports(reports);
                async { tree.await + 2 }.boxed()
            }
            Self::Panic(tree) => {
                let tree = tree.run();
                let unwinds = async { std::panic::resume_unwind(Box::new(tree.await)) };
                let caught = AssertUnwindSafe(unwinds).catch_unwind();
                async { *caught.await.map(|never: u64| never).unwrap_err().downcast::<u64>().unwrap() + 2 }.boxed()
            }
            Self::Shared(times, tree) => {
                let shared = tree.run().shared();
                let all = futures::future::join_all((0..*times).map(|_| shared.clone()));
                async { all.await.into_iter().fold(0, u64::wrapping_add) }.boxed()
            }
            _ => return None,
        })
    }

    fn many(&self) -> BoxFuture<'static, u64> {
        match self {
            Self::Lock(trees) => {
                let total = Arc::new(Mutex::new(3_u64));
                let tasks = start(trees).into_iter().map(|tree| {
                    let total = total.clone();
                    async move {
                        let mut total = total.lock().await;
                        *total = total.wrapping_add(tree.await);
                    }
                });
                let all = futures::future::join_all(tasks);
                async move { all.map(|_| total).await.lock().await.to_owned() }.boxed()
            }
            Self::FuturesLock(trees) => {
                let total = Arc::new(futures::lock::Mutex::new(3_u64));
                let tasks = start(trees).into_iter().map(|tree| {
                    let total = total.clone();
                    tokio_spawn_later(async move {
                        let mut total = total.lock().await;
                        *total = total.wrapping_add(tree.await);
                    })
                });
                let all = futures::future::join_all(tasks);
                async move { all.map(|_| total).await.lock().await.to_owned() }.boxed()
            }
            Self::Permits(permits, trees) => {
                let (permits, total) = (Arc::new(Semaphore::new((*permits).into())), Arc::new(AtomicU64::new(3)));
                let tasks = start(trees).into_iter().map(|tree| {
                    let (permits, total) = (permits.clone(), total.clone());
                    tokio_spawn_later(async move {
                        let _permit = permits.acquire().await.unwrap();
                        total.fetch_add(tree.await, Ordering::Relaxed);
                    })
                });
                let all = futures::future::join_all(tasks);
                async move { all.map(|_| total.load(Ordering::Relaxed)).await }.boxed()
            }
            Self::Mpsc(room, trees) => {
                let (send, receive) = mpsc::channel((*room).into());
                let trees = start(trees);
                let sender = async move {
                    for tree in trees {
                        // In a tree that is dropped nobody receives any more.
                        let _ = send.send(tree.await).await;
                    }
                };
                let receiver = tokio_stream::wrappers::ReceiverStream::new(receive).collect::<Vec<_>>();
                async { mix(tokio::join!(receiver, tokio_spawn_later(sender)).0) }.boxed()
            }
            Self::Broadcast(receivers, trees) => {
                let (send, _) = broadcast::channel(trees.len());
                let receivers: Vec<_> = (0..*receivers)
                    .map(|_| {
                        let mut receive = send.subscribe();
                        tokio_spawn_later(async move {
                            let mut values = Vec::new();
                            while let Ok(value) = receive.recv().await {
                                values.push(value);
                            }
                            mix(values)
                        })
                    })
                    .collect();
                let trees = start(trees);
                let sender = async move {
                    for tree in trees {
                        send.send(tree.await).unwrap();
                    }
                };
                async { mix(tokio::join!(futures::future::join_all(receivers), sender).0) }.boxed()
            }
            Self::Unordered(trees) => {
                let all: FuturesUnordered<_> = start(trees).into_iter().collect();
                all.fold(3_u64, |sum, value| async move { sum.wrapping_add(value) }).boxed()
            }
            Self::UnorderedChildren(trees) => {
                let trees = start(trees);
                async {
                    let all: FuturesUnordered<_> = trees.into_iter().map(heeler::watch_child).collect();
                    all.fold(3_u64, |sum, value| async move { sum.wrapping_add(value) }).await
                }
                .boxed()
            }
            _ => unreachable!("{self:?}"),
        }
    }
}

/// A task of its own, from the first poll on.
async fn tokio_spawn_later<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    tokio::spawn(future).await.unwrap()
}
