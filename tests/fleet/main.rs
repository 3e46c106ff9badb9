//! One incident for a fleet: many instances, one message, also while the store fails. Instances are `Reports` of their own in one
//! process, or processes where their deaths are the point.
#![cfg(all(feature = "fleet", feature = "watchdog"))]

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "console")]
mod page;
mod processes;
mod protocol;
mod s3;
mod shaky;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use common::{Collected, ms};
use heeler::report::{FleetNews, Stats};
use heeler::{Fleet, Report, Reports, Sink, SinkError};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

pub(crate) const PREFIX: &str = "photos";

/// A sink that tells people.
#[derive(Clone, Default)]
pub(crate) struct People(pub(crate) Collected);

impl Sink for People {
    fn name(&self) -> &str {
        "people"
    }

    fn deliver(&self, report: &Report) -> Result<(), SinkError> {
        self.0.deliver(report)
    }

    fn tells_people(&self) -> bool {
        true
    }
}

/// One instance of the service.
pub(crate) struct Instance {
    pub(crate) reports: Reports,
    pub(crate) people: People,
    /// What a sink gets that tells nobody.
    pub(crate) all: Collected,
}

impl Instance {
    pub(crate) fn start(name: &str, version: &str, fleet: Fleet) -> Self {
        let (people, all) = (People::default(), Collected::default());
        let builder = Reports::builder().without_log().without_endings().repeat_after(Duration::ZERO);
        let builder = builder.service("photos", version).instance(name);
        let reports = builder.sink(all.clone()).sink(people.clone()).fleet(fleet).build().unwrap();
        Self { reports, people, all }
    }

    pub(crate) fn sinks(&self) -> (&Reports, &Collected) {
        (&self.reports, &self.all)
    }

    /// Messages that say that an incident has begun.
    pub(crate) fn messages(&self) -> Vec<Report> {
        let messages = self.people.0.all().into_iter();
        messages.filter(|report| report.fleet.as_ref().is_some_and(|fleet| fleet.news == FleetNews::Began)).collect()
    }
}

pub(crate) fn instances(number: usize, store: &Arc<dyn ObjectStore>, set: impl Fn(Fleet) -> Fleet) -> Vec<Instance> {
    let fleet = || set(Fleet::new(Arc::clone(store), PREFIX).flush_every(ms(200)));
    (0..number).map(|number| Instance::start(&format!("web{number}"), "1.0", fleet())).collect()
}

pub(crate) fn messages(instances: &[Instance]) -> usize {
    instances.iter().map(|instance| instance.messages().len()).sum()
}

/// The first reports of each piece of work. A slow machine makes updates of them.
pub(crate) fn firsts(all: &Collected) -> u64 {
    all.all().iter().filter(|report| report.update == 0).count() as u64
}

/// So many jobs of each instance get stuck at the same moment, all at one place. They end once all have been reported.
pub(crate) fn get_stuck<'a>(instances: impl IntoIterator<Item = (&'a Reports, &'a Collected)>, jobs: u64) {
    get_stuck_as("nightly import", instances, jobs);
}

/// The same, under that name.
pub(crate) fn get_stuck_as<'a>(
    name: &'static str,
    instances: impl IntoIterator<Item = (&'a Reports, &'a Collected)>,
    jobs: u64,
) {
    let (go, gone) = tokio::sync::watch::channel(false);
    let instances: Vec<_> = instances.into_iter().map(|(reports, all)| (reports, all, firsts(all) + jobs)).collect();
    let stuck = instances.iter().flat_map(|(reports, ..)| {
        let import = |_| nightly_import(gone.clone());
        (0..jobs).map(import).map(|job| heeler::watch(name, ms(500), job).reports((*reports).clone()))
    });
    let release = async {
        while instances.iter().any(|(_, all, enough)| firsts(all) < *enough) {
            tokio::time::sleep(ms(10)).await;
        }
        go.send_replace(true);
    };
    common::runtime(0).block_on(async { tokio::join!(release, futures::future::join_all(stuck)) });
}

async fn nightly_import(mut gone: tokio::sync::watch::Receiver<bool>) {
    let _ = gone.wait_for(|gone| *gone).await;
}

/// Nothing is counted twice or not at all.
#[track_caller]
pub(crate) fn sums_up(stats: &Stats) {
    let became = stats.delivered + stats.undelivered + stats.suppressed + stats.queued;
    assert_eq!(stats.made + stats.recovered, became, "{stats:?}");
}

/// The objects in a folder of the fleet, with their names.
pub(crate) fn objects(store: &Arc<dyn ObjectStore>, folder: &str) -> Vec<(String, Vec<u8>)> {
    use futures::TryStreamExt as _;

    let folder = Path::from(format!("{PREFIX}/{folder}"));
    common::runtime(0).block_on(async {
        let mut paths: Vec<Path> = store.list(Some(&folder)).map_ok(|meta| meta.location).try_collect().await.unwrap();
        paths.sort();
        let mut objects = Vec::new();
        for path in paths {
            let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
            objects.push((path.to_string(), bytes.to_vec()));
        }
        objects
    })
}

/// The reports that the store counts, of all instances.
pub(crate) fn counted(store: &Arc<dyn ObjectStore>) -> u64 {
    let counts = objects(store, "incidents").into_iter().filter(|(name, _)| name.contains("/total-"));
    counts
        .map(|(_, bytes)| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["reports"].as_u64().unwrap())
        .sum()
}

/// The names of an incident's objects, without its key.
pub(crate) fn parts(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let names = objects(store, "incidents").into_iter().map(|(name, _)| name);
    names.map(|name| name.splitn(4, '/').last().unwrap().to_owned()).collect()
}
