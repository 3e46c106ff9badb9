//! A server that speaks Pyroscope's protocol as far as a client sees it: it keeps what is pushed, and reads it as its
//! documentation says.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use heeler::Pyroscope;
use pprof::protos::{Message as _, Profile};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::common::{Driven, until};

/// What a client pushed.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a server makes of it.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// The labels of the series.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) id: Option<String>,
    pub(crate) profile: Profile,
}

/// A stack that was pushed.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The values of the sample types, by their names.
    pub(crate) values: BTreeMap<String, i64>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Functions, innermost first.
    pub(crate) functions: Vec<String>,
}

fn unzipped(bytes: &[u8]) -> Profile {
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut message).expect("gzip");
    Profile::decode(&message[..]).expect("profile.proto")
}

impl Post {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Reads a `PushRequest` in Connect's JSON.
    pub(crate) fn pushed(&self) -> Pushed {
        assert!(self.uri.path().ends_with("/push.v1.PusherService/Push"), "{}", self.uri);
        assert_eq!(self.header("content-type"), "application/json");
        let json: Value = serde_json::from_slice(&self.body).expect("JSON");
        let [series] = &json["series"].as_array().expect("series")[..] else { panic!("one series") };
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let labels = series["labels"].as_array().expect("labels").iter();
        let labels = labels.map(|label| (text(&label["name"]), text(&label["value"]))).collect();
        let [sample] = &series["samples"].as_array().expect("samples")[..] else { panic!("one sample") };
        let raw = STANDARD.decode(text(&sample["rawProfile"])).expect("base64");
        Pushed { labels, id: Some(text(&sample["ID"])), profile: unzipped(&raw) }
    }

    /// The parameters of `/ingest`.
    pub(crate) fn parameters(&self) -> BTreeMap<String, String> {
        let url = reqwest::Url::parse(&format!("http://h{}", self.uri)).unwrap();
        url.query_pairs().into_owned().collect()
    }

    /// Reads what came to `/ingest`. The labels are in the parameter `name`, which ends a value at a comma or a brace.
    pub(crate) fn ingested(&self) -> Pushed {
        assert!(self.uri.path().ends_with("/ingest"), "{}", self.uri);
        let parameters = self.parameters();
        assert_eq!(parameters["format"], "pprof");
        let (service, labels) = parameters["name"].split_once('{').expect("labels");
        assert!(service.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c)), "{service}");
        let mut read = BTreeMap::from([("service_name".to_owned(), service.to_owned())]);
        for label in labels.strip_suffix('}').expect("an end").split(',') {
            assert!(!label.contains('}'), "{labels}");
            let (name, value) = label.split_once('=').expect("a value");
            read.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Pushed { labels: read, id: None, profile: unzipped(&self.body) }
    }
}

impl Pushed {
    fn text(&self, at: i64) -> &str {
        &self.profile.string_table[usize::try_from(at).unwrap()]
    }

    /// The types that a server shows: `<name>:<type>:<unit>:<period type>:<period unit>`.
    pub(crate) fn types(&self) -> Vec<String> {
        let period = self.profile.period_type.as_ref().expect("a type of period");
        let of = |value: &pprof::protos::ValueType| format!("{}:{}", self.text(value.ty), self.text(value.unit));
        self.profile.sample_type.iter().map(|value| format!("wall:{}:{}", of(value), of(period))).collect()
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        let types: Vec<&str> = self.profile.sample_type.iter().map(|value| self.text(value.ty)).collect();
        let location = |id: &u64| &self.profile.location[usize::try_from(*id).unwrap() - 1];
        let function = |id: u64| &self.profile.function[usize::try_from(id).unwrap() - 1];
        let sample = |sample: &pprof::protos::Sample| Sample {
            values: types.iter().map(|&name| name.to_owned()).zip(sample.value.iter().copied()).collect(),
            labels: sample
                .label
                .iter()
                .map(|label| (self.text(label.key).to_owned(), self.text(label.str).to_owned()))
                .collect(),
            functions: sample
                .location_id
                .iter()
                .flat_map(|id| &location(id).line)
                .map(|line| self.text(function(line.function_id).name).to_owned())
                .collect(),
        };
        self.profile.sample.iter().map(sample).collect()
    }

    /// The nanoseconds of all samples.
    pub(crate) fn wall(&self) -> i64 {
        self.samples().iter().map(|sample| sample.values["wall"]).sum()
    }
}

type Posts = Arc<Mutex<Vec<Post>>>;

/// A server that keeps what it gets, and answers by the path before the API's.
pub(crate) struct Server {
    base: String,
    posts: Posts,
    _driven: Driven,
}

async fn answer(State(posts): State<Posts>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(method, Method::POST);
    let basic = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    let pair = basic.map(|pair| String::from_utf8(STANDARD.decode(pair).unwrap()).unwrap()).unwrap_or_default();
    posts.lock().unwrap().push(Post { uri: uri.clone(), headers, body });
    let first = uri.path().split('/').nth(1).unwrap();
    match first {
        "never" => std::future::pending().await,
        "moved" => Redirect::permanent("/elsewhere").into_response(),
        "refused" => (StatusCode::UNAUTHORIZED, format!("no such user {pair:?} at {uri}")).into_response(),
        "down" => (StatusCode::SERVICE_UNAVAILABLE, "come back later").into_response(),
        "recovering" if posts.lock().unwrap().len() == 1 => StatusCode::BAD_GATEWAY.into_response(),
        _ => axum::Json(serde_json::json!({})).into_response(),
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        let driven = Driven::new(1);
        let posts = Posts::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&posts));
        driven.spawn(async move { axum::serve(TcpListener::from_std(listener).unwrap(), app).await });
        Self { base, posts, _driven: driven }
    }

    pub(crate) fn pyroscope(&self, path: &str) -> Pyroscope {
        Pyroscope::new(format!("{}{path}", self.base)).service("photos")
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// The first push, once it has come.
    pub(crate) fn post(&self) -> Post {
        until("something is pushed", || !self.posts().is_empty());
        self.posts().remove(0)
    }
}
