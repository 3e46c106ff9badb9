//! Answers, with the headers that all of them have.

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, HeaderName, LINK, LOCATION, RETRY_AFTER, VARY,
};
use std::fmt::Display;
use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, Uri};

use crate::profile::Profile;
use crate::profile::flag::Start;
use crate::profile::form::Form;
use crate::profile::format;
use crate::profile::id::Id;
use crate::profile::layer::Config;
use crate::profile::page::{Context, Policy, Which, compare, confirm, error, html, index, live, nonce, result, svg};
use crate::profile::store::{Phase, Status, StoreError, Summary};
use crate::profile::supervisor::apart;
use crate::text::page::fixed_headers;

pub(in crate::profile) const X_GEORDI_ID: HeaderName = HeaderName::from_static("x-geordi-id");

/// Makes answers to one request.
#[derive(Clone, Copy)]
pub(in crate::profile) struct Respond<'a> {
    pub(in crate::profile) config: &'a Config,
    /// The URI of the request.
    pub(in crate::profile) uri: &'a Uri,
    pub(in crate::profile) shows_pages: bool,
}

impl Respond<'_> {
    /// Returns a reference, relative to the request, to the same URL with another value of the flag.
    pub(in crate::profile) fn link(&self, value: &str) -> String {
        let name = self.config.flag.name();
        let uri = self.config.flag.strip(self.uri);
        let mut link = String::from("?");
        if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
            for byte in query.bytes() {
                match byte {
                    // Allowed in the queries of real life, but not within a header's `<>`.
                    ..=b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f.. => {
                        link.push_str(&format!("%{byte:02X}"));
                    }
                    _ => link.push(char::from(byte)),
                }
            }
            link.push('&');
        }
        link + name + "=" + value
    }

    /// Returns path and query without the flag.
    fn base(&self) -> String {
        let uri = self.config.flag.strip(self.uri);
        uri.path_and_query().map_or("/", |base| base.as_str()).to_owned()
    }

    fn answer(
        &self,
        status: StatusCode,
        content_type: &'static str,
        policy: Policy<'_>,
        body: Bytes,
    ) -> Response<Bytes> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.extend(fixed_headers(content_type));
        let varies = "accept, authorization, cookie, sec-fetch-dest, sec-fetch-mode, sec-fetch-site";
        headers.insert(VARY, HeaderValue::from_static(varies));
        set(&mut response, CONTENT_SECURITY_POLICY, &policy.header());
        response
    }

    /// Returns the page that asks whether to start this.
    pub(super) fn confirm(&self, start: Start, token: Id) -> Response<Bytes> {
        let Ok(nonce) = nonce() else {
            return self.say(StatusCode::SERVICE_UNAVAILABLE, "The system has no random numbers available.");
        };
        let (flag, base) = (self.config.flag.name(), self.base());
        let uri = self.config.redactor.uri(&base);
        let page = confirm(&uri, start, token, &Context::new(flag, &base, &nonce));
        self.answer(StatusCode::OK, "text/html; charset=utf-8", Policy::Page(&nonce), Bytes::from(page))
    }

    /// Answers with one sentence: on a page, if the client shows pages.
    pub(in crate::profile) fn say(&self, status: StatusCode, sentence: &str) -> Response<Bytes> {
        let nonce = if self.shows_pages && !status.is_redirection() { nonce().ok() } else { None };
        if let Some(nonce) = nonce {
            let what = status.canonical_reason().unwrap_or("No profile");
            let (flag, base) = (self.config.flag.name(), self.base());
            let page = error(what, sentence, &Context::new(flag, &base, &nonce));
            return self.answer(status, "text/html; charset=utf-8", Policy::Page(&nonce), Bytes::from(page));
        }
        self.answer(status, "text/plain; charset=utf-8", Policy::Other, Bytes::from(format!("{sentence}\n")))
    }

    pub(super) fn nonsense(&self, nonsense: &dyn Display) -> Response<Bytes> {
        self.say(StatusCode::BAD_REQUEST, &sentence(&nonsense.to_string()))
    }

    /// Returns why a form is not available. Checked before anything runs.
    pub(super) fn unavailable(&self, form: Form) -> Option<Response<Bytes>> {
        (!format::is_available(form)).then(|| {
            let why = format!("This program is built without what `{form}` needs: see the features of heeler.");
            self.say(StatusCode::BAD_REQUEST, &why)
        })
    }

    pub(super) fn not_found(&self) -> Response<Bytes> {
        self.say(StatusCode::NOT_FOUND, "There is no such profile.")
    }

    pub(super) fn wrong_method(&self, allowed: &'static str) -> Response<Bytes> {
        let sentence = format!("Use {allowed} for this.");
        let mut response = self.say(StatusCode::METHOD_NOT_ALLOWED, &sentence);
        set(&mut response, ALLOW, allowed);
        response
    }

    pub(in crate::profile) fn full(&self, seconds: u64) -> Response<Bytes> {
        let sentence = format!("Too many requests are being profiled. There may be room in {seconds} s.");
        let mut response = self.say(StatusCode::TOO_MANY_REQUESTS, &sentence);
        set(&mut response, RETRY_AFTER, &seconds.to_string());
        response
    }

    /// Redirects to the page of a profile.
    pub(in crate::profile) fn see_other(&self, id: Id) -> Response<Bytes> {
        let mut response = self.go_to(&id.to_string());
        self.mark(&mut response, id);
        response
    }

    /// Redirects to the same URL with another value of the flag.
    pub(super) fn go_to(&self, value: &str) -> Response<Bytes> {
        let link = self.link(value);
        let mut response = self.say(StatusCode::SEE_OTHER, &link);
        set(&mut response, LOCATION, &link);
        response
    }

    /// Says which profile a response belongs to.
    pub(in crate::profile) fn mark<B>(&self, response: &mut Response<B>, id: Id) {
        set(response, X_GEORDI_ID, &id.to_string());
        let link = format!("<{}>; rel=\"profile\"", self.link(&id.to_string()));
        if let Ok(link) = HeaderValue::try_from(link) {
            response.headers_mut().append(LINK, link);
        }
    }

    /// Returns how far a profile is, as JSON.
    pub(super) fn status(&self, code: StatusCode, mut status: Status) -> Response<Bytes> {
        // The caller knows who they are. Somebody who looks over their shoulder need not.
        status.principal = None;
        let id = status.id;
        let body = serde_json::to_vec(&status).unwrap_or_default();
        let mut response = self.answer(code, "application/json", Policy::Other, Bytes::from(body));
        if !status.phase.is_over() {
            set(&mut response, RETRY_AFTER, "1");
        }
        self.mark(&mut response, id);
        response
    }

    /// Returns the answer for a profile that isn't done.
    pub(super) fn unfinished(&self, status: Status) -> Response<Bytes> {
        if let Some(nonce) = self.shows_pages.then(nonce).and_then(Result::ok) {
            let (flag, base) = (self.config.flag.name(), self.base());
            let page = live(&status, &Context::new(flag, &base, &nonce));
            let policy = Policy::Page(&nonce);
            let mut response = self.answer(StatusCode::OK, "text/html; charset=utf-8", policy, Bytes::from(page));
            self.mark(&mut response, status.id);
            return response;
        }
        if status.phase.is_over() { self.ended(&status.phase) } else { self.status(StatusCode::ACCEPTED, status) }
    }

    pub(in crate::profile) fn store_failed(&self, error: &StoreError) -> Response<Bytes> {
        let mut response = self.say(StatusCode::SERVICE_UNAVAILABLE, &sentence(&error.to_string()));
        set(&mut response, RETRY_AFTER, "10");
        response
    }

    /// Answers that something fails that may work again soon.
    #[cfg(heeler_remote)]
    pub(in crate::profile) fn try_again(&self, sentence: &str) -> Response<Bytes> {
        let mut response = self.say(StatusCode::SERVICE_UNAVAILABLE, sentence);
        set(&mut response, RETRY_AFTER, "10");
        response
    }

    /// Says why there is no profile, and will be none.
    pub(in crate::profile) fn ended(&self, phase: &Phase) -> Response<Bytes> {
        match phase {
            Phase::Failed(why) => {
                self.say(StatusCode::INTERNAL_SERVER_ERROR, &format!("The profile could not be made: {why}."))
            }
            Phase::Cancelled => self.say(StatusCode::GONE, "The profile was cancelled before the request ran."),
            Phase::Lost => self.say(StatusCode::GONE, "The process that made the profile is gone."),
            Phase::Queued { .. } | Phase::Running | Phase::Done => self.not_found(),
            #[cfg(heeler_remote)]
            Phase::Sent { .. } => self.not_found(),
        }
    }

    /// Returns a page. `make` runs where it may take a while.
    async fn page(&self, make: impl FnOnce(&Context<'_>) -> String + Send + 'static) -> Response<Bytes> {
        let Ok(nonce) = nonce() else {
            return self.say(StatusCode::SERVICE_UNAVAILABLE, "The system has no random numbers available.");
        };
        let flag = self.config.flag.name().to_owned();
        let base = self.base();
        let page = {
            let nonce = nonce.clone();
            apart(move || make(&Context::new(&flag, &base, &nonce))).await
        };
        match page {
            Some(page) => {
                self.answer(StatusCode::OK, "text/html; charset=utf-8", Policy::Page(&nonce), Bytes::from(page))
            }
            None => self.say(StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be made."),
        }
    }

    /// Returns the page of a finished profile. `earlier`: others of the same route.
    pub(super) async fn result(&self, profile: Arc<Profile>, earlier: Vec<Summary>, id: Id) -> Response<Bytes> {
        let mut response = self.page(move |context| result(&profile, &earlier, context)).await;
        self.mark(&mut response, id);
        response
    }

    /// Returns the comparison of two profiles.
    pub(super) async fn compared(&self, one: Arc<Profile>, other: Arc<Profile>) -> Response<Bytes> {
        self.page(move |context| compare(&one, &other, context)).await
    }

    /// Returns the stored profiles: as a page, or as JSON for clients that do not show pages.
    pub(super) async fn index(&self, found: Vec<Summary>, query: String) -> Response<Bytes> {
        if self.shows_pages {
            return self.page(move |context| index(&found, &query, context)).await;
        }
        let body = serde_json::to_vec(&found).unwrap_or_default();
        self.answer(StatusCode::OK, "application/json", Policy::Other, Bytes::from(body))
    }

    /// Returns a profile in a form.
    pub(in crate::profile) async fn profile(&self, form: Form, profile: Arc<Profile>, id: Id) -> Response<Bytes> {
        let body = match apart(move || render(form, &profile)).await {
            Some(Ok(body)) => body,
            Some(Err(why)) => return self.say(StatusCode::BAD_REQUEST, &sentence(&why.to_string())),
            None => return self.say(StatusCode::INTERNAL_SERVER_ERROR, "The profile cannot be written in this form."),
        };
        let policy = if form == Form::Svg { Policy::Picture } else { Policy::Other };
        let mut response = self.answer(StatusCode::OK, format::content_type(form), policy, Bytes::from(body));
        let shown = matches!(form, Form::Svg | Form::Folded | Form::Json);
        let how = if shown { "inline" } else { "attachment" };
        let file = format!("{how}; filename=\"profile-{}.{}\"", id.short(), format::extension(form));
        set(&mut response, CONTENT_DISPOSITION, &file);
        self.mark(&mut response, id);
        response
    }

    /// Returns what was kept of a response's body, only as text or bytes, so that a browser does not interpret it,
    /// whatever it is.
    pub(super) fn kept_body(&self, profile: &Profile, id: Id) -> Response<Bytes> {
        let Some(kept) = &profile.response else {
            return self.say(StatusCode::NOT_FOUND, "The request had no response.");
        };
        let body = Bytes::copy_from_slice(&kept.body);
        let is_text = match std::str::from_utf8(&body) {
            Ok(_) => true,
            // Cut in the middle of a character.
            Err(error) => error.error_len().is_none() && (body.len() as u64) < kept.body_bytes,
        };
        let content_type = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
        let mut response = self.answer(StatusCode::OK, content_type, Policy::Other, body);
        if !is_text {
            set(&mut response, CONTENT_DISPOSITION, &format!("attachment; filename=\"response-{}\"", id.short()));
        }
        self.mark(&mut response, id);
        response
    }
}

/// Sets a header to a value that no user wrote.
fn set<B>(response: &mut Response<B>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Renders a profile in a form, or says why that failed.
pub(in crate::profile) fn render(form: Form, profile: &Profile) -> Result<Vec<u8>, format::Error> {
    match format::render(form, profile) {
        Some(rendered) => rendered,
        None if form == Form::Svg => Ok(svg(profile, Which::All, false).into_bytes()),
        None => Ok(html(profile).into_bytes()),
    }
}

/// Adds a capital letter and a full stop.
pub(in crate::profile) fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).chain(['.']).collect()
}
