//! The pages of a profile in a browser, from the flag to the finished graph, on a real server.
//!
//! Needs Chromium: the one that `CHROMIUM` names, or `chromium`, `chromium-browser` or `google-chrome` on `PATH`. Without
//! one these tests say so and pass.

#[path = "../common/mod.rs"]
mod common;

mod cdp;
mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use heeler::{ProfileLayer, authorize};
use tokio::sync::Semaphore;

use common::{Driven, ms, until};
use page::Page;

const SECRET: &str = "a-secret-of-this-test";

/// What the handler waits for, and how many are waiting.
#[derive(Debug)]
struct Gate {
    waiting: AtomicUsize,
    open: Semaphore,
}

async fn wait_for_somebody(gate: &Gate) {
    struct Waiting<'a>(&'a AtomicUsize);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    gate.waiting.fetch_add(1, Ordering::SeqCst);
    let _waiting = Waiting(&gate.waiting);
    gate.open.acquire().await.unwrap().forget();
}

#[inline(never)]
fn compute_an_answer() -> u64 {
    let began = Instant::now();
    let mut sum = 0_u64;
    while began.elapsed() < ms(150) {
        sum = std::hint::black_box(sum.rotate_left(5) ^ 7);
    }
    sum
}

/// A server whose handler computes and waits.
struct App {
    gate: Arc<Gate>,
    home: String,
    _server: Driven,
}

impl App {
    fn start() -> Self {
        let gate = Arc::new(Gate { waiting: AtomicUsize::new(0), open: Semaphore::new(0) });
        let handler = {
            let gate = Arc::clone(&gate);
            async move || {
                wait_for_somebody(&gate).await;
                format!("<b>{}</b>", compute_an_answer())
            }
        };
        let layer = ProfileLayer::new(authorize::bearer(SECRET).unwrap());
        let router = Router::new().route("/albums", get(handler)).layer(layer);
        let server = Driven::new(2);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let home = format!("http://{}", listener.local_addr().unwrap());
        server.spawn(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await });
        Self { gate, home, _server: server }
    }

    fn waiting(&self) -> usize {
        self.gate.waiting.load(Ordering::SeqCst)
    }

    fn open(&self) {
        self.gate.open.add_permits(1);
    }

    /// A browser of somebody who may profile.
    fn page(&self) -> Option<Page> {
        Page::new(&self.home, (authorize::DEFAULT_COOKIE, SECRET))
    }
}

/// The expression of a frame that is the box of a function.
fn box_of(function: &str) -> String {
    format!(
        "[...document.getElementById('frames').children]\
         .find(g => g.querySelector('title').textContent.includes('{function}')).querySelector('rect')"
    )
}

/// Guards: from the flag, by the page of the progress, to the graph: which zooms and is searched, by mouse and by keyboard;
/// every tab shows something; a download arrives. Nothing of it makes the browser complain.
#[test]
fn from_the_flag_to_the_graph() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    page.go("/albums?year=1999&__geordi__");
    page.until("document.getElementById('state')?.textContent === 'Running'");
    page.until("document.getElementById('place').textContent.includes('wait_for_somebody')");
    let elapsed = page.cdp.eval("document.getElementById('elapsed').textContent");
    page.until(&format!("document.getElementById('elapsed').textContent !== {elapsed}"));
    page.until("document.title === 'Running: GET /albums?year=1999'");
    let address = page.cdp.eval("location.href");
    assert!(address.as_str().unwrap().starts_with(&format!("{}/albums?year=1999&__geordi__=", app.home)), "{address}");
    app.open();
    // By itself, at the same address.
    page.until("!!document.getElementById('t-all')");
    assert_eq!(page.cdp.eval("location.href"), address);
    assert!(page.text().contains("GET /albums?year=1999"));
    page.assert_quiet();

    let frame = page.picture();
    let width = |function: &str| format!("{}.getBoundingClientRect().width", box_of(function));
    let whole = page.eval_in(&frame, "document.getElementById('frames').getBoundingClientRect().width");
    let whole = whole.as_f64().unwrap();
    let before = page.eval_in(&frame, &width("compute_an_answer"));
    assert!(whole > 600.0 && before.as_f64().unwrap() < 0.99 * whole, "{before} of {whole}");
    page.click_in(&frame, &box_of("compute_an_answer"));
    page.until_in(Some(&frame), &format!("Math.abs({} - {whole}) < 2", width("compute_an_answer")));
    page.until_in(Some(&frame), "document.getElementById('about').textContent.includes('compute_an_answer')");
    page.click_in(&frame, "document.getElementById('back')");
    page.until_in(Some(&frame), &format!("{} === {before}", width("compute_an_answer")));

    let found = "document.getElementById('found').value";
    page.click_in(&frame, "document.getElementById('term')");
    page.type_text("COMPUTE_an");
    page.until_in(Some(&frame), &format!("/^Matched: [0-9.]+%$/.test({found})"));
    // Characters that mean something in an expression are looked for as they are.
    page.type_text("(.*");
    page.until_in(Some(&frame), &format!("{found} === 'Not found'"));

    page.eval_in(&frame, "document.getElementById('picture').focus()");
    page.press("ArrowDown");
    page.press("ArrowDown");
    let about = page.eval_in(&frame, "document.getElementById('about').textContent");
    page.press("Enter");
    page.until_in(Some(&frame), "!document.getElementById('back').disabled");
    page.press("Escape");
    page.until_in(Some(&frame), "document.getElementById('back').disabled");
    assert!(about.as_str().unwrap().contains(" ms"), "{about}");
    page.assert_quiet();

    tabs(&mut page);
    page.click_on("label", "Downloads");
    let (name, file) = page.download(|page| page.click_on("a", "speedscope"));
    assert!(name.starts_with("profile-") && name.ends_with(".speedscope.json"), "{name}");
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    assert!(file["shared"]["frames"].to_string().contains("compute_an_answer"));
    page.assert_quiet();
}

/// Each tab, by the keyboard, shows its panel and no other.
fn tabs(page: &mut Page) {
    page.cdp.eval("document.getElementById('t-all').focus()");
    let count = page.cdp.eval("document.querySelectorAll('[name=tab]').length").as_u64().unwrap();
    let mut seen = Vec::new();
    for _ in 0..count {
        let id = page.cdp.eval("document.querySelector('[name=tab]:checked').id.slice(2)");
        let id = id.as_str().unwrap().to_owned();
        page.until(&format!(
            "[...document.querySelectorAll('.panel')].filter(p => p.checkVisibility()).map(p => p.id).join() === 'p-{id}'"
        ));
        if page.cdp.eval(&format!("!!document.querySelector('#p-{id} iframe')")) == true {
            let frame = page.picture();
            page.until_in(Some(&frame), "document.getElementById('frames').children.length > 1");
            // With the runtime's frames there is more to see.
            page.click(&format!("document.querySelector('#p-{id} input')"));
            let full = page.picture();
            page.until_in(Some(&full), "document.getElementById('frames').children.length > 1");
            page.cdp.eval(&format!("document.querySelector('#t-{id}').focus()"));
        }
        seen.push(id);
        page.press("ArrowRight");
    }
    for wanted in ["all", "cpu", "wait", "chart", "table", "request", "compare", "files"] {
        assert!(seen.iter().any(|id| id == wanted), "{wanted} of {seen:?}");
    }
    page.assert_quiet();
}

/// Guards: the button cancels the request: it is dropped, and its page says so.
#[test]
fn cancelled_by_the_button() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    page.go("/albums?__geordi__");
    page.until("document.getElementById('state')?.textContent === 'Running'");
    until("the handler waits", || app.waiting() == 1);
    page.click_on("button", "Cancel the request");
    page.until("!!document.getElementById('t-all')");
    until("the handler is dropped", || app.waiting() == 0);
    let end = page.cdp.eval("document.querySelector('.end').textContent");
    assert!(end.as_str().unwrap().to_lowercase().contains("cancelled"), "{end}");
    page.picture();
    page.assert_quiet();
}
