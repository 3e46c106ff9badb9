//! What a console shows of the fleet: the incidents of the last days, from the indexes in the store.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::member::{Member, day_of};
use super::merging::{Merging, Shared, Source};
use super::records::{MAX_LARGE, Stored, decode, decompress};
use super::store::Failure;
use crate::report::Report;
use crate::report::privacy::{again, told};
use crate::report::shared::{FleetView, SharedReports};

/// How many days are shown.
const DAYS: u32 = 7;
/// How long a page waits for the store, and for other pages.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many objects are read at a time, and how many bytes of JSON they have.
const READS: usize = 64;
const READ_AT_ONCE: u64 = 64 << 20;
/// How many bytes of JSON are read for a page. The oldest days beyond that are not.
const MAX_READ: u64 = 256 << 20;
/// How long the answer is good for the next page. Many people look at the same moment.
const FRESH: Duration = Duration::from_secs(2);
/// The most characters of an error that a page shows.
const MAX_FAILURE: usize = 300;

impl Member {
    /// Returns the incidents of the last days. Waits for the store, on the calling thread.
    pub(crate) fn view(self: &Arc<Self>) -> Result<FleetView, String> {
        let member = Arc::clone(self);
        self.wait_for(async move { Ok(member.shared().await?.view(DAYS)) })
    }

    /// Returns one incident with its reports, if there is one. Waits for the store, on the calling thread.
    pub(crate) fn view_of(self: &Arc<Self>, fingerprint: &str) -> Result<Option<SharedReports>, String> {
        let (member, fingerprint) = (Arc::clone(self), fingerprint.to_owned());
        self.wait_for(async move {
            let shared = member.shared().await?;
            let Some((incident, first_stored, worst_stored)) = shared.find(&fingerprint) else { return Ok(None) };
            let first = member.read_report(first_stored.as_ref()).await?;
            let is_same = first_stored == worst_stored;
            let worst = if is_same { None } else { member.read_report(worst_stored.as_ref()).await? };
            Ok(Some(SharedReports { incident: Arc::clone(incident), first, worst }))
        })
    }

    fn wait_for<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, String> {
        let (done, result) = sync_channel(1);
        self.runtime.spawn(async move {
            if let Ok(result) = tokio::time::timeout(PATIENCE, work).await {
                // The console may have given up.
                let _ = done.send(result);
            }
        });
        let late = |_| "the store of the fleet takes too long".to_owned();
        result.recv_timeout(2 * PATIENCE).map_err(late)?.map_err(|failure| told(&failure.to_string(), MAX_FAILURE))
    }

    /// Returns the incidents of the last days. One page at a time reads them, because they may be large.
    async fn shared(self: &Arc<Self>) -> Result<Arc<Shared>, Failure> {
        let mut viewed = self.viewed.lock().await;
        if let Some((_, shared)) = viewed.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(Arc::clone(shared));
        }
        let shared = Arc::new(self.read_all().await?);
        *viewed = Some((Instant::now(), Arc::clone(&shared)));
        let member = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(FRESH).await;
            // Unless it is that of a later page.
            _ = member.viewed.lock().await.take_if(|(at, _)| at.elapsed() >= FRESH);
        });
        Ok(shared)
    }

    /// Reads the indexes of the last days.
    async fn read_all(self: &Arc<Self>) -> Result<Shared, Failure> {
        let (mut merging, mut bytes) = (Merging::default(), 0_u64);
        let (mut own, mut compacted) = (Vec::new(), Vec::new());
        // Those of the last day first.
        for source in self.list_indexes().await? {
            bytes = bytes.saturating_add(source.weight());
            match bytes > MAX_READ {
                true => merging.left_out += 1,
                false => if source.is_compacted { &mut compacted } else { &mut own }.push(source),
            }
        }
        // What an instance has written itself is newer than what was put together.
        merging = self.merge(own, merging).await?;
        for day in merging.take_gone() {
            let path = self.layout.compacted(&day);
            if compacted.iter().all(|source: &Source| source.path != path) {
                compacted.push(Source { day, path, bytes: 0, is_compacted: true });
            }
        }
        merging = self.merge(compacted, merging).await?;
        self.runtime.spawn_blocking(|| merging.finish()).await.map_err(Failure::new)
    }

    /// Adds these indexes.
    async fn merge(self: &Arc<Self>, sources: Vec<Source>, mut merging: Merging) -> Result<Merging, Failure> {
        let (mut left, mut reads, mut being_read) = (sources.into_iter().peekable(), JoinSet::new(), 0);
        loop {
            while reads.len() < READS
                && let Some(source) = left.next_if(|next| being_read == 0 || being_read + next.weight() <= READ_AT_ONCE)
            {
                being_read += source.weight();
                let member = Arc::clone(self);
                let read = async move {
                    let bytes = member.store.get(&source.path, source.most()).await;
                    (source, bytes)
                };
                reads.spawn_on(read, &self.runtime);
            }
            let Some(read) = reads.join_next().await else { return Ok(merging) };
            let (source, bytes) = read.map_err(Failure::new)?;
            being_read -= source.weight();
            // Counts and claims of this instance would wait for megabytes of JSON otherwise.
            let merged = self.runtime.spawn_blocking(move || {
                merging.add(&source, bytes);
                merging
            });
            merging = merged.await.map_err(Failure::new)?;
        }
    }

    /// Returns the indexes of the last days in the store, those of the last day first. Each day has a listing of its own, because a
    /// listing is bounded: a busy day takes no room from the others.
    async fn list_indexes(self: &Arc<Self>) -> Result<Vec<Source>, Failure> {
        let day = Duration::from_secs(86_400);
        let (now, mut lists, mut found) = (SystemTime::now(), JoinSet::new(), Vec::new());
        // By this machine's clock. Another machine's may be ahead.
        for day in (0..=DAYS).map(|back| day_of(now + day - back * day)) {
            let member = Arc::clone(self);
            let list = async move {
                let objects = member.store.list(&member.layout.day("index", &day)).await?;
                let compacted = member.layout.compacted(&day);
                let source = |object: super::store::Listed| {
                    let is_compacted = object.path == compacted;
                    Source { day: day.clone(), path: object.path, bytes: object.bytes, is_compacted }
                };
                Ok::<_, Failure>(objects.into_iter().map(source).collect::<Vec<_>>())
            };
            lists.spawn_on(list, &self.runtime);
        }
        while let Some(list) = lists.join_next().await {
            found.extend(list.map_err(Failure::new)??);
        }
        found.sort_by(|one, other| (&other.day, &one.path).cmp(&(&one.day, &other.path)));
        Ok(found)
    }

    async fn read_report(&self, stored: Option<&Stored>) -> Result<Option<Report>, Failure> {
        let Some(Stored { day, batch, id, .. }) = stored else { return Ok(None) };
        let Some(bytes) = self.store.get(&self.layout.batch(day, batch), MAX_LARGE).await? else { return Ok(None) };
        let plain = decompress(&bytes)?;
        let reports = plain.split(|byte| *byte == b'\n').filter_map(decode::<Report>);
        let found = reports.into_iter().find(|report| report.id == *id && report.update == 0);
        Ok(found.map(|mut report| {
            again(&mut report);
            report
        }))
    }
}
