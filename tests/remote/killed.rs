//! Each party is killed at each step: a front end, a worker, the queue. Every profile ends, in a result or with a reason, and
//! nothing runs twice that may not.

use std::time::Instant;

use crate::common::ms;
use crate::engines::{Engine, Server};
use crate::process::{Process, Setting};
use crate::service::{Client, Shared};

/// What is profiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// May run twice.
    Read,
    /// May not.
    Pay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Party {
    Front,
    Worker,
    Queue,
}

/// Who is killed, and when.
#[derive(Debug, Clone, Copy)]
struct Case {
    party: Party,
    step: &'static str,
    work: Work,
    engine: Engine,
}

const FRONT: [&str; 4] =
    ["put statuses before 1", "put statuses after 1", "put requests before 1", "put requests after 1"];

/// Two attempts to claim are the store's check, and one of them succeeds.
const WORKER: [&str; 11] = [
    "get requests before 1",
    "get requests after 1",
    "put claims before 3",
    "put claims after 2",
    "put statuses before 1",
    "put statuses after 2",
    "put profiles before 1",
    "put profiles after 1",
    "put summaries after 1",
    "delete requests before 1",
    "delete requests after 1",
];

/// At these steps of a worker, its death changes nothing even for what may not run twice.
const ENDS_WELL: [&str; 7] = [
    "get requests before 1",
    "get requests after 1",
    "put claims before 3",
    "put profiles after 1",
    "put summaries after 1",
    "delete requests before 1",
    "delete requests after 1",
];

/// Of the queue: what has been written when it is killed.
const QUEUE_STEPS: [&str; 4] = ["before", "requests", "claims", "statuses running"];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for work in [Work::Read, Work::Pay] {
        for engine in [Engine::Redis, Engine::Postgres] {
            cases.extend(QUEUE_STEPS.map(|step| Case { party: Party::Queue, step, work, engine }));
        }
        cases.extend(FRONT.map(|step| Case { party: Party::Front, step, work, engine: Engine::Redis }));
        cases.extend(WORKER.map(|step| Case { party: Party::Worker, step, work, engine: Engine::Redis }));
    }
    cases
}

/// What has become of a case, for the table.
async fn run(case: Case, number: usize, url: String, own_server: Option<Server>) -> String {
    let shared = Shared::new();
    let name = format!("case-{number}");
    let process = |role: &str, kill: Option<&str>| {
        let kill = kill.unwrap_or_default();
        Process::start(role, &Setting { shared: shared.path(), queue: &url, name: &name, kill, ..Setting::default() })
    };
    let kill_front = (case.party == Party::Front).then_some(case.step);
    let kill_worker = (case.party == Party::Worker).then_some(case.step);
    // The one that will be killed, and the one that is there afterwards.
    let mut front = process("front", kill_front);
    let second = process("front", None);
    let mut first_worker = process("worker", kill_worker);
    if case.party == Party::Queue && case.step == "before" {
        own_server.as_ref().unwrap().kill();
    }
    let (client, later) = (Client::new(front.address.unwrap()), Client::new(second.address.unwrap()));
    let (method, path) = match case.work {
        Work::Read => ("GET", "/report"),
        Work::Pay => ("POST", "/pay"),
    };
    let answer = client.try_send(method, path, &[("x-geordi", "1")], b"money").await;
    let id = match &answer {
        Ok(answer) if answer.status == 202 => answer.id(),
        Ok(answer) => {
            assert_eq!(answer.status, 503, "{case:?}: {}", answer.text());
            assert!(answer.headers.contains_key("retry-after"));
            assert_eq!(shared.payments(), 0);
            return format!("the asker is told: {}", answer.text().trim());
        }
        Err(_) => {
            // The asker has seen the connection break. Nothing runs that they could not see.
            assert_eq!(case.party, Party::Front, "{case:?}");
            tokio::time::sleep(ms(1_500)).await;
            assert!(front.has_ended(), "{case:?}");
            assert_eq!(shared.payments(), 0, "{case:?}");
            return "the asker's connection breaks, and nothing runs".to_owned();
        }
    };
    if case.party == Party::Queue {
        let server = own_server.as_ref().unwrap();
        let at = case.step;
        let reached = || match at {
            "before" | "requests" => true,
            // Three processes have checked the store.
            "claims" => shared.objects("claims").len() > 3,
            _ => shared.objects("statuses").len() == 1,
        };
        let began = Instant::now();
        while !reached() {
            assert!(began.elapsed() < crate::common::PATIENCE, "{case:?}: it is not reached");
            tokio::time::sleep(ms(20)).await;
        }
        if at == "statuses running" {
            while later.status(&id).await["phase"] != "running" {
                tokio::time::sleep(ms(50)).await;
            }
        }
        server.kill();
        tokio::time::sleep(ms(1_500)).await;
        server.run();
    }
    // A worker that was killed is replaced, as a supervisor does.
    let mut replacement = None;
    if case.party == Party::Worker {
        let began = Instant::now();
        while !first_worker.has_ended() {
            assert!(began.elapsed() < 2 * crate::common::PATIENCE, "{case:?}: it is not killed");
            tokio::time::sleep(ms(50)).await;
        }
        replacement = Some(process("worker", None));
    }
    let phase = later.end(&id).await;
    drop(replacement);
    let paid = shared.payments();
    assert!(paid <= 1, "{case:?}: paid {paid} times");
    let mut told = phase.to_string();
    match case.work {
        Work::Read => assert_eq!(phase, "done", "{case:?}"),
        // Before it was claimed, nothing has changed. Once there is a profile, nothing will.
        Work::Pay if case.party == Party::Queue || ENDS_WELL.contains(&case.step) => {
            assert_eq!((&phase, paid), (&"done".into(), 1), "{case:?}");
        }
        Work::Pay => {
            let why = phase["failed"].as_str().unwrap_or_default();
            assert!(
                why.contains("its worker is gone, and a POST is not run again") || phase == "lost",
                "{case:?}: {phase}"
            );
        }
    }
    if phase == "done" {
        let profile = later.profile(&id).await;
        told = format!("done: {}", profile["response"]["status"]);
        assert_eq!(profile["response"]["status"], 200, "{case:?}");
    }
    told
}

/// Runs cases, some at a time.
async fn run_all(cases: Vec<Case>) {
    let (Some(redis), Some(postgres)) = (Server::start(Engine::Redis), Server::start(Engine::Postgres)) else { return };
    let at_once = tokio::sync::Semaphore::new(4);
    let runs = cases.into_iter().enumerate().map(|(number, case)| {
        let url = if case.engine == Engine::Redis { redis.url() } else { postgres.url() };
        let at_once = &at_once;
        async move {
            let _one = at_once.acquire().await.unwrap();
            // One that is to be killed is the case's own.
            let own = if case.party == Party::Queue { Server::start(case.engine) } else { None };
            let url = own.as_ref().map_or(url, Server::url);
            let told = run(case, number, url, own).await;
            println!("{:?} {:?} {:?} `{}`: {told}", case.engine, case.work, case.party, case.step);
        }
    });
    futures::future::join_all(runs).await;
}

/// Guards: whoever is killed, a profile that may run twice comes, and another one comes or says why not.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_party_leaves_a_result_or_a_reason() {
    // The rest of the matrix takes some minutes.
    let kept = ["put requests after 1", "put claims after 2", "put statuses after 2", "statuses running"];
    run_all(cases().into_iter().filter(|case| kept.contains(&case.step)).collect()).await;
}

/// Guards: the same, at every step.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some minutes: run it with --ignored"]
async fn the_whole_matrix_of_kills() {
    let cases = cases();
    assert!(cases.len() >= 40, "{}", cases.len());
    run_all(cases).await;
}
