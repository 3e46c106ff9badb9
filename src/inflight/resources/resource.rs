//! The identity of what is shared, and its name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::capture::PerProcess;
use crate::sync::lock_std;

/// Something that an application shares, and that its work may have to wait for: a pool, a lock, a semaphore.
///
/// Keep it beside what it guards, and pass it to [`acquire`](crate::acquire()). Its identity is what makes a finding
/// certain: two pools may have one name, and only who holds *this* one keeps others waiting.
///
/// ```
/// use heeler::Resource;
///
/// struct Invoices {
///     lock: tokio::sync::Mutex<Vec<u32>>,
///     resource: Resource,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let invoices = Invoices { lock: Default::default(), resource: Resource::new("invoices") };
/// let mut list = heeler::acquire(&invoices.resource, invoices.lock.lock()).await;
/// list.push(4711);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Resource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: u64,
    permits: u32,
}

impl Resource {
    /// Creates a resource that one piece of work can hold at a time, or several
    /// [readers](crate::acquire_shared).
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self::with_permits(Known { name: name.into(), usage: None }, 1)
    }

    /// Says how many can hold it at a time: a semaphore's permits, the size of a pool. Less than one counts as one.
    #[must_use]
    pub fn permits(self, permits: u32) -> Self {
        Self::with_permits(known(self.inner.id).unwrap_or_default(), permits.max(1))
    }

    /// Sets how to ask how much of it is in use. A report about work that waits for it says so: `"invoice pool" (10 of 10
    /// in use)`. That includes what is held elsewhere, where heeler does not see it.
    ///
    /// `read` is called for each such report, on a thread of heeler's. It should read a pool's counters, and take no lock that
    /// others hold for long: a report waits a tenth of a second for all that it asks, and goes without it then. A panic is
    /// caught.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use heeler::{Resource, Usage};
    /// let slots = Arc::new(tokio::sync::Semaphore::new(10));
    /// let counted = Arc::clone(&slots);
    /// let in_use = move || 10 - counted.available_permits() as u32;
    /// let resource = Resource::new("slots").permits(10).usage(move || Usage::new(in_use(), 10));
    /// ```
    #[must_use]
    pub fn usage(self, read: impl Fn() -> Usage + Send + Sync + 'static) -> Self {
        let before = lock_std(KNOWN.get()).get_mut(&self.inner.id).map(|known| known.usage.replace(Arc::new(read)));
        // Outside of the lock, because what it has captured is somebody else's code.
        drop(before);
        self
    }

    fn with_permits(known: Known, permits: u32) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        lock_std(KNOWN.get()).insert(id, known);
        Self { inner: Arc::new(Inner { id, permits }) }
    }
}

/// How much of a [`Resource`] is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// How many of it are in use.
    pub in_use: u32,
    /// How many there are: the size of a pool, the permits of a semaphore.
    pub size: u32,
}

impl Usage {
    /// Creates it from how many are in use, and how many there are.
    #[must_use]
    pub const fn new(in_use: u32, size: u32) -> Self {
        Self { in_use, size }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let known = lock_std(KNOWN.get()).remove(&self.id);
        // Outside of the lock, because what it has captured is somebody else's code.
        drop(known);
    }
}

/// Asks the application how much of a resource is in use.
pub(crate) type ReadUsage = Arc<dyn Fn() -> Usage + Send + Sync>;

#[derive(Clone, Default)]
struct Known {
    name: Cow<'static, str>,
    usage: Option<ReadUsage>,
}

/// What is known of the resources that exist. Only making one, dropping one and reporting on one looks here.
static KNOWN: PerProcess<Mutex<HashMap<u64, Known>>> = PerProcess::new(Mutex::default);

fn known(id: u64) -> Option<Known> {
    let own = lock_std(KNOWN.get()).get(&id).cloned();
    // A thread of the parent may hold the parent's lock for ever.
    own.or_else(|| KNOWN.parent()?.try_lock().ok()?.get(&id).cloned())
}

/// Which resource is meant: a [`Resource`], a name with a key, or a name alone.
///
/// - `&Resource` and `(name, key)` name one instance. What a report says about who holds it is certain. Of a keyed
///   resource one piece of work holds one at a time; `key` is hashed and never shown.
/// - A bare name is no identity, because a lock for each tenant may have the same. It groups what a report shows, and
///   what the report says about holders is only likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResourceId(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Named(&'static str),
    Keyed(&'static str, u64),
    Instance { id: u64, permits: u32 },
}

impl From<&'static str> for ResourceId {
    #[inline]
    fn from(name: &'static str) -> Self {
        Self(Kind::Named(name))
    }
}

impl From<&Resource> for ResourceId {
    #[inline]
    fn from(resource: &Resource) -> Self {
        Self(Kind::Instance { id: resource.inner.id, permits: resource.inner.permits })
    }
}

impl<K: Hash> From<(&'static str, K)> for ResourceId {
    fn from((name, key): (&'static str, K)) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self(Kind::Keyed(name, hasher.finish()))
    }
}

impl ResourceId {
    /// Returns how many can hold it at a time, or `None` if it isn't known which instance is meant.
    pub(crate) fn permits(self) -> Option<u32> {
        match self.0 {
            Kind::Named(_) => None,
            Kind::Keyed(..) => Some(1),
            Kind::Instance { permits, .. } => Some(permits),
        }
    }
}

/// Returns the name of a resource for a report.
pub(crate) fn describe(resource: ResourceId) -> Cow<'static, str> {
    match resource.0 {
        Kind::Named(name) | Kind::Keyed(name, _) => Cow::Borrowed(name),
        Kind::Instance { id, .. } => known(id).map_or(Cow::Borrowed("a resource that is gone"), |known| known.name),
    }
}

/// Returns how to ask how much of a resource is in use, if the application has said that.
pub(crate) fn usage_of(resource: ResourceId) -> Option<ReadUsage> {
    match resource.0 {
        Kind::Named(_) | Kind::Keyed(..) => None,
        Kind::Instance { id, .. } => known(id)?.usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a name is no identity. Two pools with one name are two, and so are two tenants' locks.
    #[test]
    fn equal_names_are_different_resources() {
        let (first, second) = (Resource::new("pool").permits(3), Resource::new("pool"));
        assert_ne!(ResourceId::from(&first), ResourceId::from(&second));
        assert_eq!(ResourceId::from(&first), ResourceId::from(&first.clone()));
        assert_ne!(ResourceId::from(("token", 1)), ResourceId::from(("token", 2)));
        assert_eq!(ResourceId::from(("token", "a")), ResourceId::from(("token", "a")));
        assert_eq!(ResourceId::from("token"), ResourceId::from("token"));
        assert_eq!(ResourceId::from(&first).permits(), Some(3));
        assert_eq!(ResourceId::from("token").permits(), None);
    }

    #[test]
    fn a_resource_has_its_name_while_it_exists() {
        let resource = Resource::new(String::from("ledger")).permits(0);
        let id = ResourceId::from(&resource);
        assert_eq!((&*describe(id), id.permits()), ("ledger", Some(1)));
        let clone = resource.clone();
        drop(resource);
        assert_eq!(describe(id), "ledger");
        drop(clone);
        assert_eq!(describe(id), "a resource that is gone");
    }
}
