//! Each party on a host of its own: a network namespace, with wires between them that lose what is sent, in one direction or both.
//! The profiles are in a bucket.
//!
//! As when a switch dies, neither side gets an error: packets go to a hardware address that nobody has. Needs root.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, ms, until};
use crate::engines::{create_bucket, find, moto_server};
use crate::process::{Process, Setting};
use crate::service::{Client, LOST_AFTER, Shared};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// The tests' own, in no namespace of its own.
    Tests,
    Front,
    Worker,
    Queue,
    Store,
}

use Host::{Front, Queue, Store, Tests, Worker};

/// Who has a wire to whom.
const WIRES: [(Host, Host); 7] =
    [(Front, Queue), (Front, Store), (Worker, Queue), (Worker, Store), (Tests, Front), (Tests, Queue), (Tests, Store)];

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:99";

/// The namespaces, and the wires between them. They are removed when this is dropped.
struct Wires {
    number: u8,
    created: Vec<Host>,
}

/// Says why the test is not run. Where everything should be installed, that is a failure.
fn missing(program: &str) {
    assert!(std::env::var_os("HEELER_NEEDS_SERVERS").is_none(), "{program} is not installed");
    println!("not tested: {program} is not installed");
}

/// One of the networks for benchmarks, by RFC 2544.
fn network(number: u8) -> String {
    format!("198.19.{number}.0/24")
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Wires {
    /// Returns `None` if this process may not have namespaces.
    fn new() -> Option<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap();
        // Those of another process of these tests have other numbers.
        let is_free = |number: &u8| {
            let addresses = Command::new("ip").args(["-4", "-o", "addr", "show", "to"]).arg(network(*number)).output();
            addresses.is_ok_and(|addresses| addresses.stdout.is_empty())
        };
        let mut wires =
            Self { number: (0..=255).filter(is_free).nth(usize::from(fastrand::u8(..32)))?, created: Vec::new() };
        for host in [Front, Worker, Queue, Store] {
            if !ip(&format!("netns add {}", wires.namespace(host))) {
                println!("not tested: this process may not create network namespaces");
                return None;
            }
            wires.created.push(host);
        }
        for (one, other) in WIRES {
            let end = |host: Host, far: Host| {
                let netns = if host == Tests { String::new() } else { format!(" netns {}", wires.namespace(host)) };
                format!("{}{netns}", wires.interface(host, far))
            };
            if !ip(&format!("link add {} type veth peer name {}", end(one, other), end(other, one))) {
                println!("not tested: this process may not create virtual wires");
                return None;
            }
            for (host, far) in [(one, other), (other, one)] {
                let (of, interface) = (wires.of(host), wires.interface(host, far));
                assert!(ip(&format!("{of}addr add {}/30 dev {interface}", wires.address(host, far))));
                assert!(ip(&format!("{of}link set {interface} up")));
            }
        }
        Some(wires)
    }

    fn namespace(&self, host: Host) -> String {
        format!("heeler-{}-{}-{host:?}", std::process::id(), self.number)
    }

    /// The first words of a command that concerns this host.
    fn of(&self, host: Host) -> String {
        if host == Tests { String::new() } else { format!("-n {} ", self.namespace(host)) }
    }

    /// A host's end of a wire.
    fn interface(&self, host: Host, far: Host) -> String {
        // Fifteen characters at most.
        if host == Tests { format!("hl{}{far:?}", self.number) } else { format!("to{far:?}") }
    }

    /// The address that a host has for another one.
    fn address(&self, of: Host, seen_by: Host) -> String {
        let is_it = |(one, other): &(Host, Host)| (*one, *other) == (of, seen_by) || (*one, *other) == (seen_by, of);
        let wire = WIRES.iter().position(is_it).unwrap();
        let side = if WIRES[wire].0 == of { 1 } else { 2 };
        network(self.number).replace("0/24", &(wire * 4 + side).to_string())
    }

    /// Changes what a host knows of the hardware address of another one.
    fn neighbour(&self, change: &str, from: Host, to: Host, address: &str) {
        let (of, far, interface) = (self.of(from), self.address(to, from), self.interface(from, to));
        assert!(ip(&format!("{of}neigh {change} {far} dev {interface}{address}")));
    }

    /// From now on, what this host sends to that one is lost.
    fn lose(&self, from: Host, to: Host) {
        self.neighbour("replace", from, to, &format!(" lladdr {NOBODY} nud permanent"));
    }

    /// From now on, it arrives again.
    fn restore(&self, from: Host, to: Host) {
        self.neighbour("del", from, to, "");
    }

    fn cut(&self, one: Host, other: Host) {
        self.lose(one, other);
        self.lose(other, one);
    }

    fn mend(&self, one: Host, other: Host) {
        self.restore(one, other);
        self.restore(other, one);
    }

    /// Starts a program on a host, and waits until it listens.
    fn serve(&self, host: Host, port: u16, command: &str) -> Server {
        let words = format!("netns exec {} {command}", self.namespace(host));
        let mut process = Command::new("ip");
        process.args(words.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(process.spawn().unwrap());
        let address = format!("{}:{port}", self.address(host, Tests));
        until("the server listens", || TcpStream::connect(&address).is_ok());
        server
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for host in &self.created {
            ip(&format!("netns del {}", self.namespace(*host)));
        }
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything runs, each on its host.
struct Network {
    client: Client,
    shared: Shared,
    _processes: [Process; 2],
    _servers: [Server; 2],
    wires: Wires,
}

impl Network {
    async fn start() -> Option<Self> {
        let (Some(_), Some(redis)) = (find("ip"), find("redis-server")) else {
            missing("ip or redis-server");
            return None;
        };
        let moto = moto_server()?;
        let wires = Wires::new()?;
        // The word after `--save` is empty.
        let redis =
            format!("{} --bind 0.0.0.0 --protected-mode no --port 6379 --save  --appendonly no", redis.display());
        let redis = wires.serve(Queue, 6379, &redis);
        let store = wires.serve(Store, 5000, &format!("{} -H 0.0.0.0 -p 5000", moto.display()));
        create_bucket(&format!("http://{}:5000", wires.address(Store, Tests))).await;
        let shared = Shared::new();
        let start = |role: &str, host: Host, address: &str| {
            let setting = Setting {
                namespace: Some(&wires.namespace(host)),
                address,
                shared: shared.path(),
                bucket: Some(&format!("http://{}:5000", wires.address(Store, host))),
                queue: &format!("redis://{}:6379/", wires.address(Queue, host)),
                ..Setting::default()
            };
            Process::start(role, &setting)
        };
        let front = start("front", Front, &wires.address(Front, Tests));
        // Nobody asks it anything.
        let worker = start("worker", Worker, &wires.address(Worker, Store));
        let client = Client::new(front.address.unwrap());
        let network = Self { client, shared, _processes: [front, worker], _servers: [redis, store], wires };
        network.works().await;
        Some(network)
    }

    /// A profile comes: after a while, if a connection has to find out that its wire is whole again.
    async fn works(&self) {
        let began = Instant::now();
        loop {
            let answer = self.client.get("/quote?__geordi__=json").await;
            if answer.status == 200 {
                return;
            }
            assert!(began.elapsed() < 2 * PATIENCE, "{}", answer.text());
            tokio::time::sleep(ms(200)).await;
        }
    }

    /// Asks for the profile of a payment: its id, once it runs.
    async fn pay(&self) -> String {
        let id = self.client.send("POST", "/pay", &[("x-geordi", "1")], b"money").await.id();
        self.client.until_it_runs(&id).await;
        id
    }
}

/// A front end that cannot reach the queue or the store says so, in the time that a person waits, and nothing runs.
async fn the_front_end_is_cut_off(from: Host) {
    let Some(network) = Network::start().await else { return };
    network.wires.cut(Front, from);
    let asked = Instant::now();
    let answer = network.client.send("POST", "/pay", &[("x-geordi", "1")], b"money").await;
    let text = answer.text();
    assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (503, true), "{from:?}: {text}");
    println!("cut off from {from:?}, after {:.1} s: {}", asked.elapsed().as_secs_f64(), text.trim());
    assert!(asked.elapsed() < Duration::from_secs(35), "{from:?}");
    network.wires.mend(Front, from);
    network.works().await;
    assert_eq!(network.shared.payments(), 0);
}

/// A worker that cannot reach the queue ends what it runs. What is asked for meanwhile waits until it can.
async fn the_worker_loses_the_queue() {
    let Some(network) = Network::start().await else { return };
    let id = network.pay().await;
    network.wires.cut(Worker, Queue);
    assert_eq!(network.client.end(&id).await, "done");
    let waits = network.client.browse("/quote?__geordi__").await.id();
    // Nothing happens: for longer than it takes until a connection counts as lost.
    tokio::time::sleep(2 * LOST_AFTER).await;
    let phase = network.client.status(&waits).await["phase"].clone();
    assert!(phase.get("sent").is_some(), "{phase}");
    network.wires.mend(Worker, Queue);
    assert_eq!(network.client.end(&waits).await, "done");
    assert_eq!(network.shared.payments(), 1);
}

/// What the store answers to the worker is lost. What was written was written, though the worker does not know. It counts as gone,
/// and is back when it hears again: the request has run once, and its end is told.
async fn the_worker_hears_nothing_from_the_store() {
    let Some(network) = Network::start().await else { return };
    let id = network.pay().await;
    network.wires.lose(Store, Worker);
    network.client.until(&id, |phase| phase == "lost").await;
    network.wires.restore(Store, Worker);
    let phase = network.client.until(&id, |phase| phase == "done" || phase["failed"].is_string()).await;
    println!("after what was not heard: {phase}");
    assert_eq!(network.shared.payments(), 1);
    network.works().await;
}

/// A worker that cannot reach the store while it runs a request that may run again counts as gone. A profile comes in the end.
async fn the_worker_loses_the_store() {
    let Some(network) = Network::start().await else { return };
    let id = network.client.browse("/report?__geordi__").await.id();
    network.client.until_it_runs(&id).await;
    network.wires.cut(Worker, Store);
    network.client.until(&id, |phase| phase["sent"]["again"] == true).await;
    network.wires.mend(Worker, Store);
    assert_eq!(network.client.end(&id).await, "done");
    assert_eq!(network.client.profile(&id).await["response"]["status"], 200);
}

/// What the queue answers to the front end is lost. A request that a worker has taken is not said to be refused.
async fn the_front_end_hears_nothing_from_the_queue() {
    let Some(network) = Network::start().await else { return };
    network.wires.lose(Queue, Front);
    let asked = Instant::now();
    let answer = network.client.send("POST", "/pay", &[("x-geordi", "1")], b"money").await;
    assert!(asked.elapsed() > Duration::from_secs(2), "it has waited for the queue: {:?}", asked.elapsed());
    println!("no answer of the queue, after {:.1} s: {}", asked.elapsed().as_secs_f64(), answer.status);
    if answer.status == 202 {
        assert_eq!(network.client.end(&answer.id()).await, "done");
        assert_eq!(network.shared.payments(), 1);
    } else {
        assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (503, true), "{}", answer.text());
    }
    network.wires.restore(Queue, Front);
    network.works().await;
    assert_eq!(network.shared.payments(), usize::from(answer.status == 202));
}

/// Guards: whatever wire is cut, a request ends with its profile or with what became of it, none runs twice, and everything works
/// when the wire is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_cut_wire_ends_in_a_result_or_a_reason() {
    // Tasks, for to start a network blocks.
    let cases = [
        tokio::spawn(the_front_end_is_cut_off(Queue)),
        tokio::spawn(the_front_end_is_cut_off(Store)),
        tokio::spawn(the_front_end_hears_nothing_from_the_queue()),
        tokio::spawn(the_worker_loses_the_queue()),
        tokio::spawn(the_worker_hears_nothing_from_the_store()),
        tokio::spawn(the_worker_loses_the_store()),
    ];
    for case in cases {
        case.await.unwrap();
    }
}
