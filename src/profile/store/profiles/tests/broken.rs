//! An object store that always fails.

use std::fmt;
use std::pin::Pin;

use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Panics, or answers with errors that quote the request.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) panics: bool,
}

impl Broken {
    fn fail<T>(&self, what: &Path) -> Result<T> {
        assert!(!self.panics, "asked for {what}");
        Err(Error::Generic { store: "broken", source: format!("no {what}").into() })
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

// In the form that `async_trait` gives the trait's methods.
impl ObjectStore for Broken {
    fn put_opts<'s, 'l, 'a>(&'s self, location: &'l Path, _: PutPayload, _: PutOptions) -> Later<'a, PutResult>
    where
        's: 'a,
        'l: 'a,
    {
        Box::pin(async move { self.fail(location) })
    }

    fn put_multipart_opts<'s, 'l, 'a>(
        &'s self,
        location: &'l Path,
        _: PutMultipartOptions,
    ) -> Later<'a, Box<dyn MultipartUpload>>
    where
        's: 'a,
        'l: 'a,
    {
        Box::pin(async move { self.fail(location) })
    }

    fn get_opts<'s, 'l, 'a>(&'s self, location: &'l Path, _: GetOptions) -> Later<'a, GetResult>
    where
        's: 'a,
        'l: 'a,
    {
        Box::pin(async move { self.fail(location) })
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([self.fail(&Path::default())]).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::iter([self.fail(prefix.unwrap_or(&Path::default()))]).boxed()
    }

    fn list_with_delimiter<'s, 'p, 'a>(&'s self, _: Option<&'p Path>) -> Later<'a, ListResult>
    where
        's: 'a,
        'p: 'a,
    {
        Box::pin(async move { self.fail(&Path::default()) })
    }

    fn copy_opts<'s, 'f, 't, 'a>(&'s self, from: &'f Path, _: &'t Path, _: CopyOptions) -> Later<'a, ()>
    where
        's: 'a,
        'f: 'a,
        't: 'a,
    {
        Box::pin(async move { self.fail(from) })
    }
}
