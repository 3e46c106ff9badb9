//! The type that all authorizers turn into.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::request::Parts;

use super::Access;
use crate::log::log_safely;

/// Anything that can decide who has access: the authorizers of [this module](crate::authorize), and closures and
/// functions over [`Parts`], async or not, that return a `bool`, an `Option<String>` or an [`Access`].
///
/// `Kind` distinguishes the kinds of functions and is always inferred. A function that takes an authorizer has one more
/// type parameter because of it:
///
/// ```
/// use heeler::authorize::{Authorize, Authorizer, debug_builds};
/// use http::request::Parts;
///
/// fn console<Kind>(authorize: impl Authorize<Kind>) -> Authorizer {
///     authorize.into_authorizer()
/// }
///
/// console(debug_builds());
/// console(|parts: &Parts| parts.uri.path().starts_with("/admin/"));
/// console(async |parts: &Parts| parts.headers.get("x-user")?.to_str().ok().map(str::to_owned));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say who may",
    label = "not an authorizer",
    note = "an authorizer is one of `heeler::authorize`, or a function over `&http::request::Parts` that returns a `bool`, \
            an `Option<String>`, an `Access`, or a `Send` future of one of these; write the type of a closure's \
            parameter: `|parts: &Parts| ..`"
)]
pub trait Authorize<Kind> {
    /// Makes an authorizer that can be shared.
    fn into_authorizer(self) -> Authorizer;
}

/// The kinds of authorizers.
pub mod kinds {
    use std::convert::Infallible;
    use std::marker::PhantomData;

    /// One of this crate's types.
    #[derive(Debug)]
    pub struct Built(Infallible);

    /// A function that returns an `R` at once.
    #[derive(Debug)]
    pub struct AtOnce<R>(PhantomData<R>, Infallible);

    /// An async function.
    #[derive(Debug)]
    pub struct Later(Infallible);
}

/// Decides who has access. It is made from anything that [authorises](Authorize) and is cheap to clone, so that all
/// pages can share one.
///
/// # Example
///
/// ```
/// use heeler::authorize::{Authorizer, bearer};
///
/// # fn app() -> Result<(), heeler::Error> {
/// let operators = Authorizer::new(bearer("correct horse battery staple".replace(' ', "-"))?);
/// # Ok(())
/// # }
/// # app().unwrap();
/// ```
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    name: &'static str,
    ask: Box<AskFn>,
    /// Whether its panic has been logged. Everybody may ask, so logging it each time would flood the log.
    said_panic: AtomicBool,
}

type AskFn = dyn for<'a> Fn(&'a Parts) -> Answer<'a> + Send + Sync;
type Pending<'a> = Pin<Box<dyn Future<Output = Access> + Send + 'a>>;

enum Answer<'a> {
    Now(Access),
    Later(Pending<'a>),
}

impl Authorizer {
    /// Creates an authorizer from anything that can be one.
    pub fn new<Kind>(authorize: impl Authorize<Kind>) -> Self {
        authorize.into_authorizer()
    }

    /// Creates one that answers at once. `name` is for debugging.
    pub(super) fn at_once(
        name: &'static str,
        ask: impl for<'a> Fn(&'a Parts) -> Access + Send + Sync + 'static,
    ) -> Self {
        Self::of(name, Box::new(move |parts| Answer::Now(ask(parts))))
    }

    fn of(name: &'static str, ask: Box<AskFn>) -> Self {
        Self { inner: Arc::new(Inner { name, ask, said_panic: AtomicBool::new(false) }) }
    }

    /// Returns whether it needs what a layer outside of heeler's leaves in the request's extensions.
    #[cfg(feature = "console")]
    pub(crate) fn needs_extension(&self) -> bool {
        self.inner.name == "extension"
    }

    /// Asks for access. A panic, at once or later, refuses it.
    pub(crate) fn ask<'a>(&'a self, parts: &'a Parts) -> Asked<'a> {
        let answer = catch_unwind(AssertUnwindSafe(|| (self.inner.ask)(parts)));
        let state = answer.unwrap_or_else(|_| Answer::Now(self.inner.panicked()));
        Asked { inner: &self.inner, state }
    }
}

impl Inner {
    /// Returns the answer after a panic. The panic's message is left to the panic hook, because it may quote the
    /// request.
    #[cold]
    #[inline(never)]
    fn panicked(&self) -> Access {
        if !self.said_panic.swap(true, Ordering::Relaxed) {
            log_safely(
                || tracing::error!(target: "heeler", "an authorizer panicked: the request that it was asked about is refused"),
            );
        }
        Access::refused()
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorizer({})", self.inner.name)
    }
}

/// The answer to come. It is ready at once unless the authorizer is async.
pub(crate) struct Asked<'a> {
    inner: &'a Inner,
    state: Answer<'a>,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

impl Asked<'_> {
    /// Returns the answer if it is there without waiting. In that case an async authorizer has not begun.
    pub(crate) fn now(mut self) -> Option<Access> {
        match &mut self.state {
            Answer::Now(access) => Some(std::mem::take(access)),
            Answer::Later(_) => None,
        }
    }

    /// Drops an async authorizer's future. It is the user's, so its destructor may panic.
    fn answered(&mut self, access: Access) -> Access {
        let old = std::mem::replace(&mut self.state, Answer::Now(Access::refused()));
        match catch_unwind(AssertUnwindSafe(|| drop(old))) {
            Ok(()) => access,
            Err(_) => self.inner.panicked(),
        }
    }
}

impl Future for Asked<'_> {
    type Output = Access;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Access> {
        let this = &mut *self;
        match &mut this.state {
            Answer::Now(access) => Poll::Ready(std::mem::take(access)),
            Answer::Later(pending) => match catch_unwind(AssertUnwindSafe(|| pending.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(access)) => Poll::Ready(this.answered(access)),
                Err(_) => {
                    let refused = this.inner.panicked();
                    Poll::Ready(this.answered(refused))
                }
            },
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if matches!(self.state, Answer::Later(_)) {
            self.answered(Access::refused());
        }
    }
}

impl Authorize<kinds::Built> for Authorizer {
    fn into_authorizer(self) -> Authorizer {
        self
    }
}

impl<F, R> Authorize<kinds::AtOnce<R>> for F
where
    F: Fn(&Parts) -> R + Send + Sync + 'static,
    R: Into<Access>,
{
    fn into_authorizer(self) -> Authorizer {
        Authorizer::at_once("function", move |parts| self(parts).into())
    }
}

impl<F> Authorize<kinds::Later> for F
where
    F: for<'a> AnswersLater<'a> + Send + Sync + 'static,
{
    fn into_authorizer(self) -> Authorizer {
        Authorizer::of("async function", Box::new(move |parts| Answer::Later(self.ask(parts))))
    }
}

/// An async function over `&'a Parts`. A bound on a future that may borrow its argument needs its own trait.
trait AnswersLater<'a> {
    fn ask(&self, parts: &'a Parts) -> Pending<'a>;
}

impl<'a, F, Later> AnswersLater<'a> for F
where
    F: Fn(&'a Parts) -> Later,
    Later: Future<Output: Into<Access>> + Send + 'a,
{
    fn ask(&self, parts: &'a Parts) -> Pending<'a> {
        let later = self(parts);
        Box::pin(async move { later.await.into() })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::Request;

    use super::*;

    fn parts(user: Option<&str>) -> Parts {
        let mut request = Request::get("/a?b");
        if let Some(user) = user {
            request = request.header("x-user", user);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn now(authorizer: &Authorizer, parts: &Parts) -> Access {
        let mut asked = authorizer.ask(parts);
        match Pin::new(&mut asked).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(access) => access,
            Poll::Pending => panic!("not ready"),
        }
    }

    fn user(parts: &Parts) -> Option<String> {
        parts.headers.get("x-user")?.to_str().ok().map(str::to_owned)
    }

    async fn user_later(parts: &Parts) -> Option<String> {
        tokio::task::yield_now().await;
        user(parts)
    }

    /// Guards: every kind of function is accepted, async or not, borrowing or not, and each answer has the right
    /// meaning.
    #[tokio::test]
    async fn accepts_every_kind_of_function() {
        let captured = Arc::new("ada".to_owned());
        let (one, two) = (captured.clone(), captured.clone());
        let all = [
            Authorizer::new(user),
            Authorizer::new(user_later),
            Authorizer::new(|parts: &Parts| parts.headers.contains_key("x-user")),
            Authorizer::new(move |parts: &Parts| user(parts).filter(|user| *user == *one)),
            Authorizer::new(async |parts: &Parts| user_later(parts).await.is_some()),
            Authorizer::new(async |parts: &Parts| user_later(parts).await),
            Authorizer::new(move |parts: &Parts| {
                let (user, ada) = (user(parts), two.clone());
                async move {
                    tokio::task::yield_now().await;
                    user.as_ref() == Some(&*ada)
                }
            }),
            Authorizer::new(|parts: &Parts| user(parts).map_or_else(Access::refused, Access::allowed_as)),
            Authorizer::new(Authorizer::new(user)),
        ];
        let named = [true, true, false, true, false, true, false, true, true];
        for (authorizer, named) in all.iter().zip(named) {
            let access = authorizer.ask(&parts(Some("ada"))).await;
            assert_eq!((access.is_allowed(), access.principal()), (true, named.then_some("ada")), "{authorizer:?}");
            assert_eq!(authorizer.ask(&parts(None)).await, Access::refused(), "{authorizer:?}");
        }
    }

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    /// Guards: a panic at any point of the decision is a refusal, and does not escape.
    #[tokio::test]
    async fn panics_are_refusals() {
        let all = [
            Authorizer::new(|_: &Parts| -> bool { panic!("at once") }),
            Authorizer::new(|_: &Parts| -> std::future::Ready<bool> { panic!("before the future") }),
            Authorizer::new(async |_: &Parts| -> bool { panic!("first poll") }),
            Authorizer::new(async |_: &Parts| -> bool {
                tokio::task::yield_now().await;
                panic!("later")
            }),
            Authorizer::new(|_: &Parts| {
                let guard = PanicsOnDrop;
                // The guard is dropped with the future, after the answer.
                std::future::poll_fn(move |_| Poll::Ready(std::mem::size_of_val(&guard) == 0))
            }),
        ];
        for authorizer in all {
            for _ in 0..2 {
                assert_eq!(authorizer.ask(&parts(Some("ada"))).await, Access::refused(), "{authorizer:?}");
            }
        }
        let never = Authorizer::new(async |_: &Parts| {
            let _guard = PanicsOnDrop;
            std::future::pending::<bool>().await
        });
        let parts = parts(None);
        let mut asked = never.ask(&parts);
        assert!(Pin::new(&mut asked).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(asked);
    }

    /// Guards: a decision that needs no waiting is made at the first poll.
    #[test]
    fn decides_at_the_first_poll_without_waiting() {
        assert!(now(&Authorizer::new(|_: &Parts| true), &parts(None)).is_allowed());
        assert_eq!(now(&super::super::debug_builds().into_authorizer(), &parts(None)), cfg!(debug_assertions).into());
    }

    /// Guards: one authorizer serves many pages, and its answer can be awaited on any thread, together with the
    /// request.
    #[test]
    fn can_be_shared_between_threads() {
        fn shared<T: Send + Sync + Clone + 'static>() {}
        fn sent<T: Send>(_: T) {}
        shared::<Authorizer>();
        sent(Authorizer::new(user_later).ask(&parts(None)));
    }

    #[test]
    fn debug_output_contains_no_principal() {
        assert_eq!(format!("{:?}", Authorizer::new(user)), "Authorizer(function)");
        assert_eq!(format!("{:?}", Access::allowed_as("ada")), "Access(allowed as ..)");
    }
}
