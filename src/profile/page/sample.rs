//! Profiles for the tests of the pages, and the pages as files to look at.

use std::time::UNIX_EPOCH;

use crate::profile::store::{Phase, Status, Summary};
use crate::profile::testing::{ProfileBuilder, library, own, remark};
use crate::profile::{Outcome, Profile, Quality, State};
use crate::report::Frame;

const MS: u64 = 1_000_000;

/// A frame in one of the application's files.
fn at(function: &str, file: &str, line: u32) -> Frame {
    Frame { file: Some(file.to_owned()), ..own(function, line) }
}

/// The frames outside every request.
fn outside() -> Vec<Frame> {
    let functions = [
        "std::rt::lang_start_internal",
        "tokio::runtime::scheduler::multi_thread::worker::run",
        "tokio::runtime::task::core::Core::poll",
        "tower::util::oneshot::Oneshot::poll",
        "axum::handler::future::IntoServiceFuture::poll",
        "axum::handler::Handler::call",
    ];
    functions.iter().map(|function| library(function)).collect()
}

fn stack(inner: &[Frame]) -> Vec<Frame> {
    let page = at("photos::album::page", "src/album.rs", 41);
    outside().into_iter().chain([page]).chain(inner.iter().cloned()).collect()
}

/// A request that takes 2.5 s: 40 % waiting, 30 % on CPU, 20 % blocked, 10 % other.
pub(super) fn album() -> Profile {
    let mut builder = ProfileBuilder::new();
    let decode = |line| {
        stack(&[
            at("photos::thumb::render_all", "src/thumb.rs", 88),
            at("photos::thumb::decode", "src/thumb.rs", line),
            library("zune_jpeg::decoder::JpegDecoder::decode"),
            library("zune_jpeg::idct::idct_int"),
        ])
    };
    let lock = stack(&[
        at("photos::album::with_index_lock", "src/album.rs", 77),
        library("std::fs::File::lock"),
        library("libc::flock"),
    ]);
    let query = stack(&[
        at("photos::store::PhotoStore::list", "src/store.rs", 33),
        library("sqlx_core::pool::Pool::acquire"),
        library("futures_util::future::select::Select::poll"),
        library("tokio::sync::batch_semaphore::Acquire::poll"),
    ]);
    let tags = stack(&[
        library("futures_util::future::join::Join::poll"),
        at("photos::tags::for_album", "src/tags.rs", 19),
        library("reqwest::async_impl::client::Pending::poll"),
        library("tokio::sync::oneshot::Receiver::poll"),
    ]);
    let sort = stack(&[at("photos::album::sort_by_date", "src/album.rs", 102), library("core::slice::sort::stable")]);
    let any = stack(&[library("futures_util::future::join::Join::poll"), remark("[any of 3]")]);
    let parked = stack(&[remark("[not scheduled]")]);
    builder.slice(State::OnCpu, 18 * MS, 18, &sort);
    builder.slice(State::Waiting, 812 * MS, 1, &query);
    builder.slice(State::Runnable, 31 * MS, 1, &parked);
    for round in 0..40 {
        builder.slice(State::OnCpu, 17 * MS, 17, &decode(120 + round % 3));
        if round % 10 == 3 {
            builder.slice(State::Waiting, 54 * MS, 1, &tags);
            builder.slice(State::Runnable, 9 * MS, 1, &parked);
        }
    }
    builder.slice(State::Blocked, 498 * MS, 3, &lock);
    builder.slice(State::Waiting, 14 * MS, 2, &any);
    builder.slice(State::OnCpu, 40 * MS, 40, &sort);
    builder.slice(State::OnCpu, 3 * MS, 0, &[remark("[unattributed]")]);
    builder.beside(State::OnCpu, 300 * MS, 300, &stack(&[at("photos::thumb::warm_cache", "src/thumb.rs", 201)]));
    let mut profile = builder.build();
    profile.request.uri = "/albums/7?sort=date&page=2".to_owned();
    profile.request.route = Some("/albums/{id}".to_owned());
    profile.quality = Quality {
        polls: 52,
        waits: 8,
        expected: 1_262,
        taken: 1_260,
        lost: 2,
        late: 7,
        truncated: 0,
        waits_lost: 0,
        own_nanos: 1_400_000,
        sampler_nanos: 21_000_000,
    };
    profile.notes = vec!["The request spawned one task, which was profiled beside it.".to_owned()];
    profile
}

/// The same request when it was faster.
pub(super) fn earlier() -> Profile {
    let mut profile = album();
    profile.id = "fedcba9876543210fedcba9876543210".to_owned();
    let mut start_nanos = 0;
    for slice in &mut profile.slices {
        slice.nanos = match slice.state {
            State::Waiting => slice.nanos / 3,
            State::OnCpu => slice.nanos * 9 / 8,
            _ => slice.nanos,
        };
        slice.start_nanos = start_nanos;
        start_nanos += slice.nanos;
    }
    profile.wall_nanos = start_nanos;
    profile
}

pub(super) fn summary(profile: &Profile) -> Summary {
    Summary::new(profile.id.parse().unwrap(), profile)
}

/// A job of a hundred polls.
pub(in crate::profile) fn status(phase: Phase) -> Status {
    Status {
        id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        principal: Some("somebody".to_owned()),
        phase,
        method: "GET".to_owned(),
        uri: "/albums/7?sort=date&page=2".to_owned(),
        started_at: UNIX_EPOCH,
        updated_at: UNIX_EPOCH,
        elapsed_ms: 12_345,
        polls: 100,
        samples: 12_040,
        place: Some("photos::store::PhotoStore::list at src/store.rs:33".to_owned()),
        #[cfg(heeler_remote)]
        sent: None,
    }
}

/// Names that try to be something else.
pub(super) const HOSTILE: [&str; 7] = [
    "<script>alert(1)</script>",
    "a;b;c\u{1}d\u{2}e\u{3}f",
    "\"' onload='alert(1)' x=\"",
    "]]></script><script>alert(2)//",
    "abc\u{202e}txt.exe\u{5d0}\u{5d1}\u{5d2}",
    "</title></style><img src=x onerror=alert(3)> 12 34",
    "{{constructor.constructor('alert(4)')()}} &lt;b&gt; \u{0} \u{fffe}",
];

/// A profile in which everything that can be hostile is hostile.
pub(super) fn hostile() -> Profile {
    let mut builder = ProfileBuilder::new();
    for (round, name) in HOSTILE.into_iter().enumerate() {
        let state = super::words::STATES[round % 5];
        let frame = at(name, name, 7);
        builder.slice(state, 10 * MS + round as u64, 1, &[library(name), frame.clone(), library(name)]);
        builder.beside(state, 10 * MS, 1, &[frame]);
    }
    let generic = format!("app::deep::<{}>::load", "core::pin::Pin<alloc::boxed::Box<dyn Fn() -> u8>>, ".repeat(100));
    builder.slice(State::OnCpu, 10 * MS, 1, &[own(&generic, 3)]);
    builder.slice(State::OnCpu, 10 * MS, 1, &[own(&"x".repeat(4_000), 3)]);
    let mut profile = builder.build();
    let all = HOSTILE.join(" ");
    profile.outcome = Outcome::Panicked(all.clone());
    profile.request.method.clone_from(&all);
    profile.request.uri.clone_from(&all);
    profile.request.route = Some(all.clone());
    profile.request.headers = HOSTILE.map(|name| (name.to_owned(), name.to_owned())).to_vec();
    if let Some(response) = &mut profile.response {
        response.headers = profile.request.headers.clone();
        response.version.clone_from(&all);
    }
    profile.process.hostname.clone_from(&all);
    profile.process.executable.clone_from(&all);
    profile.process.service = Some(all.clone());
    profile.notes = HOSTILE.map(str::to_owned).to_vec();
    profile
}

/// A long request with many thousand stacks.
pub(super) fn wide() -> Profile {
    let mut builder = ProfileBuilder::new();
    let mut random = fastrand::Rng::with_seed(7);
    let mut frames = outside();
    for round in 0..8_000u32 {
        frames.truncate(7 + random.usize(0..20));
        while frames.len() < 12 + random.usize(0..20) {
            let number = random.u32(0..40);
            let depth = frames.len();
            frames.push(match random.u32(0..3) {
                0 => library(&format!("tokio::layer{depth}::step{number}")),
                _ => own(&format!("app::layer{depth}::step{number}"), number),
            });
        }
        let state = super::words::STATES[random.usize(0..5)];
        builder.slice(state, random.u64(100_000..3_000_000), 1 + round % 3, &frames);
    }
    builder.build()
}
