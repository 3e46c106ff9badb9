//! What is slow here, and what a report must say about it.

/// One slow page.
pub(crate) struct Cause {
    pub(crate) path: &'static str,
    /// Why it is slow, for people.
    pub(crate) what: &'static str,
    pub(super) visit: Visit,
    /// As spelled in a report.
    pub(super) verdict: &'static str,
    /// What else is right, depending on the machine.
    pub(super) or: Option<&'static str>,
    /// The function to blame.
    pub(super) function: &'static str,
    pub(super) blame: Blame,
    pub(super) thread: Thread,
    /// What the report's sentence says about who is to blame, if that is other work.
    pub(super) says: &'static str,
}

/// How the client behaves.
#[derive(Clone, Copy)]
pub(super) enum Visit {
    /// Asks and reads the answer to its end.
    Patient,
    /// Gives up, long after the request was slow.
    GivesUp,
    /// Leaves when the request is not slow yet, but on its way there.
    Leaves,
    /// Has its timebox stop the page, when the request is not slow yet.
    IsStopped,
    /// Asks while another request imports a library.
    DuringImport,
    /// Asks, and then has others ask for something that holds every worker.
    AmongHogs,
}

/// Where in a report the function must be.
#[derive(Clone, Copy)]
pub(super) enum Blame {
    /// The frame that the report leads with.
    Location,
    /// A frame of a stack of this kind. It isn't the request's own stack.
    Stack(&'static str),
}

/// What a report must say about the thread that polls the request.
#[derive(Clone, Copy)]
pub(super) enum Thread {
    Anything,
    OnCpu,
    InSystemCall(&'static str),
}

const fn waiting(path: &'static str, what: &'static str, function: &'static str) -> Cause {
    Cause {
        path,
        what,
        visit: Visit::Patient,
        verdict: "waiting",
        or: None,
        function,
        blame: Blame::Location,
        thread: Thread::Anything,
        says: "",
    }
}

const fn blocking(path: &'static str, what: &'static str, function: &'static str, thread: Thread) -> Cause {
    Cause { verdict: "blocking", thread, ..waiting(path, what, function) }
}

pub(crate) const CAUSES: [Cause; 13] = [
    Cause {
        verdict: "churning",
        // Where polls are slow (a debug build, a busy machine), they take more of the time than the waits.
        or: Some("waiting"),
        ..waiting("/slow/queries", "one query a photo, thousands of them", "load_photos_one_by_one")
    },
    Cause {
        // Its rows come one by one, and a fast machine waits for many of them.
        or: Some("churning"),
        ..waiting("/slow/index", "a query without an index", "find_by_camera")
    },
    Cause {
        says: "\"small pool\" (2 of 2 in use) is held by the job \"nightly statistics\"",
        ..waiting("/slow/pool", "every connection is checked out", "checkout_connection")
    },
    Cause {
        visit: Visit::DuringImport,
        says: "likely held by GET /slow/import",
        ..waiting("/slow/lock", "an import holds an async lock", "wait_for_import")
    },
    blocking("/slow/thread-lock", "a thread holds a std mutex", "thumbnail_cache_entry", Thread::InSystemCall("futex")),
    blocking("/slow/regex", "^(a+)+$ and a backtracking engine", "is_valid_tag", Thread::OnCpu),
    blocking("/slow/files", "one file read synchronously, again and again", "reread_exif", Thread::Anything),
    waiting("/slow/upstream", "an outbound call without a timeout", "fetch_geocode"),
    Cause {
        blame: Blame::Stack("thread"),
        ..waiting("/slow/worker", "blocking work handed to the pool", "resize_photo")
    },
    Cause {
        visit: Visit::AmongHogs,
        verdict: "starved",
        blame: Blame::Stack("culprit"),
        ..waiting("/slow/starved", "innocent, but others hold all workers", "is_valid_tag")
    },
    waiting("/slow/body", "the response body stalls half way", "export_archive"),
    Cause {
        visit: Visit::GivesUp,
        verdict: "no_waker",
        ..waiting("/slow/forgotten", "a future keeps no waker", "forgotten_wakeup")
    },
    Cause {
        visit: Visit::Leaves,
        verdict: "abandoned",
        ..waiting("/slow/gone", "the client leaves during an outbound call", "fetch_geocode")
    },
];

/// A cause that the tour visits again, in a box.
pub(super) const STOPPED: Cause = Cause {
    visit: Visit::IsStopped,
    verdict: "interrupted",
    ..waiting("/slow/upstream", "the same outbound call, in a timebox", "fetch_geocode")
};

/// A cause whose page an administrator has profiled, so that it has no report.
pub(super) const PROFILED: Cause = waiting("/slow/lock", "the same import, in a profile", "wait_for_import");
