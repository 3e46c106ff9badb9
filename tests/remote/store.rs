//! A store that somebody meddles with: it fails, waits or kills the process at a step that the test chooses.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// An operation, before or after it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    Get,
    Delete,
    List,
}

pub(crate) struct Step<'a> {
    pub(crate) operation: Operation,
    pub(crate) when: When,
    /// The folder of the object: its kind.
    pub(crate) kind: &'a str,
    /// Whether there must be no such object.
    pub(crate) is_conditional: bool,
}

pub(crate) enum Meddling {
    Nothing,
    Fail,
    /// As a store does that knows no conditions.
    Unsupported,
    Wait(Duration),
    /// Ends the process as `kill -9` does.
    Kill,
    /// Puts an object although there is one.
    IgnoreCondition,
}

type Meddle = dyn Fn(&Step<'_>) -> Meddling + Send + Sync;

#[derive(Clone)]
pub(crate) struct Meddled {
    inner: Arc<dyn ObjectStore>,
    meddle: Arc<Meddle>,
}

impl Meddled {
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        meddle: impl Fn(&Step<'_>) -> Meddling + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { inner, meddle: Arc::new(meddle) })
    }

    /// Returns whether conditions count.
    async fn step(&self, operation: Operation, when: When, path: &Path) -> Result<bool> {
        self.step_if(operation, when, path, false).await
    }

    async fn step_if(&self, operation: Operation, when: When, path: &Path, is_conditional: bool) -> Result<bool> {
        let kind = path.parts().nth(1);
        let kind = kind.as_ref().map_or("", |kind| kind.as_ref());
        match (self.meddle)(&Step { operation, when, kind, is_conditional }) {
            Meddling::Nothing => Ok(true),
            Meddling::IgnoreCondition => Ok(false),
            Meddling::Fail => Err(Error::Generic { store: "meddled", source: "as the test has it".into() }),
            Meddling::Unsupported => {
                Err(Error::NotImplemented { operation: "conditions".to_owned(), implementer: "meddled".to_owned() })
            }
            Meddling::Wait(time) => {
                tokio::time::sleep(time).await;
                Ok(true)
            }
            Meddling::Kill => {
                let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
                std::future::pending().await
            }
        }
    }
}

impl fmt::Display for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("meddled")
    }
}

impl fmt::Debug for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddled")
    }
}

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

// In the form that `async_trait` gives the trait's methods.
impl ObjectStore for Meddled {
    fn put_opts<'s, 'l, 'a>(
        &'s self,
        path: &'l Path,
        bytes: PutPayload,
        mut options: PutOptions,
    ) -> Later<'a, PutResult>
    where
        's: 'a,
        'l: 'a,
    {
        Box::pin(async move {
            let is_conditional = options.mode == PutMode::Create;
            if !self.step_if(Operation::Put, When::Before, path, is_conditional).await? {
                options.mode = PutMode::Overwrite;
            }
            let done = self.inner.put_opts(path, bytes, options).await?;
            self.step_if(Operation::Put, When::After, path, is_conditional).await?;
            Ok(done)
        })
    }

    fn put_multipart_opts<'s, 'l, 'a>(
        &'s self,
        path: &'l Path,
        options: PutMultipartOptions,
    ) -> Later<'a, Box<dyn MultipartUpload>>
    where
        's: 'a,
        'l: 'a,
    {
        self.inner.put_multipart_opts(path, options)
    }

    fn get_opts<'s, 'l, 'a>(&'s self, path: &'l Path, options: GetOptions) -> Later<'a, GetResult>
    where
        's: 'a,
        'l: 'a,
    {
        Box::pin(async move {
            self.step(Operation::Get, When::Before, path).await?;
            let done = self.inner.get_opts(path, options).await?;
            self.step(Operation::Get, When::After, path).await?;
            Ok(done)
        })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |path: Result<Path>| {
            let this = this.clone();
            async move {
                let path = path?;
                this.step(Operation::Delete, When::Before, &path).await?;
                this.inner.delete(&path).await?;
                this.step(Operation::Delete, When::After, &path).await?;
                Ok(path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let list = async move {
            this.step(Operation::List, When::Before, &prefix).await?;
            Ok::<_, Error>(this.inner.list(Some(&prefix)))
        };
        futures::stream::once(list).try_flatten().boxed()
    }

    fn list_with_delimiter<'s, 'p, 'a>(&'s self, prefix: Option<&'p Path>) -> Later<'a, ListResult>
    where
        's: 'a,
        'p: 'a,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'s, 'f, 't, 'a>(&'s self, from: &'f Path, to: &'t Path, options: CopyOptions) -> Later<'a, ()>
    where
        's: 'a,
        'f: 'a,
        't: 'a,
    {
        self.inner.copy_opts(from, to, options)
    }
}
