//! Puts the indexes of past days together, so that a page about them reads one object for each day.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use object_store::path::Path;

use super::member::Member;
use super::records::{Index, MAX_LARGE, MAX_OBJECT, compress, decode, decompress, encode};
use super::store::Failure;
use super::upkeep::upkeep_day;

/// How many bytes the indexes of a day have at most when they are put together, as JSON. It is a fraction of what readers take.
const MAX_COMPACTED: usize = 32 << 20;

impl Member {
    /// Puts the indexes of each past day together into one object. Returns the last failure: a day that fails is skipped.
    pub(super) async fn compact(&self, now: SystemTime) -> Result<(), Failure> {
        let (settled, mut done) = (upkeep_day(now), Ok(()));
        for day in self.store.folders(&self.layout.folder("index")).await? {
            if day < settled
                && let Err(failure) = self.compact_day(&day, MAX_COMPACTED).await
            {
                done = Err(failure);
            }
        }
        done
    }

    /// Puts the indexes of a day together, in about so many bytes of JSON at most.
    async fn compact_day(&self, day: &str, most: usize) -> Result<(), Failure> {
        let (compacted, folder) = (self.layout.compacted(day), self.layout.day("index", day));
        let parts = self.store.list(&folder).await?;
        if parts.iter().all(|part| part.path == compacted) {
            return Ok(());
        }
        let before = self.read_compacted(&compacted).await?;
        if before.iter().any(Index::is_later) {
            // A version that knows all of it puts the rest together.
            return Ok(());
        }
        let (mut all, mut merged) = (Compacted::new(before, most)?, HashMap::new());
        for part in parts.into_iter().filter(|part| part.path != compacted) {
            let Some(bytes) = self.store.get(&part.path, MAX_OBJECT).await? else {
                // Somebody else may have put the day together meanwhile. What they have written must not be written over.
                return Err(Failure::new("an index of a past day is gone, or too long"));
            };
            // What this version cannot read stays as it is. A later version may have written it.
            if let Some(index) = Index::read(&bytes).filter(|index| !index.is_later()) {
                all.add(index)?;
                merged.insert(part.path, part.modified);
            }
        }
        if merged.is_empty() {
            return Ok(());
        }
        self.store.put(&compacted, compress(&encode(&all.indexes())).map_err(Failure::new)?).await?;
        // Afterwards, because readers take the last one of each instance. What was written again meanwhile stays.
        for part in self.store.list(&folder).await? {
            if merged.get(&part.path) == Some(&part.modified) {
                self.store.remove(&part.path).await?;
            }
        }
        Ok(())
    }

    /// Returns indexes that were put together.
    pub(super) async fn read_compacted(&self, path: &Path) -> Result<Vec<Index>, Failure> {
        match self.store.get(path, MAX_LARGE).await? {
            Some(bytes) => {
                let plain = decompress(&bytes)?;
                decode(&plain).ok_or_else(|| Failure::new("it is no index"))
            }
            None if self.store.modified(path).await?.is_some() => {
                Err(Failure::new("the indexes of a day are too long"))
            }
            None => Ok(Vec::new()),
        }
    }
}

/// The indexes of a day, put together within a bound.
struct Compacted {
    /// With their lengths as JSON.
    indexes: BTreeMap<String, (usize, Index)>,
    bytes: usize,
    most: usize,
    /// How many lines each may have.
    lines: usize,
}

impl Compacted {
    fn new(indexes: Vec<Index>, most: usize) -> Result<Self, Failure> {
        let mut all = Self { indexes: BTreeMap::new(), bytes: 0, most, lines: usize::MAX };
        indexes.into_iter().try_for_each(|index| all.add(index)).map(|()| all)
    }

    /// Adds an index. An instance whose clock is wrong may write once more.
    fn add(&mut self, mut index: Index) -> Result<(), Failure> {
        shorten(&mut index, self.lines);
        let bytes = encode(&index).len();
        let before = self.indexes.insert(index.instance.id.clone(), (bytes, index));
        self.bytes = self.bytes + bytes - before.map_or(0, |(bytes, _)| bytes);
        while self.bytes > self.most {
            let longest = self.indexes.values().map(|(_, index)| index.lines.len()).max().unwrap_or(0);
            if longest == 0 {
                return Err(Failure::new("the indexes of a day are too long, even without their lines"));
            }
            self.lines = longest / 2;
            for (bytes, index) in self.indexes.values_mut().filter(|(_, index)| index.lines.len() > longest / 2) {
                shorten(index, longest / 2);
                *bytes = encode(index).len();
            }
            self.bytes = self.indexes.values().map(|(bytes, _)| bytes).sum();
        }
        Ok(())
    }

    fn indexes(&self) -> Vec<&Index> {
        self.indexes.values().map(|(_, index)| index).collect()
    }
}

/// Leaves so many lines in an index, those with the most reports. The reports of the others are counted together.
fn shorten(index: &mut Index, lines: usize) {
    if index.lines.len() > lines {
        index.lines.sort_by_key(|line| std::cmp::Reverse(line.reports));
        let others = index.lines.drain(lines..).map(|line| line.reports);
        index.others = others.fold(index.others, u64::saturating_add);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::Bytes;
    use object_store::memory::InMemory;
    use tokio::runtime::Handle;

    use super::*;
    use crate::report::fleet::Fleet;
    use crate::report::fleet::member::day_of;
    use crate::report::fleet::upkeep::DAY;
    use crate::report::testing::report;
    use crate::report::{ProcessInfo, Report};
    use crate::sync::lock_std;

    /// A member that leaves the upkeep to the test.
    pub(in crate::report::fleet) fn member(fleet: &Fleet, name: &str) -> Arc<Member> {
        let process = ProcessInfo { instance: Some(name.to_owned()), ..ProcessInfo::default() };
        let member = Member::on(Handle::current(), fleet, process);
        *lock_std(&member.kept_house) = upkeep_day(SystemTime::now());
        member
    }

    pub(in crate::report::fleet) fn at(days: u64, fingerprint: &str) -> Report {
        let captured_at = UNIX_EPOCH + Duration::from_secs(1_735_689_600 + days * 86_400);
        Report { captured_at, fingerprint: fingerprint.to_owned(), ..report() }
    }

    pub(in crate::report::fleet) async fn names(member: &Member, folder: &str) -> Vec<String> {
        let objects = member.store.list(&member.layout.folder(folder)).await.unwrap();
        let mut names: Vec<String> = objects.iter().map(|object| object.path.to_string()).collect();
        names.sort();
        names
    }

    /// Guards: a day that is over becomes one object, in which every instance's reports still are, also if one comes late.
    #[tokio::test]
    async fn past_days_are_put_together() {
        let fleet = Fleet::new(Arc::new(InMemory::new()), "photos");
        let (one, other) = (member(&fleet, "web1"), member(&fleet, "web2"));
        for member in [&one, &other] {
            member.note(&mut at(0, "a"), true);
            member.note(&mut at(0, "a"), false);
            member.flush().await.unwrap();
        }
        let compacted = one.layout.compacted("2025-01-01");
        one.compact(at(1, "").captured_at).await.unwrap();
        assert_eq!(names(&one, "index").await.len(), 2, "its day may not be over everywhere");
        one.compact(at(2, "").captured_at).await.unwrap();
        assert_eq!(names(&one, "index").await, [compacted.to_string()]);
        let late = member(&fleet, "web3");
        late.note(&mut at(0, "b"), true);
        late.flush().await.unwrap();
        one.compact(at(2, "").captured_at).await.unwrap();
        assert_eq!(names(&one, "index").await, [compacted.to_string()]);
        let mut all = one.read_compacted(&compacted).await.unwrap();
        all.sort_by(|one, other| one.instance.name.cmp(&other.instance.name));
        let lines =
            |index: &Index| index.lines.iter().map(|line| (line.fingerprint.clone(), line.reports)).collect::<Vec<_>>();
        assert_eq!(
            all.iter().map(lines).collect::<Vec<_>>(),
            [[("a".to_owned(), 2)], [("a".to_owned(), 2)], [("b".to_owned(), 1)]]
        );
    }

    /// Guards: a day that cannot be put together is left as it is, and keeps neither other days nor what is old.
    #[tokio::test]
    async fn a_day_that_fails_is_skipped() {
        let fleet = Fleet::new(Arc::new(InMemory::new()), "photos").keep_for(10 * DAY);
        let member = member(&fleet, "web1");
        for day in [0, 1, 2] {
            member.note(&mut at(day, "a"), true);
        }
        member.flush().await.unwrap();
        let path = |day: u64| member.layout.compacted(&day_of(at(day, "").captured_at));
        let too_long = Bytes::from(vec![b' '; MAX_OBJECT as usize + 1]);
        member.store.put(&member.layout.index("2025-01-01", "long"), too_long).await.unwrap();
        let too_long = Bytes::from(vec![b' '; MAX_LARGE as usize + 1]);
        member.store.put(&path(1), too_long).await.unwrap();
        member.keep_house_now(at(9, "").captured_at, false).await;
        assert_eq!(names(&member, "index").await.len(), 5, "others may do it at the same time");
        assert!(member.compact(at(9, "").captured_at).await.is_err());
        assert_eq!(names(&member, "index").await.len(), 5);
        assert_eq!(member.read_compacted(&path(2)).await.unwrap().len(), 1);
        assert!(member.read_compacted(&path(1)).await.is_err());
        let now = member.now().await.unwrap();
        member.keep_house_now(now + 11 * DAY, true).await;
        assert!(names(&member, "index").await.is_empty());
    }

    /// Guards: what this version cannot read, or would shorten, is left to the version that wrote it. The rest is put together.
    #[tokio::test]
    async fn what_a_later_version_wrote_stays() {
        let fleet = Fleet::new(Arc::new(InMemory::new()), "photos");
        let member = member(&fleet, "web1");
        member.note(&mut at(0, "a"), true);
        member.flush().await.unwrap();
        let others = [
            ("later", r#"{"schema": 2, "instance": {"id": "later"}, "lines": [], "others": 3, "new": {}}"#),
            (
                "without",
                r#"{"schema": 2, "instance": {"id": "without"}, "lines": [{"fingerprint": "b", "reports": 1}]}"#,
            ),
            ("half", r#"{"instance": {"id": "ha"#),
        ];
        for (name, text) in others {
            member
                .store
                .put(&member.layout.index("2025-01-01", name), Bytes::from_static(text.as_bytes()))
                .await
                .unwrap();
        }
        member.compact(at(5, "").captured_at).await.unwrap();
        let compacted = member.layout.compacted("2025-01-01");
        assert_eq!(names(&member, "index").await.len(), 4, "one of four was put together");
        for (name, text) in others {
            let bytes = member.store.get(&member.layout.index("2025-01-01", name), MAX_OBJECT).await.unwrap();
            assert_eq!(bytes.as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(member.read_compacted(&compacted).await.unwrap().len(), 1);

        // Put together by a later version.
        let all = compress(br#"[{"schema": 2, "instance": {"id": "later"}, "new": {}}]"#).unwrap();
        member.store.put(&compacted, all.clone()).await.unwrap();
        member.store.put(&member.layout.index("2025-01-01", "late"), Bytes::from_static(b"{}")).await.unwrap();
        member.compact(at(5, "").captured_at).await.unwrap();
        assert_eq!(member.store.get(&compacted, MAX_LARGE).await.unwrap(), Some(all));
        assert_eq!(names(&member, "index").await.len(), 5);
    }

    /// Guards: a day is put together two hours after its end, and the upkeep of the day begins then.
    #[tokio::test]
    async fn the_day_before_is_put_together_after_two_hours() {
        let fleet = Fleet::new(Arc::new(InMemory::new()), "photos");
        let member = member(&fleet, "web1");
        member.note(&mut at(0, "a"), true);
        member.flush().await.unwrap();
        let midnight = at(1, "").captured_at;
        let index = [member.layout.index("2025-01-01", &member.id).to_string()];
        let compacted = [member.layout.compacted("2025-01-01").to_string()];
        for (minutes, day, expected) in [(119, "2025-01-01", &index), (121, "2025-01-02", &compacted)] {
            let now = midnight + Duration::from_secs(minutes * 60);
            assert_eq!(upkeep_day(now), day);
            member.compact(now).await.unwrap();
            assert_eq!(names(&member, "index").await, *expected);
        }
    }

    /// Guards: what is put together is bounded, and all reports are still counted.
    #[tokio::test]
    async fn what_is_put_together_is_bounded() {
        let fleet = Fleet::new(Arc::new(InMemory::new()), "photos");
        let member = member(&fleet, "web1");
        for line in 0..100_u64 {
            (0..=line % 3).for_each(|_| member.note(&mut at(0, &format!("{line:016x}")), true));
        }
        member.flush().await.unwrap();
        member.compact_day("2025-01-01", 10_000).await.unwrap();
        let [index] = &member.read_compacted(&member.layout.compacted("2025-01-01")).await.unwrap()[..] else {
            panic!("one instance")
        };
        assert!(encode(&index).len() <= 10_000 && index.lines.len() > 5, "{}", index.lines.len());
        assert!(index.lines.iter().all(|line| line.reports == 3));
        assert_eq!(index.lines.iter().map(|line| line.reports).sum::<u64>() + index.others, 34 + 2 * 33 + 3 * 33);
        assert!(Compacted::new(vec![Index::default()], 10).is_err());
    }
}
