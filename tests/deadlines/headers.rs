//! What a call's request says, by settings, box and caller.

use std::convert::Infallible;
use std::time::Duration;

use heeler::{DeadlineLayer, timebox};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::BoxError;
use crate::common::ms;

const GRPC: HeaderName = HeaderName::from_static("grpc-timeout");
const NAMED: HeaderName = HeaderName::from_static("x-left-ms");

const OTHER: HeaderName = HeaderName::from_static("x-other-ms");

/// The headers that come through.
async fn sent(layer: &DeadlineLayer, request: Request<()>) -> Result<HeaderMap, BoxError> {
    let echo = service_fn(|request: Request<()>| async move { Ok::<_, Infallible>(request.headers().clone()) });
    layer.layer(echo).oneshot(request).await
}

fn request(grpc: bool, headers: &[(&HeaderName, &str)]) -> Request<()> {
    let mut request = Request::post("http://photos.example/a");
    if grpc {
        request = request.header(CONTENT_TYPE, "application/grpc+proto");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// All values of a header.
fn all<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

/// The only value of a header, in milliseconds; of gRPC's as the layer writes it for less than 100 s.
fn left(headers: &HeaderMap, name: &HeaderName) -> f64 {
    let values = all(headers, name);
    let [value] = values[..] else { panic!("more or less than one value: {values:?}") };
    if let Some(micros) = value.strip_suffix('u') {
        micros.parse::<f64>().unwrap() / 1e3
    } else if let Some(nanos) = value.strip_suffix('n') {
        nanos.parse::<f64>().unwrap() / 1e6
    } else {
        value.parse().unwrap()
    }
}

/// Guards: gRPC has its own header, and other protocols have the named one. Neither has both. Without a name, other protocols
/// have none.
#[tokio::test]
async fn each_protocol_has_its_header() {
    let plain = DeadlineLayer::new(ms(5_000));
    let named = plain.clone().header(NAMED);
    for (layer, grpc, expected) in [
        (&plain, true, Some((&GRPC, "5000000u"))),
        (&plain, false, None),
        (&named, true, Some((&GRPC, "5000000u"))),
        (&named, false, Some((&NAMED, "5000"))),
    ] {
        let headers = sent(layer, request(grpc, &[])).await.unwrap();
        let written = [&GRPC, &NAMED].map(|name| all(&headers, name));
        let expected = [&GRPC, &NAMED].map(|name| match expected {
            Some((written, value)) if written == name => vec![value],
            _ => Vec::new(),
        });
        assert_eq!(written, expected, "grpc: {grpc}, {layer:?}");
    }
}

/// Guards: naming gRPC's header for other calls gives gRPC's syntax in it. Bare milliseconds are invalid there.
#[tokio::test]
async fn the_grpc_header_always_has_grpc_syntax() {
    let layer = DeadlineLayer::new(ms(5_000)).header(GRPC);
    let headers = sent(&layer, request(false, &[])).await.unwrap();
    assert_eq!(all(&headers, &GRPC), ["5000000u"]);
}

/// Guards: a caller's own smaller deadline is sent as it is. A larger one, an invalid one, and several become one that is
/// right.
#[tokio::test]
async fn only_a_smaller_deadline_of_the_caller_is_kept() {
    let layer = DeadlineLayer::new(ms(5_000)).header(NAMED);
    for (grpc, given, expected) in [
        (true, &["2S"][..], "2S"),
        (true, &["5S"], "5S"),
        (true, &["6S"], "5000000u"),
        (true, &["soon"], "5000000u"),
        (true, &["-1S"], "5000000u"),
        (true, &[""], "5000000u"),
        (true, &["3S", "2S"], "2000000u"),
        (true, &["junk", "2S"], "2000000u"),
        (true, &["3S, 2S"], "2000000u"),
        (false, &["2000"], "2000"),
        (false, &["2S"], "2S"),
        (false, &["5001"], "5000"),
        (false, &["99999999999999999999999"], "5000"),
        (false, &["1e3"], "5000"),
        (false, &["-7"], "5000"),
        (false, &["300", "4000", "x"], "300"),
    ] {
        let name = if grpc { &GRPC } else { &NAMED };
        let given: Vec<_> = given.iter().map(|value| (name, *value)).collect();
        let headers = sent(&layer, request(grpc, &given)).await.unwrap();
        assert_eq!(all(&headers, name), [expected], "{given:?}");
    }
}

/// Guards: thousands of invalid headers, with any bytes a header can have, become one that is right.
#[tokio::test]
async fn thousands_of_junk_headers_become_one() {
    let layer = DeadlineLayer::new(ms(5_000)).header(NAMED);
    for (grpc, name, expected) in [(true, &GRPC, "5000000u"), (false, &NAMED, "5000")] {
        let mut request = request(grpc, &[]);
        for at in 0..5_000_u32 {
            const BYTES: &[u8] = b"9-+. ,\tSmunHM\xff\x80";
            let mut value = vec![BYTES[at as usize % BYTES.len()]; at as usize % 300];
            value.extend(at.to_string().bytes().map(|byte| byte | 0x80));
            request.headers_mut().append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        let headers = sent(&layer, request).await.unwrap();
        assert_eq!(all(&headers, name), [expected]);
    }
}

/// Guards: inside a timebox a call says what is left of it, less with every call, and never more than the default.
#[tokio::test]
async fn a_call_says_what_is_left_of_the_timebox() {
    let layer = DeadlineLayer::new(ms(30_000)).header(NAMED);
    let (first, second) = timebox(Duration::from_secs(60), async {
        timebox(Duration::from_secs(20), async {
            let first = left(&sent(&layer, request(true, &[])).await.unwrap(), &GRPC);
            tokio::time::sleep(ms(50)).await;
            (first, left(&sent(&layer, request(false, &[])).await.unwrap(), &NAMED))
        })
        .await
        .unwrap()
    })
    .await
    .unwrap();
    assert!(first < 20_000.0 && second <= first - 50.0 && second > 0.0, "{first} {second}");

    let roomy = timebox(Duration::from_secs(60), sent(&layer, request(false, &[]))).await.unwrap().unwrap();
    assert_eq!(all(&roomy, &NAMED), ["30000"]);
}

/// Guards: of two layers the stricter one counts, whichever is outside, and says so once.
#[tokio::test]
async fn the_stricter_of_two_layers_counts() {
    let echo = service_fn(|request: Request<()>| async move { Ok::<_, Infallible>(request.headers().clone()) });
    for (outer, inner) in [(5_000, 9_000), (9_000, 5_000)] {
        let [outer, inner] = [outer, inner].map(|limit| DeadlineLayer::new(ms(limit)).header(NAMED));
        let headers = outer.layer(inner.layer(echo)).oneshot(request(false, &[])).await.unwrap();
        assert!(left(&headers, &NAMED) <= 5_000.0, "{headers:?}");
        // also with different headers, because the inner call is inside the outer one's timebox
        let headers = outer.layer(inner.header(OTHER).layer(echo)).oneshot(request(false, &[])).await.unwrap();
        assert!(left(&headers, &OTHER) <= 5_000.0, "{headers:?}");
    }
}

/// Guards: no default makes a call without a limit, or a header that does not fit.
#[tokio::test]
async fn every_default_gives_a_limit() {
    for default in [Duration::MAX, DeadlineLayer::LONGEST, DeadlineLayer::LONGEST + ms(1)] {
        let layer = DeadlineLayer::new(default).header(NAMED);
        let headers = sent(&layer, request(false, &[])).await.unwrap();
        assert_eq!(all(&headers, &NAMED), ["86400000"]);
        let headers = sent(&layer, request(true, &[])).await.unwrap();
        assert_eq!(all(&headers, &GRPC), ["86400000m"]);
    }
}
