//! Finds secrets in a URI, or in a part of one.

use memchr::{memchr, memmem};

use super::found::Found;
use super::looks::is_token_like;
use super::names::{Secrecy, words};
use super::scan::Scan;
use super::shapes;
use super::values::is_hole;

/// A path segment after one of these may be a token: `/reset/..`.
const TELLING: [&str; 20] = [
    "activate",
    "activation",
    "confirm",
    "confirmation",
    "invitation",
    "invitations",
    "invite",
    "invites",
    "login",
    "magic",
    "optin",
    "recover",
    "recovery",
    "reset",
    "signin",
    "unlock",
    "unsubscribe",
    "verification",
    "verify",
    "webhooks",
];

/// Hosts for which the path of a URI is a secret.
const HOSTS: [&str; 3] = ["hooks.slack.com", ".webhook.office.com", "hooks.zapier.com"];

/// Finds secrets in `uri`, which begins at `base`. `whole` says that it is a URI and nothing else, so that text without
/// a scheme or a slash is the authority of a `CONNECT`.
pub(super) fn find(scan: Scan<'_>, uri: &str, base: usize, whole: bool, found: &mut Found) {
    let query = uri.find(['?', '#']).unwrap_or_else(|| if whole { uri.len() } else { form(uri) });
    path(scan, &uri[..query], base, whole, found);
    let mut at = query;
    // `at` is at a separator, except for a form without a `?`.
    if at == 0 && !uri.starts_with(['?', '#']) && !uri.is_empty() {
        at = parameter_end(uri, 0);
        parameter(scan, &uri[..at], base, found);
    }
    while at < uri.len() {
        let end = parameter_end(uri, at + 1);
        parameter(scan, &uri[at + 1..end], base + at + 1, found);
        at = end;
    }
}

fn parameter_end(uri: &str, from: usize) -> usize {
    uri[from..].find(['&', '?', '#']).map_or(uri.len(), |at| from + at)
}

/// Returns where the query begins if there is no `?`: at the beginning of `a=b&c=d`, and nowhere in a path.
fn form(word: &str) -> usize {
    let equals = memchr(b'=', word.as_bytes());
    let and = memchr(b'&', word.as_bytes());
    let slash = memchr(b'/', word.as_bytes()).unwrap_or(word.len());
    match (equals, and) {
        (Some(equals), Some(_)) if equals < slash => 0,
        _ => word.len(),
    }
}

/// Handles the part before the query: hides user and password, tokens and the placeholders of patterns. From a
/// secret-looking parameter on (`;jsessionid=..`, or a query that lost its `?`) nothing is shown, because it isn't
/// known where its value ends.
fn path(scan: Scan<'_>, path: &str, base: usize, whole: bool, found: &mut Found) {
    let bytes = path.as_bytes();
    let last_at = memchr::memrchr(b'@', bytes);
    let mut start = 0;
    while let Some(at) = memmem::find(&bytes[start..], b"//") {
        let host = start + at + 2;
        let end = memchr(b'/', &bytes[host..]).map_or(path.len(), |at| host + at);
        start = authority(path, host, end, last_at, base, found);
        let name = path[host..start].rsplit('@').next().unwrap_or_default();
        if HOSTS.iter().any(|known| name == *known || (known.starts_with('.') && name.ends_with(known))) {
            found.hide(base + (start + 1).min(path.len()), base + path.len());
        }
    }
    // The authority form, `user:password@host:443`, has no scheme and no slash.
    if start == 0
        && whole
        && memchr(b'/', bytes).is_none()
        && let Some(at) = path.rfind('@')
    {
        found.leave_out(base, base + at + 1);
    } else if start == 0 {
        without_scheme(path, base, found);
    }
    if let Some(at) = parameter_in_path(scan, path) {
        found.hide(base + at, base + path.len());
    }
    segments(scan, path, start, base, found);
    scan.paths.find(&path[start..], base + start, found);
}

/// Hides the user and password before a host, which goes from `host` to `end` unless a password has a slash in it.
/// Returns where the path begins. `last` is the position of the very last `@`.
fn authority(path: &str, host: usize, end: usize, last: Option<usize>, base: usize, found: &mut Found) -> usize {
    let of = &path[host..end];
    let at = of.rfind('@').map(|at| host + at);
    // `me:pa` isn't a host with a port, so the slash belonged to a password. The same may be true after a user, except
    // on the web, where an `@` is more often in the path.
    let port = of.rsplit_once(':').map_or("", |(_, port)| port);
    let odd = at.is_none() && !port.bytes().all(|byte| byte.is_ascii_digit()) && !of.ends_with(']');
    let web = path[..host].ends_with("http://") || path[..host].ends_with("https://") || !path[..host].ends_with("://");
    let user = match at {
        _ if odd || (at.is_some() && !web) => last.filter(|last| *last >= host),
        at => at,
    };
    let Some(user) = user else { return end };
    let after = user + 1;
    found.leave_out(base + host, base + after);
    memchr(b'/', &path.as_bytes()[after..]).map_or(path.len(), |at| after + at)
}

/// Finds `user:password@host:port`, as in the addresses of databases: `root:toor@tcp(..)`.
pub(super) fn without_scheme(word: &str, base: usize, found: &mut Found) {
    let bytes = word.as_bytes();
    let Some(colon) = memchr(b':', bytes) else { return };
    let Some(at) = memchr::memrchr(b'@', bytes).filter(|&at| at > colon + 1) else { return };
    let host = &word[at + 1..];
    let digest = host.starts_with("sha256:") || host.starts_with("sha512:");
    let name =
        host.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')).count();
    let after = &host.as_bytes()[name..];
    let port = after.first() == Some(&b':') && after.get(1).is_some_and(u8::is_ascii_digit);
    let is_user = word[..colon].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-=(".contains(&byte));
    if name > 0 && is_user && !digest && (port || after.first() == Some(&b'(') || after.first() == Some(&b'/')) {
        let user = word[..colon].rfind(['=', '(']).map_or(0, |at| at + 1);
        found.leave_out(base + user, base + at + 1);
    }
}

/// Returns where the value of a secret begins in a path.
fn parameter_in_path(scan: Scan<'_>, path: &str) -> Option<usize> {
    path.match_indices([';', '&', '/']).find_map(|(at, _)| {
        let name = &path[at + 1..];
        let end = name.find([';', '&', '/', '='])?;
        (name[end..].starts_with('=') && scan.names.contain(&name[..end])).then_some(at + end + 2)
    })
}

/// Finds tokens that are segments of a path.
fn segments(scan: Scan<'_>, path: &str, start: usize, base: usize, found: &mut Found) {
    let mut at = start;
    let mut announces = [false; 2];
    for segment in path[start..].split('/') {
        let (here, length) = (at, segment.len());
        at += length + 1;
        if length == 0 {
            continue;
        }
        let is_template = segment.starts_with('{') && segment.ends_with('}');
        let encoded = memchr(b'%', segment.as_bytes()).is_some();
        if !is_template && length >= 8 {
            let hidden = (announces.contains(&true) && is_token_like(segment)) || (encoded && scan.hides(segment));
            if hidden {
                found.hide(base + here, base + here + length);
            } else {
                shapes::find(&scan, segment, base + here, false, found);
            }
        }
        announces = [is_telling(scan, segment), announces[0] && length < 8];
    }
}

/// Returns whether the segment after this one may be a token.
fn is_telling(scan: Scan<'_>, segment: &str) -> bool {
    segment.len() <= 64
        && (scan.names.secrecy(segment).is_some_and(|secrecy| secrecy > Secrecy::Alone)
            || words(segment).any(|word| TELLING.iter().any(|announces| announces.eq_ignore_ascii_case(word))))
}

/// Handles `name=value`, or `name=value;name=value`. The server decides what a `;` means, so both readings are tried.
fn parameter(scan: Scan<'_>, parameter: &str, base: usize, found: &mut Found) {
    let mut at = 0;
    while at < parameter.len() {
        let end = memchr(b';', &parameter.as_bytes()[at..]).map_or(parameter.len(), |next| at + next + 1);
        let part = &parameter[at..end];
        let (name, value) = match memchr(b'=', part.as_bytes()) {
            Some(equals) => (&part[..equals], at + equals + 1),
            None => ("", at),
        };
        let text = parameter[value..end].trim_end_matches(';');
        // A secret value extends to the end, whatever a `;` in it may mean. If it was cut right before, nothing is
        // here.
        let hole = (scan.source && is_hole(text)) || value == parameter.len();
        if (value > at && !hole && scan.names.hide(name, text)) || scan.hides(text) {
            found.hide(base + value, base + parameter.len());
            return;
        }
        at = end;
    }
}
