//! Many things that go wrong at once, in one process: what a dump says of each.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use heeler::report::Dump;
use heeler::{Actor, Resource, acquire, acquire_blocking, acquire_shared, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Mutex, Notify, OnceCell, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::common::{PORTABLE, Wall, until};
use super::{Service, is};

/// Never answered.
async fn fetch_rates() {
    let (_keep, silent) = oneshot::channel::<()>();
    let _ = silent.await;
}

async fn export_everything(pool: Arc<(Semaphore, Resource)>) {
    let _connection = acquire(&pool.1, pool.0.acquire()).await.unwrap();
    fetch_rates().await;
}

async fn load_invoice(pool: Arc<(Semaphore, Resource)>) {
    let _connection = acquire(&pool.1, pool.0.acquire()).await.unwrap();
}

type Locks = Arc<[(Mutex<()>, Resource); 2]>;

async fn transfer(locks: Locks, both: Arc<Barrier>, first: usize, second: usize) {
    let _first = acquire(&locks[first].1, locks[first].0.lock()).await;
    both.wait().await;
    let _second = acquire(&locks[second].1, locks[second].0.lock()).await;
}

async fn read_twice(rates: Arc<(RwLock<()>, Resource)>) {
    let _read = acquire_shared(&rates.1, rates.0.read()).await;
    // Until a writer queues, which keeps further readers out.
    is(|| rates.0.try_read().is_err()).await;
    let _again = acquire_shared(&rates.1, rates.0.read()).await;
}

async fn write_rates(rates: Arc<(RwLock<()>, Resource)>) {
    let _write = acquire(&rates.1, rates.0.write()).await;
}

async fn connect_once(cell: Arc<OnceCell<()>>) {
    cell.get_or_init(fetch_rates).await;
}

async fn send_to_a_full_queue(queue: mpsc::Sender<u8>) {
    for byte in 0..3 {
        let _ = queue.send(byte).await;
    }
}

async fn retry_for_ever() {
    loop {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }
}

async fn wait_for_a_plain_task() {
    let _ = tokio::spawn(fetch_rates()).await;
}

async fn wait_for_a_watched_task() {
    let _ = heeler::spawn(fetch_rates()).await;
}

fn render_report(gate: &std::sync::Mutex<()>) {
    drop(acquire_blocking("printer", || gate.lock()));
}

async fn print(gate: &'static std::sync::Mutex<()>) {
    let _ = heeler::spawn_blocking(move || render_report(gate)).await;
}

async fn forgotten_wakeup() {
    std::future::poll_fn(|_| std::task::Poll::<()>::Pending).await;
}

async fn handle_all(messages: mpsc::Receiver<u8>) {
    let mut messages = messages;
    while messages.recv().await.is_some() {}
}

async fn wait_for_start_signal(start: Arc<Notify>) {
    start.notified().await;
}

async fn wait_for_new_settings(mut settings: watch::Receiver<u8>) {
    let _ = settings.changed().await;
}

async fn wait_for_news(mut news: broadcast::Receiver<u8>) {
    let _ = news.recv().await;
}

async fn price_of_shipping() {
    fetch_rates().await;
}

async fn price_of_goods() {
    tokio::task::yield_now().await;
}

async fn total_price() {
    tokio::join!(price_of_goods(), price_of_shipping());
}

async fn ask_primary() {
    std::future::pending::<()>().await;
}

async fn ask_replica() {
    let (_keep, silent) = oneshot::channel::<()>();
    let _ = silent.await;
}

async fn first_answer() {
    tokio::select! {
        () = ask_primary() => {}
        () = ask_replica() => {}
    }
}

async fn meet_at_barrier(barrier: Arc<Barrier>) {
    barrier.wait().await;
}

async fn read_reply(mut peer: TcpStream) {
    let mut reply = [0; 64];
    let _ = peer.read_exact(&mut reply).await;
}

async fn send_export(mut peer: TcpStream) {
    let _ = peer.write_all(&vec![0; 64 << 20]).await;
}

async fn collect_tasks() {
    let mut tasks = JoinSet::new();
    (0..3).for_each(|_| drop(tasks.spawn(fetch_rates())));
    while tasks.join_next().await.is_some() {}
}

async fn thumbnail(number: u8) {
    if number == 2 {
        fetch_rates().await;
    }
}

async fn make_thumbnails() {
    let mut all: FuturesUnordered<_> = (0..4).map(|number| heeler::watch_child(thumbnail(number))).collect();
    while all.next().await.is_some() {}
}

async fn read_events() {
    let mut events: Pin<Box<dyn Stream<Item = u8> + Send>> = Box::pin(futures::stream::pending());
    while events.next().await.is_some() {}
}

async fn charge_card(cart: Arc<Mutex<()>>) {
    let _cart = cart.lock().await;
    fetch_rates().await;
}

async fn update_cart(cart: Arc<Mutex<()>>) {
    let _cart = cart.lock().await;
}

async fn lock_twice() {
    let lock = (Mutex::new(()), Resource::new("session"));
    let _first = acquire(&lock.1, lock.0.lock()).await;
    let _second = acquire(&lock.1, lock.0.lock()).await;
}

async fn refresh_cache(cache: Arc<(Mutex<()>, Resource)>) {
    let _cache = acquire(&cache.1, cache.0.lock()).await;
    fetch_rates().await;
}

async fn read_cache(cache: Arc<(Mutex<()>, Resource)>) {
    let _cache = acquire(&cache.1, cache.0.lock()).await;
}

async fn hand_on_slot(slots: Arc<(Arc<Semaphore>, Resource)>) {
    let held = acquire(&slots.1, slots.0.clone().acquire_owned()).await;
    let _ = tokio::spawn(async move {
        let _held = held;
        fetch_rates().await;
    })
    .await;
}

async fn take_slot(slots: Arc<(Arc<Semaphore>, Resource)>) {
    let _slot = acquire(&slots.1, slots.0.acquire()).await;
}

async fn ask_actor(actor: Actor, queue: mpsc::Sender<oneshot::Sender<()>>) {
    let (answer, answered) = oneshot::channel();
    let _ = queue.send(answer).await;
    let _ = wait_for(&actor, answered).await;
}

async fn lock_settings(wall: Wall) {
    wall.block();
}

async fn recompute_totals(stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// Guards: with everything broken at once, a dump names nearly all of the causes, and each deadlock.
#[test]
fn a_dump_names_the_causes_of_many_things_at_once() {
    let service = Service::new(6);
    let pool = Arc::new((Semaphore::new(2), Resource::new("invoice pool").permits(2)));
    for _ in 0..2 {
        service.request("/export", export_everything(Arc::clone(&pool)));
    }
    until("the pool is exhausted", || pool.0.available_permits() == 0);
    for number in 0..10 {
        service.request(&format!("/invoice/{number}"), load_invoice(Arc::clone(&pool)));
    }
    let locks: Locks =
        Arc::new([(Mutex::new(()), Resource::new("accounts")), (Mutex::new(()), Resource::new("ledger"))]);
    let both = Arc::new(Barrier::new(2));
    service.request("/transfer", transfer(Arc::clone(&locks), Arc::clone(&both), 0, 1));
    service.request("/audit", transfer(Arc::clone(&locks), both, 1, 0));
    let rates = Arc::new((RwLock::new(()), Resource::new("rates")));
    service.request("/rates", read_twice(Arc::clone(&rates)));
    until("the rates are read", || rates.0.try_write().is_err());
    service.request("/rates/update", write_rates(Arc::clone(&rates)));
    let cell = Arc::new(OnceCell::new());
    for number in 0..3 {
        service.request(&format!("/connect/{number}"), connect_once(Arc::clone(&cell)));
    }
    let (queue, _unread) = mpsc::channel(1);
    service.request("/queue", send_to_a_full_queue(queue));
    let (_idle, messages) = mpsc::channel(1);
    service.request("/stream", handle_all(messages));
    service.request("/retry", retry_for_ever());
    service.request("/task", wait_for_a_plain_task());
    service.request("/watched-task", wait_for_a_watched_task());
    service.request("/forgotten", forgotten_wakeup());
    let gate: &'static std::sync::Mutex<()> = Box::leak(Box::default());
    let held = acquire_blocking("printer", || gate.lock());
    service.request("/print", print(gate));
    let (wall, stop, kept) = start_others(&service);
    let others = kept.started;
    wall.until_blocked(1);
    // Two of the six workers are busy for good.
    service.until_at_rest(2 + 10 + 2 + 2 + 3 + 6 + 1 + 2 + others, 4);
    let mut dump = heeler::blocking_dump();
    until("the deadlocks have come about", || {
        if dump.deadlocks.len() < 3 {
            dump = heeler::blocking_dump();
        }
        dump.deadlocks.len() >= 3
    });
    println!("{dump}");
    let found: Vec<(&str, bool)> = causes(&dump);
    let missing: Vec<&str> = found.iter().filter(|(_, found)| !found).map(|(cause, _)| *cause).collect();
    // Where stacks are walked, nobody says what a thread does, and what keeps no waker leaves nothing behind.
    let most = if PORTABLE { found.len() / 4 } else { found.len() / 10 };
    assert!(missing.len() <= most, "of {} causes these are not named: {missing:?}", found.len());
    // A deadlock is certain, so it is never missed.
    assert_eq!(dump.deadlocks.len(), 3, "{:?}", dump.deadlocks);
    drop(held);
    wall.open();
    stop.store(true, Ordering::Relaxed);
}

/// What must not end before the dump.
struct Kept {
    /// How many pieces of work there are.
    started: u64,
    _senders: (watch::Sender<u8>, broadcast::Sender<u8>),
    _silent: [std::net::TcpStream; 2],
}

/// Everything else that goes wrong.
fn start_others(service: &Service) -> (Wall, Arc<AtomicBool>, Kept) {
    let (settings, set) = watch::channel(0);
    let (news, heard) = broadcast::channel(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || {
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let _in_runtime = service.driven.handle.enter();
        (TcpStream::from_std(near).unwrap(), listener.accept().unwrap().0)
    };
    let ((reads, one), (writes, other)) = (connect(), connect());
    service.request("/start", wait_for_start_signal(Arc::default()));
    service.request("/settings", wait_for_new_settings(set));
    service.request("/news", wait_for_news(heard));
    service.request("/price", total_price());
    service.request("/first", first_answer());
    service.request("/meet", meet_at_barrier(Arc::new(Barrier::new(2))));
    service.request("/reply", read_reply(reads));
    service.request("/send", send_export(writes));
    service.request("/collect", collect_tasks());
    // With a child that goes on.
    service.request("/thumbnails", make_thumbnails());
    service.request("/events", read_events());
    let cart = Arc::new(Mutex::new(()));
    service.request("/charge", charge_card(Arc::clone(&cart)));
    until("the cart is locked", || cart.try_lock().is_err());
    service.request("/cart", update_cart(cart));
    service.request("/twice", lock_twice());
    let cache = Arc::new((Mutex::new(()), Resource::new("cache")));
    service.driven.spawn(heeler::watch("refresh", Duration::MAX, refresh_cache(Arc::clone(&cache))));
    until("the cache is locked", || cache.0.try_lock().is_err());
    service.request("/cached", read_cache(cache));
    let slots = Arc::new((Arc::new(Semaphore::new(1)), Resource::new("slots")));
    service.request("/hand-on", hand_on_slot(Arc::clone(&slots)));
    until("the slot is taken", || slots.0.available_permits() == 0);
    service.request("/slot", take_slot(slots));
    let actor = Actor::new("stock", Duration::MAX);
    let (queue, mut messages) = mpsc::channel::<oneshot::Sender<()>>(4);
    let busy = actor.clone();
    service.driven.spawn(async move {
        while let Some(_answer) = messages.recv().await {
            busy.message("count", fetch_rates()).await;
        }
    });
    // With the message.
    service.request("/stock", ask_actor(actor, queue));
    let (wall, stop) = (Wall::default(), Arc::new(AtomicBool::new(false)));
    service.request("/lock", lock_settings(wall.clone()));
    service.request("/totals", recompute_totals(Arc::clone(&stop)));
    let kept = Kept { started: 20 + 1 + 1 + 1, _senders: (settings, news), _silent: [one, other] };
    (wall, stop, kept)
}

/// Which causes the dump names.
fn causes(dump: &Dump) -> Vec<(&'static str, bool)> {
    let work = |name: &str| dump.work.iter().find(|work| work.name.starts_with(name));
    let says = |name: &str, part: &str| {
        let group = work(name).and_then(|work| dump.groups.get(work.group));
        let location = group.and_then(|group| group.location.as_ref()?.function.clone()).unwrap_or_default();
        let awaiting = group.and_then(|group| group.awaiting.clone()).unwrap_or_default();
        let path = work(name).and_then(|work| group?.paths.get(work.path?));
        let stacks = path.into_iter().flat_map(|path| &path.stacks).flat_map(|stack| &stack.frames);
        let frames: Vec<&str> = stacks.filter_map(|frame| frame.function.as_deref()).collect();
        format!("{location} {awaiting} {}", frames.join(" ")).contains(part)
    };
    let holder = |resource: &str, name: &str| {
        let found = dump.resources.iter().find(|known| known.name == resource);
        found.is_some_and(|known| {
            !known.waiters.is_empty() && known.holders.iter().any(|held| held.work.starts_with(name))
        })
    };
    let is_in_deadlock = |one: &str, other: &str| {
        let id = |name: &str| work(name).map(|work| work.id.clone()).unwrap_or_default();
        dump.deadlocks.iter().any(|ring| ring.contains(&id(one)) && ring.contains(&id(other)))
    };
    vec![
        ("the pool's holder", holder("invoice pool", "GET /export")),
        ("what the pool's holder waits for", says("GET /export", "causes::fetch_rates")),
        ("two locks in the wrong order", is_in_deadlock("GET /transfer", "GET /audit")),
        ("a reader behind a writer behind itself", is_in_deadlock("GET /rates", "GET /rates/update")),
        ("who holds the rates", holder("rates", "GET /rates")),
        ("the initialiser that hangs", says("GET /connect/0", "causes::fetch_rates")),
        ("the full queue", says("GET /queue", "causes::send_to_a_full_queue")),
        ("the queue that nobody fills", says("GET /stream", "causes::handle_all")),
        ("the loop of retries", says("GET /retry", "causes::retry_for_ever")),
        ("the wait for a plain task", says("GET /task", "another task")),
        ("the watched task", dump.work.iter().any(|work| work.name == "spawn" && work.parent.is_some())),
        ("the forgotten wake-up", says("GET /forgotten", "causes::forgotten_wakeup")),
        ("the blocking thread", dump.to_string().contains("in dump::causes::render_report at ")),
        ("who holds the printer", holder("printer", "the thread ")),
        ("the signal that nobody gives", says("GET /start", "causes::wait_for_start_signal")),
        ("the settings that do not change", says("GET /settings", "causes::wait_for_new_settings")),
        ("the news that do not come", says("GET /news", "causes::wait_for_news")),
        ("the slow branch of a join", says("GET /price", "causes::price_of_shipping")),
        ("both branches of a select", says("GET /first", "causes::ask_replica")),
        ("the barrier", says("GET /meet", "causes::meet_at_barrier")),
        ("the peer that does not answer", says("GET /reply", "causes::read_reply")),
        ("the peer that does not read", says("GET /send", "causes::send_export")),
        ("the tasks of a set", says("GET /collect", "causes::collect_tasks")),
        ("the slow one of a set of futures", dump.to_string().contains("in dump::causes::thumbnail at ")),
        ("the stream that has nothing", says("GET /events", "causes::read_events")),
        ("the line that waits for the cart", says("GET /cart", "causes::update_cart")),
        ("what the cart's holder waits for", says("GET /charge", "causes::fetch_rates")),
        ("the lock that is taken twice", holder("session", "GET /twice")),
        ("the job that holds the cache", holder("cache", "the job \"refresh\"")),
        ("who took what a plain task holds", holder("slots", "GET /hand-on")),
        ("the message that the actor is busy with", holder("stock", "the job \"stock: count\"")),
        ("the thread that blocks", says("GET /lock", "causes::lock_settings")),
        ("the thread that computes", says("GET /totals", "causes::recompute_totals")),
    ]
}
