//! Whole pages, as a browser sees them.

use super::inspect::{Seen, inspect};
use super::sample::{HOSTILE, album, earlier, hostile, status, summary, wide};
use super::*;
use crate::profile::flag::Start;
use crate::profile::id::Id;
use crate::profile::store::Phase;
use crate::profile::{Outcome, ProcessProfile, ProcessStack, Profile, State};

const NONCE: &str = "bm9uY2Vub25jZW5vbmNlbg==";

fn context<'a>() -> Context<'a> {
    Context::new("__geordi__", "/albums/7?sort=date&page=2", NONCE)
}

/// Returns what a reader sees of the page, on one line.
fn words_of(page: &str) -> String {
    inspect(page, NONCE).text.replace('\n', "").to_owned()
}

fn page_of(profile: &Profile) -> Seen {
    inspect(&result(profile, &[summary(&earlier())], &context()), NONCE)
}

#[track_caller]
fn assert_says(page: &str, expected: &str) {
    let text = words_of(page);
    assert!(text.contains(expected), "{expected}\n{text}");
}

/// Guards: an engineer sees at once where the time went.
#[test]
fn the_page_leads_with_where_the_time_went() {
    let page = result(&album(), &[], &context());
    assert_says(
        &page,
        "2.35 s: 44.4 % waiting, 31.6 % on CPU, 21.2 % blocked in a poll, 2.8 % woken but not polled. \
         The most at one place: 812 ms (34.6 %) waiting in photos::store::PhotoStore::list at src/store.rs:33, 1 wait.",
    );
    for shown in ["on CPU: 741 ms, 31.6 %", "blocked in a poll: 498 ms", "waiting: 1.04 s", "woken, not polled: 67 ms"]
    {
        assert_says(&page, shown);
    }
    assert_says(&page, "1,260 of 1,262 samples taken at 1,000 Hz, 2 lost, 7 late; 0 stacks cut at their outer end.");
    assert_says(&page, "The profiler took 1.4 ms of the request's own time (0.06 %), and 21 ms of CPU beside it.");
    assert_says(&page, "The request spawned one task, which was profiled beside it.");
}

/// Guards: the page says how the request ended if it did not end well, and what many runs mean.
#[test]
fn the_page_says_how_the_request_ended() {
    let table = [
        (Outcome::Failed("connection reset".to_owned()), "The request failed. connection reset"),
        (Outcome::Panicked("index out of bounds".to_owned()), "The handler panicked. index out of bounds"),
        (Outcome::Cancelled, "The request was cancelled. This is what it did until then."),
        (Outcome::TooLong, "The request took too long, and was dropped."),
    ];
    let mut profile = album();
    assert!(!words_of(&result(&profile, &[], &context())).contains("The request was"));
    for (outcome, expected) in table {
        (profile.outcome, profile.response) = (outcome, None);
        let page = result(&profile, &[], &context());
        assert_says(&page, expected);
        assert_says(&page, "There was none.");
    }
    profile.runs = 20;
    assert_says(&result(&profile, &[], &context()), "2.35 s in 20 runs, 117 ms each: ");
}

/// Guards: there are tabs for everything in the profile, a frame with and one without library frames for each picture, and
/// links to everything else.
#[test]
fn the_page_has_tabs_and_links_to_everything() {
    let seen = page_of(&album());
    for id in ["t-all", "t-cpu", "t-wait", "t-chart", "t-beside", "t-table", "t-request", "t-compare", "t-files"] {
        assert!(seen.ids.iter().any(|seen| seen == id), "{id}");
    }
    assert_eq!(seen.frames.len(), 10);
    let id = album().id;
    let flag = |value: &str| format!("?sort=date&page=2&__geordi__={value}");
    for value in ["svg", "pprof", "json", "html", "response"] {
        assert!(seen.targets.contains(&flag(&format!("{id}.{value}"))), "{value}");
    }
    for value in ["", "index", &format!("{}.vs.{id}", earlier().id)] {
        assert!(seen.targets.contains(&flag(value)), "{value}: {:?}", seen.targets);
    }
    // No links to anything that does not exist.
    let mut computed = album();
    computed.slices.retain(|slice| slice.state == State::OnCpu);
    computed.beside.clear();
    let seen = page_of(&computed);
    assert!(!seen.ids.iter().any(|id| id == "t-wait" || id == "t-beside"));
    // There is no link to repeat a POST, or another URL.
    let mut posted = album();
    posted.request.method = "POST".to_owned();
    assert!(!page_of(&posted).targets.contains(&flag("")));
}

/// Guards: the confirmation page says what would run, and how often. Its form leads to the result, and needs no script.
#[test]
fn the_confirmation_says_what_would_run() {
    let token: Id = "0123456789abcdef0000000000000009".parse().unwrap();
    let start = Start { runs: Some(200), inline: true, process: true, form: None };
    let page = confirm("/vote?a=<b>", start, token, &context());
    for text in ["GET /vote?a=<b>", "It runs", "200 times", "own runtime", "The rest of the process"] {
        assert_says(&page, text);
    }
    let seen = inspect(&page, NONCE);
    let answer = format!("?sort=date&page=2&__geordi__={token}.confirm");
    assert_eq!((seen.scripts, seen.targets), (0, vec![answer, "?sort=date&page=2".to_owned()]));
    assert_says(&confirm("/", Start::default(), token, &context()), "once");
}

/// Guards: what the rest of the process did is shown if it was asked for, and so is what is missing there. Names are shown as
/// text.
#[test]
fn the_process_profile_is_shown_if_asked_for() {
    let mut profile = album();
    assert!(!page_of(&profile).ids.iter().any(|id| id == "t-process"));
    let stack = |function: &str, samples| ProcessStack {
        thread: HOSTILE.join(" "),
        functions: vec!["main".to_owned(), function.to_owned()],
        samples,
    };
    let stacks = vec![stack("others::compress", 30), stack(&HOSTILE.join(" "), 10)];
    profile.meanwhile = Some(ProcessProfile { rate_hz: 99, samples: 40, stacks, unlisted: 0 });
    assert!(page_of(&profile).ids.iter().any(|id| id == "t-process"));
    let page = result(&profile, &[], &context());
    assert_says(&page, "40 samples of the CPU time of all other threads");
    assert_says(&page, "others::compress ‹ main");
    assert_says(&page, "75.0 %");
}

/// Guards: a page saved as a file links nowhere, and has its pictures.
#[test]
fn a_saved_page_is_self_contained() {
    let file = html(&album());
    let nonce = file.split_once("<style nonce=\"").and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
    let seen = inspect(&file, nonce);
    assert_eq!((seen.targets.len(), seen.frames.len()), (0, 10));
    assert!(!file.contains("http-equiv=\"refresh\""));
    // Nothing is loaded from anywhere.
    assert!(!file.contains("src=") && !file.contains("@import") && !file.contains("url(http"));
    assert_ne!(file, html(&album()), "a nonce is used once");
}

/// Guards: names from a request or a binary are text, wherever they are shown. [`inspect`] fails on elements, attributes and
/// handlers that are not a page's own, on scripts without the nonce, and on links to elsewhere.
#[test]
fn hostile_names_are_shown_as_text() {
    let profile = hostile();
    let context = Context::new("__geordi__", "//evil.example/?a=\"><script>&b='", NONCE);
    let mut job = status(Phase::Failed(HOSTILE.join(" ")));
    (job.method, job.uri, job.place) = (HOSTILE.join(" "), HOSTILE.join(" "), Some(HOSTILE.join(" ")));
    let mut running = status(Phase::Running);
    running.place = Some(HOSTILE.join(" "));
    let all = HOSTILE.join(" ");
    let pages = [
        (result(&profile, &[summary(&profile)], &context), 2 * 2 * 5),
        (compare(&profile, &album(), &context), 2 * 4),
        (compare(&album(), &profile, &context), 2 * 4),
        (live(&job, &context), 0),
        (live(&running, &context), 1),
        (index(&[summary(&profile)], &all, &context), 0),
        (error(&all, &all, &context), 0),
    ];
    for (page, scripts) in pages {
        let seen = inspect(&page, NONCE);
        assert_eq!(seen.scripts, scripts, "none but heeler's and inferno's");
        let everything = |seen: &Seen| seen.frames.iter().fold(seen.text.clone(), |text, frame| text + &frame.text);
        let text = everything(&seen);
        assert!(text.contains("<script>alert(1)</script>") || text.contains("<script>al…"), "shown as it is");
        assert!(!text.contains('\u{202e}') && !text.contains('\0'), "nothing turns the text around");
        assert!(text.chars().filter(|&c| c == 'x').count() < 40_000, "long names are shortened");
    }
}

/// Guards: a page of many thousand stacks is not so large that a browser hangs.
#[test]
fn large_profiles_make_no_large_pages() {
    let page = result(&wide(), &[], &context());
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
    for frame in inspect(&page, NONCE).frames {
        assert!(frame.text.lines().count() < 12 * 1_500);
    }
}

/// Guards: the page asks for news, by its script or, without one, by a refresh of the browser. Once the job is over, it does
/// neither.
#[test]
fn the_progress_page_refreshes_until_the_end() {
    let running = live(&status(Phase::Running), &context());
    assert_says(&running, "Running 12.3 s");
    assert_says(&running, "photos::store::PhotoStore::list at src/store.rs:33");
    assert_says(&running, "12,040");
    assert!(running.contains("<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>"));
    let seen = inspect(&running, NONCE);
    let id = status(Phase::Running).id;
    for value in ["status", "cancel"] {
        assert!(seen.targets.contains(&format!("?sort=date&page=2&__geordi__={id}.{value}")), "{:?}", seen.targets);
    }
    assert!(running.contains("<form method=\"post\""));
    assert!(!running.contains("somebody"), "whose it is, is not for others");
    for (place, expected) in
        [(0, "Next in the queue"), (1, "1 profile before"), (2, "In the queue, 2 profiles before it")]
    {
        assert_says(&live(&status(Phase::Queued { place }), &context()), expected);
    }
    for (phase, expected) in [
        (Phase::Failed("the store is full".to_owned()), "the store is full"),
        (Phase::Cancelled, "Cancelled"),
        (Phase::Lost, "Lost: the process that ran it is gone"),
    ] {
        let page = live(&status(phase), &context());
        assert_says(&page, expected);
        assert!(!page.contains("http-equiv=\"refresh\"") && !page.contains("<form") && !page.contains("<script"));
    }
}

#[test]
fn profiles_are_listed_and_searched() {
    let page = index(&[summary(&album()), summary(&hostile())], "alb", &context());
    assert_says(&page, "GET /albums/7?sort=date&page=2");
    assert_says(&page, "panicked 200");
    assert_says(&page, "web1 ");
    assert!(page.contains("<input type=\"hidden\" name=\"__geordi__\" value=\"index\">"));
    assert!(page.contains("name=\"q\"") && page.contains("value=\"alb\""));
    assert_says(&index(&[], "", &context()), "There are none yet.");
    assert_says(&index(&[], "x", &context()), "No URL matches.");
}

/// Guards: what is slower comes first, and many runs count as their average.
#[test]
fn the_comparison_leads_with_what_is_slower() {
    let mut many = album();
    many.runs = 2;
    for slice in &mut many.slices {
        slice.nanos *= 2;
    }
    many.wall_nanos *= 2;
    for after in [album(), many] {
        let page = compare(&earlier(), &after, &context());
        assert_says(
            &page,
            "602 ms slower: 1.75 s before, 2.35 s after (+34.5 %). The most: +541 ms waiting in \
             photos::store::PhotoStore::list at src/store.rs:33.",
        );
        let pictures = inspect(&page, NONCE).frames;
        assert_eq!(pictures.len(), 4);
        for (picture, whole) in pictures.iter().zip(["2.35 s", "2.35 s", "1.75 s", "1.75 s"]) {
            assert!(picture.text.contains(&format!("all: {whole} (100 %)")), "{}", picture.text);
            // The same change, in both pictures.
            assert!(picture.text.contains("waiting (+695 ms: 347 ms before, 1.04 s after)"), "{}", picture.text);
        }
        assert!(page.contains("rgb(255,100,100)") && page.contains("rgb(250,250,250)"));
    }
    assert_says(&compare(&album(), &earlier(), &context()), "602 ms faster: 2.35 s before, 1.75 s after (-25.6 %).");
    assert_says(&compare(&album(), &album(), &context()), "As long as before: 2.35 s before, 2.35 s after (+0.0 %).");
}

#[test]
fn errors_say_what_and_why() {
    let page = error("Too many profiles", "8 wait already.", &context());
    assert_says(&page, "Too many profiles");
    assert_says(&page, "8 wait already.");
    assert!(inspect(&page, NONCE).targets.contains(&"?sort=date&page=2".to_owned()));
}

/// Guards: the policy that a page states itself lets nothing leave it.
#[test]
fn the_pages_policy_lets_nothing_out() {
    let header = Policy::Page(NONCE).header();
    for directive in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
        assert!(header.split("; ").any(|given| given == directive), "{directive}");
    }
    assert!(header.contains(NONCE) && !header.contains("unsafe"));
    assert!(Policy::Picture.header().ends_with("sandbox allow-scripts allow-modals"));
    assert!(Policy::Other.header().ends_with("; sandbox"));
    let still = result(&album(), &[], &context());
    assert!(still.contains("default-src &#39;none&#39;") && !still.contains("connect-src"), "it asks for nothing");
    assert!(live(&status(Phase::Running), &context()).contains("connect-src &#39;self&#39;"));
}
