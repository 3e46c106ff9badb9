//! The sink that brings an instance's reports to the store, several at a time.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::member::{Member, day_of};
use super::records::Stored;
use crate::report::Report;
use crate::report::sink::{Batch, Delivery, DynAsyncSink, SinkError};

/// How many reports are written at once, and how many bytes they have in memory.
const MAX_REPORTS: usize = 200;
const MAX_BYTES: usize = 8 << 20;

/// Brings reports to the store.
pub(in crate::report) struct FleetSink(pub(in crate::report) Arc<Member>);

impl DynAsyncSink for FleetSink {
    fn name(&self) -> &'static str {
        "fleet"
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a> {
        Box::pin(async move { self.write(&[Arc::new(report.clone())]).await })
    }

    fn batch(&self) -> Option<Batch> {
        Some(Batch { age: self.0.times.flush_every, reports: MAX_REPORTS, bytes: MAX_BYTES })
    }

    fn deliver_all<'a>(&'a self, reports: &'a [Arc<Report>]) -> Delivery<'a> {
        Box::pin(self.write(reports))
    }
}

impl FleetSink {
    async fn write(&self, reports: &[Arc<Report>]) -> Result<(), SinkError> {
        let Some(first) = reports.first() else { return Ok(()) };
        // The same each time that it is tried, so that nothing is there twice.
        let day = day_of(first.captured_at);
        let name = format!("{}-{}.{}", self.0.id, plain(&first.id), first.update);
        let (member, reports, to) = (Arc::clone(&self.0), reports.to_vec(), (day, name));
        // On the fleet's own runtime, where its connections are. If this future is dropped, the request goes on.
        let written = self.0.runtime.spawn(async move {
            let bytes = encode(&reports).map_err(SinkError::permanent)?;
            let (day, name) = to;
            member.store.put(&member.layout.batch(&day, &name), bytes).await.map_err(SinkError::transient)?;
            for report in reports.iter().filter(|report| report.update == 0) {
                let (id, elapsed) = (report.id.clone(), report.elapsed);
                member.stored(report, &Stored { day: day.clone(), batch: name.clone(), id, elapsed });
            }
            Ok(())
        });
        written.await.unwrap_or_else(|error| Err(SinkError::transient(error)))
    }
}

/// Returns reports as JSON, one a line, in gzip.
fn encode(reports: &[Arc<Report>]) -> std::io::Result<Bytes> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for report in reports {
        serde_json::to_writer(&mut gzip, &**report)?;
        gzip.write_all(b"\n")?;
    }
    gzip.finish().map(Bytes::from)
}

/// Returns what of an id may be in a name. heeler's have nothing else.
fn plain(id: &str) -> String {
    id.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '-').take(64).collect()
}
