//! Profiles for unit tests.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use super::{Node, Outcome, Profile, Quality, Request, Response, SCHEMA, Slice, State};
use crate::report::{Frame, ProcessInfo};

/// A frame of the application, in `src/app.rs`.
pub(crate) fn own(function: &str, line: u32) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        file: Some("src/app.rs".to_owned()),
        line: Some(line),
        module: Some("photos".to_owned()),
        build_id: Some("abcdef0123456789abcdef0123456789abcdef01".to_owned()),
        address: format!("{:#x}", 0x1f00 + u64::from(line)),
        own: true,
        ..Frame::default()
    }
}

/// A frame of a library: of the crate that its name begins with.
pub(crate) fn library(function: &str) -> Frame {
    let package = function.trim_start_matches('<').split("::").next().unwrap_or_default();
    let file = match package {
        "core" | "alloc" | "std" => {
            format!("/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/{package}/src/task.rs")
        }
        _ => format!("/home/me/.cargo/registry/src/index-0123456789abcdef/{package}-1.2.3/src/lib.rs"),
    };
    Frame { file: Some(file), address: "0x2f00".to_owned(), own: false, ..own(function, 100) }
}

/// Not a function, but a remark.
pub(crate) fn remark(text: &str) -> Frame {
    Frame { function: Some(text.to_owned()), own: true, ..Frame::default() }
}

/// Makes a profile of slices that follow each other.
#[derive(Debug)]
pub(crate) struct ProfileBuilder {
    profile: Profile,
    nodes: HashMap<(Option<u32>, u32), u32>,
}

impl ProfileBuilder {
    /// `GET /slow/lock`, of no time yet.
    pub(crate) fn new() -> Self {
        let profile = Profile {
            schema: SCHEMA,
            id: "0123456789abcdef0123456789abcdef".to_owned(),
            started_at: UNIX_EPOCH + Duration::from_secs(1_735_689_600),
            wall_nanos: 0,
            runs: 1,
            rate_hz: 1_000,
            outcome: Outcome::Finished,
            reason: None,
            request: Request {
                method: "GET".to_owned(),
                uri: "/slow/lock".to_owned(),
                route: Some("/slow/{what}".to_owned()),
                version: "HTTP/1.1".to_owned(),
                headers: vec![("host".to_owned(), "localhost:3000".to_owned())],
                body_bytes: 0,
                trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
                span_id: Some("00f067aa0ba902b7".to_owned()),
            },
            response: Some(Response {
                status: 200,
                version: "HTTP/1.1".to_owned(),
                headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
                body_bytes: 2,
                body: b"ok".to_vec(),
            }),
            process: ProcessInfo {
                hostname: "web1".to_owned(),
                pid: 4242,
                executable: "/opt/photos".to_owned(),
                ..ProcessInfo::default()
            },
            frames: Vec::new(),
            nodes: Vec::new(),
            slices: Vec::new(),
            beside: Vec::new(),
            meanwhile: None,
            quality: Quality::default(),
            notes: Vec::new(),
        };
        Self { profile, nodes: HashMap::new() }
    }

    /// Adds what the request did next. `frames`: outermost first, not empty.
    pub(crate) fn slice(&mut self, state: State, nanos: u64, count: u32, frames: &[Frame]) -> &mut Self {
        let stack = self.stack(frames);
        let start_nanos = self.profile.wall_nanos;
        self.profile.slices.push(Slice { start_nanos, nanos, state, stack, count });
        self.profile.wall_nanos += nanos;
        self
    }

    /// Adds what other work of the request does from here on, beside it.
    pub(crate) fn beside(&mut self, state: State, nanos: u64, count: u32, frames: &[Frame]) -> &mut Self {
        let stack = self.stack(frames);
        let start_nanos = self.profile.wall_nanos;
        self.profile.beside.push(Slice { start_nanos, nanos, state, stack, count });
        self
    }

    pub(crate) fn build(self) -> Profile {
        self.profile
    }

    fn stack(&mut self, frames: &[Frame]) -> u32 {
        let mut parent = None;
        for frame in frames {
            let known = self.profile.frames.iter().position(|other| other == frame);
            let frame = known.unwrap_or_else(|| {
                self.profile.frames.push(frame.clone());
                self.profile.frames.len() - 1
            }) as u32;
            let nodes = &mut self.profile.nodes;
            parent = Some(*self.nodes.entry((parent, frame)).or_insert_with(|| {
                nodes.push(Node { parent, frame });
                nodes.len() as u32 - 1
            }));
        }
        parent.expect("a stack has a frame")
    }
}
