//! Stores that fail: around another one, as a test wants it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A store that does what it is told.
#[derive(Debug)]
pub(crate) struct Shaky {
    inner: Arc<dyn ObjectStore>,
    /// Nothing works.
    pub(crate) down: AtomicBool,
    /// Nothing is ever answered.
    pub(crate) hangs: AtomicBool,
    /// Conditions are not heeded.
    pub(crate) ignores: AtomicBool,
    /// Conditions are rejected.
    pub(crate) rejects: AtomicBool,
    /// Each request with a condition fails, as with a server that does not know conditions and answers 501.
    pub(crate) breaks: AtomicBool,
    /// Of a hundred requests, so many fail. Half of these have done what they should.
    pub(crate) errors: AtomicU32,
    /// How long each request takes, in milliseconds.
    pub(crate) delay: AtomicU64,
    /// Fails as long as this file exists.
    pub(crate) partition: Mutex<Option<std::path::PathBuf>>,
    requests: AtomicU64,
}

impl Shaky {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            down: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            ignores: AtomicBool::new(false),
            rejects: AtomicBool::new(false),
            breaks: AtomicBool::new(false),
            errors: AtomicU32::new(0),
            delay: AtomicU64::new(0),
            partition: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    /// What happens before a request. Returns whether it fails afterwards.
    async fn begin(&self) -> Result<bool> {
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        let fails = self.begin_now()?;
        tokio::time::sleep(Duration::from_millis(self.delay.load(SeqCst))).await;
        Ok(fails)
    }

    /// The same of a request that takes no time.
    fn begin_now(&self) -> Result<bool> {
        let number = self.requests.fetch_add(1, SeqCst);
        let is_parted = self.partition.lock().unwrap().as_ref().is_some_and(|file| file.exists());
        if self.down.load(SeqCst) || is_parted {
            return Err(failure());
        }
        // The same each time, and spread evenly.
        let errors = u64::from(self.errors.load(SeqCst));
        let fails = (number * 37) % 100 < errors;
        if fails && number.is_multiple_of(2) { Err(failure()) } else { Ok(fails) }
    }
}

fn failure() -> Error {
    Error::Generic { store: "shaky", source: "on purpose".into() }
}

fn end<T>(done: T, fails: bool) -> Result<T> {
    if fails { Err(failure()) } else { Ok(done) }
}

impl fmt::Display for Shaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shaky")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Shaky {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let fails = self.begin().await?;
        if self.ignores.load(SeqCst) {
            options.mode = PutMode::Overwrite;
        }
        if self.rejects.load(SeqCst) && options.mode != PutMode::Overwrite {
            let (operation, implementer) = ("a condition".to_owned(), "shaky".to_owned());
            return Err(Error::NotImplemented { operation, implementer });
        }
        if self.breaks.load(SeqCst) && options.mode != PutMode::Overwrite {
            return Err(failure());
        }
        end(self.inner.put_opts(path, payload, options).await?, fails)
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fails = self.begin().await?;
        end(self.inner.get_opts(path, options).await?, fails)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.hangs.load(SeqCst) {
            return stream::pending().boxed();
        }
        match self.begin_now() {
            Ok(false) => self.inner.delete_stream(paths),
            // Removed, without an answer.
            Ok(true) => self.inner.delete_stream(paths).map(|_| Err(failure())).boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.hangs.load(SeqCst) {
            return stream::pending().boxed();
        }
        match self.begin_now() {
            Ok(false) => self.inner.list(folder),
            // It breaks off in the middle.
            Ok(true) => self.inner.list(folder).take(1).chain(stream::once(async { Err(failure()) })).boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        let fails = self.begin().await?;
        end(self.inner.list_with_delimiter(folder).await?, fails)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
