//! A secret in a profiled request, wherever it is, appears in none of the profile's forms and in no store.

use std::io::Read as _;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use proptest::prelude::*;

use super::*;
use crate::profile::form::Form;
use crate::profile::format::render;
use crate::profile::page::{Which, html, svg};
use crate::profile::store::ProfileStore;
use crate::profile::testing::{ProfileBuilder, own};
use crate::profile::{ProcessProfile, ProcessStack, State};
use crate::report::secrets::{Planted, config, redactor, text, uri};

/// Headers in which proxies pass on the URI that they were asked for.
const URIS: [&str; 6] = ["x-original-uri", "x-original-url", "x-forwarded-uri", "x-rewrite-url", "referer", "x-custom"];

/// A profile of a request with a secret in one place, and the secret.
fn raw() -> impl Strategy<Value = (Profile, Planted)> {
    let uri = (uri(), 0..9usize).prop_filter_map("no URI", |(planted, place)| {
        let mut profile = begun();
        let (mut head, _) = http::Request::new(()).into_parts();
        let mut answer = http::Response::new(()).into_parts().0;
        let value = HeaderValue::from_str(&planted.text).ok()?;
        match place {
            0 | 1 => head.uri = planted.text.parse().ok()?,
            2 => drop(answer.headers.insert(header::LOCATION, value)),
            _ => drop(head.headers.insert(HeaderName::from_static(URIS[place - 3]), value)),
        }
        profile.request = request(&redactor(), &head, &head.uri, 0);
        profile.response = Some(response(&redactor(), answer.status, answer.version, &answer.headers));
        Some((profile, planted))
    });
    let text = (text(), 0..6u8).prop_map(|(planted, place)| {
        let (mut profile, text) = (begun(), planted.text.clone());
        let header = |name: HeaderName| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(&text.replace('\n', " ")).unwrap());
            super::headers(&redactor(), &headers)
        };
        match place {
            0 => profile.outcome = Outcome::Failed(text),
            1 => profile.outcome = Outcome::Panicked(text),
            2 => profile.notes.push(text),
            3 => profile.request.headers = header(header::USER_AGENT),
            4 => profile.response.as_mut().unwrap().headers = header(HeaderName::from_static("x-debug")),
            _ => {
                let stack = ProcessStack { thread: text, functions: vec!["main".to_owned()], samples: 1 };
                profile.meanwhile =
                    Some(ProcessProfile { samples: 1, stacks: vec![stack], ..ProcessProfile::default() });
            }
        }
        (profile, planted)
    });
    prop_oneof![uri, text].prop_map(|(mut profile, planted)| {
        reduce(&redactor(), &mut profile);
        (profile, planted)
    })
}

fn begun() -> Profile {
    let mut builder = ProfileBuilder::new();
    builder.slice(State::OnCpu, 10_000_000, 10, &[own("app::handler", 1), own("app::parse", 5)]);
    builder.build()
}

/// Returns the bytes as text, decompressed if they are compressed.
fn readable(bytes: &[u8]) -> String {
    let mut unpacked = Vec::new();
    match flate2::read::GzDecoder::new(bytes).read_to_end(&mut unpacked) {
        Ok(_) => String::from_utf8_lossy(&unpacked).into_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    fn no_form_of_a_profile_reveals_a_secret((profile, planted) in raw()) {
        let files = Form::ALL.into_iter().filter_map(|form| render(form, &profile)?.ok());
        let mut forms: Vec<String> = files.map(|bytes| readable(&bytes)).collect();
        forms.push(html(&profile));
        forms.push(svg(&profile, Which::All, false));
        for shown in forms {
            prop_assert!(!planted.is_in(&shown), "{}\n{shown}", planted.text);
        }
    }
}

proptest! {
    #![proptest_config(config(80))]

    #[test]
    fn no_store_of_profiles_reveals_a_secret((profile, planted) in raw()) {
        let profile = Arc::new(profile);
        let id = profile.id.parse().unwrap();
        let job = super::super::Job::new(id, None, profile.request.clone(), [].into(), 0);
        let told = futures::executor::block_on(async {
            let store = ProfileStore::memory();
            store.put(Arc::clone(&profile), None).await.unwrap();
            let status = job.status().await;
            let kept = store.get(&id, None).await.unwrap().unwrap();
            let listed = store.list(None, "", 9).await.unwrap();
            [serde_json::to_string(&kept), serde_json::to_string(&listed), serde_json::to_string(&status)]
        });
        for told in told {
            let told = told.unwrap();
            prop_assert!(!planted.is_in(&told), "{}\n{told}", planted.text);
        }
    }
}
