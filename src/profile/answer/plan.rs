//! Decides what to do about a request with the flag, from somebody who may profile.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::find::{Found, find, in_time};
use super::question::Stage;
use super::{Client, Respond};
use crate::authorize::Access;
use crate::authorize::intent::{Intent, Way, goes_on, is_own_action};
use crate::profile::Profile;
use crate::profile::flag::{Ask, Start, decode};
use crate::profile::form::Form;
use crate::profile::id::Id;
use crate::profile::jobs::Stop;
use crate::profile::layer::Config;
use crate::profile::store::{Phase, Status, StoreError, Summary};

/// The form of a profile for a client that has not named one.
const DEFAULT_FORM: Form = Form::Svg;

/// The number of earlier profiles that are offered for a comparison.
const MAX_EARLIER: usize = 10;

/// The number of profiles on the page that lists them.
const MAX_LISTED: usize = 200;

/// The longest search, in characters.
const MAX_QUERY: usize = 200;

/// What to do.
pub(in crate::profile) enum Plan {
    /// What would happen without the layer.
    Pass,
    Answer(Response<Bytes>),
    Start(Wanted),
}

/// How a request is to be profiled, and what the caller gets.
#[derive(Debug, Clone, Copy)]
pub(in crate::profile) struct Wanted {
    pub(in crate::profile) start: Start,
    pub(in crate::profile) by: By,
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::profile) enum By {
    /// A redirect to a page, at once.
    Page,
    /// The profile in this form, when it is done.
    Form(Form),
    /// The response of the request itself.
    Response,
}

pub(in crate::profile) async fn plan(config: &Config, access: &Access, head: &Parts, client: &Client) -> Plan {
    let respond = Respond { config, uri: &head.uri, shows_pages: client.shows_pages };
    let ask = match config.flag.find(&head.uri) {
        Some(value) => Ask::parse(value),
        None => match config.header.as_ref().and_then(|name| head.headers.get(name)) {
            Some(value) => match Start::of_header(value.as_bytes()) {
                Ok(Some(start)) => return started(respond, access, head, client, start, By::Response),
                Ok(None) => return Plan::Pass,
                Err(nonsense) => Err(nonsense),
            },
            None => return Plan::Pass,
        },
    };
    match ask {
        Err(nonsense) => Plan::Answer(respond.nonsense(&nonsense)),
        Ok(Ask::Start(start)) => {
            let by = if client.shows_pages && client.reads() && !client.sends_body {
                By::Page
            } else {
                By::Form(start.form.unwrap_or(DEFAULT_FORM))
            };
            started(respond, access, head, client, start, by)
        }
        Ok(Ask::Confirm(token)) => Plan::Answer(confirmed(respond, access, head, token)),
        Ok(Ask::Go(token)) => go(respond, access, head, token),
        Ok(ask) => Plan::Answer(answered(respond, access, head, client, ask).await),
    }
}

fn started(respond: Respond<'_>, access: &Access, head: &Parts, client: &Client, start: Start, by: By) -> Plan {
    let refuse = |status, sentence| Plan::Answer(respond.say(status, sentence));
    let many = start.runs.is_some_and(|runs| runs > 1);
    let way = if by == By::Response { Way::Header } else { Way::Flag };
    let is_clear = match Intent::of(head, way, many) {
        Intent::Act => true,
        Intent::Unclear => false,
        Intent::Preparation => return refuse(StatusCode::SERVICE_UNAVAILABLE, "Nothing is profiled in advance."),
        Intent::Foreign => {
            return refuse(StatusCode::FORBIDDEN, "Another site cannot start a profile: open the address yourself.");
        }
        Intent::Embedded => {
            return refuse(
                StatusCode::FORBIDDEN,
                "A part of a page cannot start a profile: open the address yourself.",
            );
        }
        Intent::ManyByHeader => {
            let sentence = "More than one run has to be confirmed: open the address with the parameter in a browser, or \
                            send the credentials in `Authorization` and no cookie.";
            return refuse(StatusCode::FORBIDDEN, sentence);
        }
    };
    if many && (!client.reads() || client.sends_body) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "Only a GET or HEAD request without a body can be run more than once: of others, nobody knows what that does.",
        );
    }
    if let By::Form(form) = by
        && let Some(why) = respond.unavailable(form)
    {
        return Plan::Answer(why);
    }
    if start.process && !respond.config.allow_process {
        return refuse(StatusCode::BAD_REQUEST, "Profiles of the whole process are not allowed here.");
    }
    if start.process && !cfg!(feature = "pprof") {
        return refuse(StatusCode::BAD_REQUEST, "This program is built without heeler's feature `pprof`.");
    }
    if !is_clear {
        return Plan::Answer(asked(respond, access, head, client, start));
    }
    Plan::Start(Wanted { start, by })
}

/// Asks whether the request is meant, on a page that nobody else can read or frame.
fn asked(respond: Respond<'_>, access: &Access, head: &Parts, client: &Client, start: Start) -> Response<Bytes> {
    if !client.shows_pages || head.method != Method::GET || client.sends_body {
        // A page could have made a browser send this. A POST cannot be repeated, and an image has no buttons.
        let sentence = "Nobody seems to have meant this: open the address yourself, or send the credentials in \
                        `Authorization` and no cookie, or ask with the header instead of the parameter.";
        return respond.say(StatusCode::FORBIDDEN, sentence);
    }
    let config = respond.config;
    match config.questions.ask(head, &config.flag, access, start, Stage::Asked) {
        Ok(token) => respond.confirm(start, token),
        Err(_) => respond.say(StatusCode::SERVICE_UNAVAILABLE, "The system has no random numbers available."),
    }
}

const NOT_OPEN: &str = "This question is no longer open, or another instance has asked it: open the address again.";

/// Somebody has confirmed. Sends them on to the URL that starts the profile.
fn confirmed(respond: Respond<'_>, access: &Access, head: &Parts, token: Id) -> Response<Bytes> {
    if head.method != Method::POST {
        return respond.wrong_method("POST");
    }
    if !is_own_action(head) {
        return respond.say(StatusCode::FORBIDDEN, "Another site cannot start a profile.");
    }
    let (questions, flag) = (&respond.config.questions, &respond.config.flag);
    let Some(start) = questions.answer(token, head, flag, access, Stage::Asked) else {
        return respond.say(StatusCode::FORBIDDEN, NOT_OPEN);
    };
    match questions.ask(head, flag, access, start, Stage::Confirmed) {
        Ok(token) => respond.go_to(&format!("{token}.go")),
        Err(_) => respond.say(StatusCode::SERVICE_UNAVAILABLE, "The system has no random numbers available."),
    }
}

/// Somebody has confirmed, and comes from the redirect.
fn go(respond: Respond<'_>, access: &Access, head: &Parts, token: Id) -> Plan {
    if head.method != Method::GET {
        return Plan::Answer(respond.wrong_method("GET"));
    }
    let config = respond.config;
    let start =
        goes_on(head).then(|| config.questions.answer(token, head, &config.flag, access, Stage::Confirmed)).flatten();
    match start {
        Some(start) => Plan::Start(Wanted { start, by: By::Page }),
        None => Plan::Answer(respond.say(StatusCode::FORBIDDEN, NOT_OPEN)),
    }
}

async fn answered(respond: Respond<'_>, access: &Access, head: &Parts, client: &Client, ask: Ask) -> Response<Bytes> {
    if let Ask::Cancel(id) = ask {
        return cancel(respond, access, head, id).await.unwrap_or_else(|error| respond.store_failed(&error));
    }
    if !client.reads() {
        return respond.wrong_method("GET, HEAD");
    }
    let answered = match ask {
        Ask::Page(id) => page(respond, access, id).await,
        Ask::Download(id, form) => download(respond, access, id, form).await,
        Ask::Status(id) => status(respond, access, id).await,
        Ask::Response(id) => response(respond, access, id).await,
        Ask::Compare(one, other) => compared(respond, access, one, other).await,
        Ask::Index => index(respond, access).await,
        // Handled before.
        Ask::Start(_) | Ask::Cancel(_) | Ask::Confirm(_) | Ask::Go(_) => Ok(respond.not_found()),
    };
    answered.unwrap_or_else(|error| respond.store_failed(&error))
}

type Answered = Result<Response<Bytes>, StoreError>;

async fn page(respond: Respond<'_>, access: &Access, id: Id) -> Answered {
    Ok(match find(respond.config, access, id).await? {
        None => respond.not_found(),
        Some(Found::Status(status)) => respond.unfinished(*status),
        Some(Found::Done(profile)) if respond.shows_pages => {
            // Without them, the page is still worth showing.
            let earlier = earlier(respond, access, &profile, id).await.unwrap_or_default();
            respond.result(profile, earlier, id).await
        }
        Some(Found::Done(profile)) => respond.profile(DEFAULT_FORM, profile, id).await,
    })
}

/// Returns other profiles of the same route, the latest first.
async fn earlier(respond: Respond<'_>, access: &Access, profile: &Profile, id: Id) -> Result<Vec<Summary>, StoreError> {
    let path = |uri: &str| uri.split('?').next().unwrap_or_default().to_owned();
    let request = &profile.request;
    let words = request.route.clone().unwrap_or_else(|| path(&request.uri));
    let mut found = in_time(respond.config.store.list(access.principal(), &words, 10 * MAX_EARLIER)).await?;
    found.retain(|other| {
        let same_path = request.route.is_some() || path(&other.uri) == path(&request.uri);
        other.id != id && other.method == request.method && other.route == request.route && same_path
    });
    found.truncate(MAX_EARLIER);
    Ok(found)
}

async fn download(respond: Respond<'_>, access: &Access, id: Id, form: Form) -> Answered {
    Ok(match find(respond.config, access, id).await? {
        None => respond.not_found(),
        Some(Found::Status(status)) => respond.unfinished(*status),
        Some(Found::Done(profile)) => respond.profile(form, profile, id).await,
    })
}

async fn status(respond: Respond<'_>, access: &Access, id: Id) -> Answered {
    let status = match find(respond.config, access, id).await? {
        None => None,
        Some(Found::Status(status)) => Some(*status),
        Some(Found::Done(_)) => {
            let status = in_time(respond.config.store.status(&id, access.principal())).await?;
            // Its process may have ended between the profile and its last status.
            status.map(|status| Status { phase: Phase::Done, ..status })
        }
    };
    Ok(status.map_or_else(|| respond.not_found(), |status| respond.status(StatusCode::OK, status)))
}

async fn response(respond: Respond<'_>, access: &Access, id: Id) -> Answered {
    Ok(match find(respond.config, access, id).await? {
        None => respond.not_found(),
        Some(Found::Status(status)) => respond.unfinished(*status),
        Some(Found::Done(profile)) => respond.kept_body(&profile, id),
    })
}

async fn compared(respond: Respond<'_>, access: &Access, one: Id, other: Id) -> Answered {
    let find = |id| find(respond.config, access, id);
    Ok(match (find(one).await?, find(other).await?) {
        (Some(Found::Done(one)), Some(Found::Done(other))) => respond.compared(one, other).await,
        (Some(Found::Status(status)), Some(_)) | (Some(_), Some(Found::Status(status))) => respond.unfinished(*status),
        (None, _) | (_, None) => respond.not_found(),
    })
}

async fn index(respond: Respond<'_>, access: &Access) -> Answered {
    let query = respond.uri.query().unwrap_or_default();
    let query = query.split('&').find_map(|parameter| parameter.strip_prefix("q=")).unwrap_or_default();
    let query: String = decode(query).chars().take(MAX_QUERY).collect();
    let found = in_time(respond.config.store.list(access.principal(), &query, MAX_LISTED)).await?;
    Ok(respond.index(found, query).await)
}

/// Stops a job, of this process or of another one.
async fn cancel(respond: Respond<'_>, access: &Access, head: &Parts, id: Id) -> Answered {
    if head.method != Method::POST {
        return Ok(respond.wrong_method("POST"));
    }
    if !is_own_action(head) {
        return Ok(respond.say(StatusCode::FORBIDDEN, "Another site cannot cancel a profile."));
    }
    match find(respond.config, access, id).await? {
        None => return Ok(respond.not_found()),
        Some(Found::Done(_)) => {}
        Some(Found::Status(status)) if status.phase.is_over() => {}
        Some(Found::Status(_)) => match respond.config.jobs.get(id) {
            Some(job) => job.stop(Stop::Cancelled),
            // The caller wants it stopped, so it makes no difference whether it was still running.
            None => _ = in_time(respond.config.store.request_cancel(&id, access.principal())).await?,
        },
    }
    Ok(if respond.shows_pages {
        respond.see_other(id)
    } else {
        respond.say(StatusCode::ACCEPTED, "The profile is cancelled, if it was not done.")
    })
}
