//! Answers, with the headers that all of them have.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, LOCATION, VARY};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use super::ResponseBody;
use super::order;
use super::page;
use super::query::{Asked, Filter, Form, View, parse};
use super::snapshots::{Depth, Shared, answer_of};
use super::stream;
use super::switches::{self, Made};
use crate::authorize::intent::is_own_action;
use crate::report::Reports;
use crate::report::profiles::{self, ProfileForm};
use crate::report::rules::orders::Placed;
use crate::text::page::{NO_PAGE, PICTURE, fixed_headers, nonce, policy_in_page};

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

const FOREIGN: &str = "Another page has asked for this.";
const TOO_MANY: &str = "Too many requests at the same time.";

/// Returns the answer to somebody who may look.
pub(super) async fn answer(reports: &Reports, head: &Parts, caller: Option<&str>) -> Response<ResponseBody> {
    let (method, query) = (&head.method, head.uri.query().unwrap_or_default());
    if method == Method::POST
        && let Some(id) = order::parse(query)
    {
        return if is_own_action(head) {
            ordered(id.to_owned(), reports.clone(), caller).await
        } else {
            say(StatusCode::FORBIDDEN, FOREIGN)
        };
    }
    if method == Method::POST {
        return match switches::parse(query) {
            // A page elsewhere can have a browser send it.
            Some(_) if !is_own_action(head) => say(StatusCode::FORBIDDEN, FOREIGN),
            Some(change) => match switches::make(&change, reports, caller) {
                Made::Changed => see_other("?view=switches"),
                Made::Unknown => say(StatusCode::NOT_FOUND, "There is no such switch."),
                Made::NoThread => say(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "No thread could be started that would take the change back. Nothing was changed.",
                ),
            },
            None => wrong_method(),
        };
    }
    if method != Method::GET && method != Method::HEAD {
        return wrong_method();
    }
    let Some((asked, filter)) = parse(query) else { return not_found() };
    let response = match asked {
        Asked::Events if method == Method::HEAD => with_headers("text/event-stream", NO_PAGE, Bytes::new()),
        Asked::Events => match stream::open(filter) {
            Some(events) => {
                let mut response = with_headers("text/event-stream", NO_PAGE, Bytes::new());
                *response.body_mut() = ResponseBody::events(events);
                response
            }
            None => say(StatusCode::SERVICE_UNAVAILABLE, "There are too many open streams."),
        },
        asked => {
            let (depth, reports) = (asked.depth(), reports.clone());
            let caller = caller.map(str::to_owned);
            let id = if let Asked::Work(id) = &asked { Some(id.clone()) } else { None };
            let made = answer_of(depth, id, move |dump| made(asked, &filter, dump, &reports, caller.as_deref())).await;
            made.unwrap_or_else(|| say(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY))
        }
    };
    if method == Method::HEAD { response.map(|_| ResponseBody::whole(Bytes::new())) } else { response }
}

/// Has the next work like that profiled.
async fn ordered(id: String, reports: Reports, caller: Option<&str>) -> Response<ResponseBody> {
    let caller = caller.map(str::to_owned);
    let of = Some(id.clone());
    match answer_of(Depth::Cheap, of, move |dump| order::place(dump, &id, &reports, caller.as_deref())).await {
        Some(Ok(Placed::Waits)) => see_other("?view=history"),
        Some(Ok(Placed::NobodyTakes)) => {
            say(StatusCode::CONFLICT, "Nothing can be profiled: this process has no `ProfileLayer`.")
        }
        Some(Ok(Placed::TooMany)) => {
            say(StatusCode::CONFLICT, "Work on too many other routes is to be profiled. Try again in ten minutes.")
        }
        Some(Err((status, words))) => say(status, &words),
        None => say(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY),
    }
}

impl Asked {
    /// Returns how much a dump must look at for it.
    const fn depth(&self) -> Depth {
        match self {
            Self::Page(View::InFlight | View::History | View::Fleet | View::Switches | View::Runtimes)
            | Self::Report(..)
            | Self::Shared(_)
            | Self::Profile(..)
            | Self::Form(Form::Table)
            | Self::Events => Depth::Cheap,
            Self::Page(View::Places | View::Resources | View::Threads) | Self::Work(_) | Self::Form(_) => Depth::Whole,
        }
    }
}

/// Makes the answer of a dump.
fn made(
    asked: Asked,
    filter: &Filter,
    dump: &Shared,
    reports: &Reports,
    caller: Option<&str>,
) -> Response<ResponseBody> {
    let json = |text: Bytes| with_headers("application/json", NO_PAGE, text);
    let svg = |picture: Bytes| with_headers("image/svg+xml", PICTURE, picture);
    let text = |text: Bytes| with_headers(TEXT, NO_PAGE, text);
    match asked {
        Asked::Page(View::Fleet) => match reports.shared_incidents() {
            Ok(fleet) => shown(|nonce| page::fleet(dump, reports, &fleet, &profiles::recent(caller), nonce)),
            Err(error) => say(StatusCode::SERVICE_UNAVAILABLE, &format!("The incidents cannot be read: {error}.")),
        },
        Asked::Shared(fingerprint) => match reports.shared_reports(&fingerprint) {
            Ok(Some(shared)) => shown(|nonce| page::shared(dump, reports, &shared, nonce)),
            Ok(None) => say(StatusCode::NOT_FOUND, "No instance had such a report lately."),
            Err(error) => say(StatusCode::SERVICE_UNAVAILABLE, &format!("The reports cannot be read: {error}.")),
        },
        Asked::Page(view) => {
            let profiles = if view == View::History { profiles::recent(caller) } else { Default::default() };
            shown(|nonce| page::view(dump, reports, view, filter, &profiles, nonce))
        }
        Asked::Work(id) => match dump.work.iter().find(|work| work.id == id) {
            Some(work) => shown(|nonce| page::work(dump, reports, work, nonce)),
            None => say(StatusCode::NOT_FOUND, &order::not_in_flight(dump)),
        },
        Asked::Report(fingerprint, form) => match (reports.remembered(&fingerprint), form) {
            (Some(report), None) => shown(|nonce| page::report(dump, reports, &report, nonce)),
            (Some(report), Some(Form::Text)) => text(report.to_text().into()),
            (Some(report), Some(Form::Svg)) => svg(report.to_svg().into()),
            (Some(report), Some(Form::Json | Form::Table)) => json(report.to_json().into()),
            (None, _) => say(StatusCode::NOT_FOUND, "No such report is remembered."),
        },
        Asked::Profile(id, form) => {
            let form = match form {
                Form::Svg => ProfileForm::Svg,
                Form::Json => ProfileForm::Json,
                Form::Text | Form::Table => return say(StatusCode::NOT_FOUND, "A profile has no such form here."),
            };
            match profiles::read(&id, caller, form) {
                Ok(Some(picture)) if form == ProfileForm::Svg => svg(picture.into()),
                Ok(Some(profile)) => json(profile.into()),
                Ok(None) => say(StatusCode::NOT_FOUND, "There is no such profile."),
                Err(error) => say(StatusCode::SERVICE_UNAVAILABLE, &format!("The profile cannot be read: {error}.")),
            }
        }
        Asked::Form(Form::Text) => text(dump.text()),
        Asked::Form(Form::Json | Form::Table) => json(dump.json()),
        Asked::Form(Form::Svg) => svg(dump.svg()),
        Asked::Events => not_found(),
    }
}

/// Returns what callers without access get, and everybody who asks for what does not exist.
pub(super) fn not_found() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(Bytes::new()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn wrong_method() -> Response<ResponseBody> {
    let mut response = say(StatusCode::METHOD_NOT_ALLOWED, "Use GET for this.");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn see_other(location: &'static str) -> Response<ResponseBody> {
    let mut response = say(StatusCode::SEE_OTHER, location);
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(location));
    response
}

fn shown(page: impl FnOnce(&str) -> String) -> Response<ResponseBody> {
    let Ok(nonce) = nonce() else {
        return say(StatusCode::SERVICE_UNAVAILABLE, "The system has no random numbers available.");
    };
    let policy = format!("{}; frame-ancestors 'none'", policy_in_page(&nonce, true));
    with_headers(HTML, &policy, Bytes::from(page(&nonce)))
}

fn say(status: StatusCode, sentence: &str) -> Response<ResponseBody> {
    let mut response = with_headers(TEXT, NO_PAGE, Bytes::from(format!("{sentence}\n")));
    *response.status_mut() = status;
    response
}

fn with_headers(content_type: &'static str, policy: &str, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    let headers = response.headers_mut();
    headers.extend(fixed_headers(content_type));
    headers.insert(VARY, HeaderValue::from_static("authorization, cookie"));
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}
