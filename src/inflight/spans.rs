//! The `tracing` spans that slow work is in. A subscriber layer remembers their fields, and tells each thread's slot
//! which spans it has entered.

use std::fmt::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Subscriber, dispatcher::WeakDispatch};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::capture::{PerProcess, ThreadSlot, front};
use crate::disabled::is_disabled;
use crate::sync::lock_std;

/// How many fields of one span are kept. The rest is cut.
const MAX_FIELDS: usize = 16;
/// How many bytes of one field's value are kept.
const MAX_VALUE: usize = 256;

/// A subscriber layer that makes reports show which spans the slow work is in, with their fields.
///
/// Add it to a [`Registry`], beside any other layers. Values of fields with names like secrets are not shown, and
/// neither are values that look like secrets: see [Privacy](crate::report#privacy).
///
/// ```
/// use tracing_subscriber::prelude::*;
///
/// let subscriber = tracing_subscriber::registry().with(heeler::SpanLayer::new());
/// # drop(subscriber);
/// ```
#[derive(Debug, Default)]
pub struct SpanLayer {
    /// Whether spans of its registry can be looked up, or nothing more can be done about it.
    is_known: AtomicBool,
}

impl SpanLayer {
    /// Creates the layer. It has no settings.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_known: AtomicBool::new(false) }
    }

    /// Asks for the dispatcher at the first span, because before 0.3.21, tracing-subscriber does not tell layers of a
    /// stack that it has one. It is not available either while a dispatcher for one thread is in use, but an
    /// application has one for all threads.
    #[cold]
    fn ask_for_dispatch(&self) {
        tracing::dispatcher::get_default(|dispatch| {
            if dispatch.is::<Registry>() {
                self.is_known.store(true, Ordering::Relaxed);
                remember(dispatch);
            }
        });
    }
}

/// Makes spans of that dispatcher's registry available from here on.
fn remember(dispatch: &Dispatch) {
    let mut dispatches = lock_std(DISPATCHES.get());
    dispatches.retain(|weak| weak.upgrade().is_some());
    dispatches.push(dispatch.downgrade());
}

/// The registries that have the layer, to look up spans in when a report is made.
static DISPATCHES: PerProcess<Mutex<Vec<WeakDispatch>>> = PerProcess::new(inherited);

/// Continues in a child of `fork` with its parent's subscriber and its layers.
fn inherited() -> Mutex<Vec<WeakDispatch>> {
    Mutex::new(DISPATCHES.parent().and_then(|parent| parent.try_lock().ok()?.clone().into()).unwrap_or_default())
}

/// A span's fields, as text. Kept with the span.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Limited(String::new());
        // A value that is cut stops formatting early, which isn't an error.
        let whole = write!(text, "{value:?}").is_ok();
        self.set(field.name(), ended(text.0, whole));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let kept = front(value, MAX_VALUE);
        self.set(field.name(), ended(kept.to_owned(), kept.len() == value.len()));
    }
}

impl Fields {
    fn set(&mut self, name: &'static str, value: String) {
        match self.0.iter().position(|(known, _)| *known == name) {
            Some(known) => self.0[known].1 = value,
            None if self.0.len() < MAX_FIELDS => self.0.push((name, value)),
            None => {}
        }
    }
}

/// Marks a value as cut, because its end may be half a secret.
fn ended(mut text: String, whole: bool) -> String {
    if !whole {
        text.push('…');
    }
    text
}

/// A string that takes no more than the limit.
struct Limited(String);

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_VALUE - self.0.len();
        let fits = front(text, room);
        self.0.push_str(fits);
        if fits.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl<S> Layer<S> for SpanLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.is_known.store(true, Ordering::Relaxed);
        remember(dispatch);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !self.is_known.load(Ordering::Relaxed) {
            self.ask_for_dispatch();
        }
        if let Some(span) = context.span(id).filter(|_| !is_disabled()) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut extensions = span.extensions_mut();
            if let Some(fields) = extensions.get_mut::<Fields>() {
                record.record(fields);
            }
        }
    }

    fn on_enter(&self, id: &Id, _context: Context<'_, S>) {
        // A thread gets its slot when it first polls watched work. Spans that it entered before that are not known.
        if let Some(slot) = ThreadSlot::existing() {
            slot.spans.enter(id.into_u64());
        }
    }

    fn on_exit(&self, id: &Id, _context: Context<'_, S>) {
        if let Some(slot) = ThreadSlot::existing() {
            slot.spans.exit(id.into_u64());
        }
    }
}

/// Returns names and fields of the spans that are still open.
pub(crate) fn resolve(ids: &[u64]) -> Vec<(String, Vec<(String, String)>)> {
    let dispatches: Vec<Dispatch> = lock_std(DISPATCHES.get()).iter().filter_map(WeakDispatch::upgrade).collect();
    ids.iter()
        .filter(|id| **id != 0)
        .filter_map(|id| {
            dispatches.iter().find_map(|dispatch| {
                let span = dispatch.downcast_ref::<Registry>()?.span(&Id::from_u64(*id))?;
                let extensions = span.extensions();
                let fields = extensions.get::<Fields>()?;
                let fields = fields.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                Some((span.name().to_owned(), fields))
            })
        })
        .collect()
}

/// Returns the id of a span that is still open, as this thread's subscriber knows it.
pub(crate) fn open(id: u64) -> Option<Id> {
    let id = Id::from_u64(id);
    tracing::dispatcher::get_default(|dispatch| {
        // Only a registry with the layer, because in another the number may be another span's. A span that closes right
        // after this is gone for its users as well, because they ask by number, too.
        let span = dispatch.downcast_ref::<Registry>()?.span(&id)?;
        span.extensions().get::<Fields>().is_some().then(|| id.clone())
    })
}
