//! On a worker: what the profiler inside the service does with a request that was sent.

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::runtime::Handle;
use tower_service::Service;

use super::Delivery;
use super::request::SENT;
use crate::disabled::is_disabled;
use crate::profile::body::BoxError;
use crate::profile::layer::Config;
use crate::profile::start::begin_sent;
use crate::profile::supervisor::SUPERVISOR;

/// Runs the request as a job, if its sender may profile here, too. Ends when the job does. `service` is ready.
pub(in crate::profile) async fn receive<S, B, R>(
    config: &Arc<Config>,
    delivery: Delivery,
    runtime: Option<Handle>,
    service: S,
    request: Request<B>,
) -> Response<Bytes>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Display + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    let answer = |status: StatusCode, sentence: &str| {
        let mut response = Response::new(Bytes::from(format!("{sentence}\n")));
        *response.status_mut() = status;
        response
    };
    let (mut head, body) = request.into_parts();
    head.headers.remove(SENT);
    let access = config.authorizer.ask(&head).await;
    // Nobody but the worker reads the answer. It has given up if the authorizer took too long.
    let Some(tell) = delivery.take() else { return answer(StatusCode::CONFLICT, "Somebody else has it.") };
    let begun = if !config.remote.as_ref().is_some_and(|remote| remote.store.is_same(&delivery.store)) {
        Err("the worker's profiler has another store: give its layer the worker's `Remote`, too".to_owned())
    } else if is_disabled() || !access.is_allowed() || access.principal() != delivery.principal.as_deref() {
        Err("the worker's service does not allow its sender to profile".to_owned())
    } else if let Some(runtime) = runtime {
        begin_sent(config, &access, &delivery, runtime, service, Request::from_parts(head, body))
    } else {
        Err("the worker's service is called outside of a runtime".to_owned())
    };
    let ended = begun.and_then(|ended| match SUPERVISOR.get().handle() {
        Ok(supervisor) => Ok((ended, supervisor)),
        Err(error) => Err(format!("the profile's supervisor could not be started: {error}")),
    });
    match ended {
        Ok(((ended, job), supervisor)) => {
            // The worker must know when it is over, even if a layer around the profiler does not wait for that.
            let over = supervisor.spawn(async move {
                let ended = ended.await;
                let _ = tell.send(ended.map(|_| job.phase()).map_err(|_| "the profile could not be made".to_owned()));
            });
            let _ = over.await;
            answer(StatusCode::OK, "It is over.")
        }
        Err(why) => {
            let _ = tell.send(Err(why));
            answer(StatusCode::FORBIDDEN, "It was not profiled.")
        }
    }
}
