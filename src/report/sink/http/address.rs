//! Where a server is.

use std::net::IpAddr;

use reqwest::Url;

use crate::error::{Error, Result};

/// Parses a URL: `https`, or `http` to this host itself or where `plaintext` allows it. `whose` begins a sentence: `the
/// webhook's`.
pub(in crate::report::sink) fn checked_url(whose: &str, text: &str, plaintext: bool) -> Result<Url> {
    let url = Url::parse(text)
        .map_err(|error| Error::config(format!("{whose} URL, `https://..`, cannot be read: {error}")))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if plaintext || is_here(&url) => Ok(url),
        "http" => Err(Error::config(format!(
            "{whose} URL is not encrypted: use https, or allow `http` to other hosts with `plaintext()`"
        ))),
        _ => Err(Error::config(format!("{whose} URL is neither https nor http"))),
    }
}

/// Returns whether the host is this machine, whatever a name server or a proxy says.
pub(super) fn is_here(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Returns the part of a URL that isn't secret: `https://hooks.example.com:8443`.
pub(in crate::report::sink) fn origin(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}
