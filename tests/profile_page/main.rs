//! The pages of a profile in a browser, from the flag to the finished graph, on a real server.
//!
//! Needs Chromium: the one that `CHROMIUM` names, or `chromium`, `chromium-browser` or `google-chrome` on `PATH`. Without
//! one these tests say so and pass.
#![cfg(feature = "profile")]

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/browser/mod.rs"]
mod browser;

mod app;

use app::App;
use browser::Page;
use common::{PORTABLE, until};

/// The page of a result is there, to its end.
const DONE: &str = "!!document.getElementById('t-all') && document.readyState === 'complete'";

/// The function whose box is clicked. Where threads cannot be captured, only waits have functions.
const BOX: &str = if PORTABLE { "wait_for_somebody" } else { "compute_an_answer" };

/// The expression of a frame that is the box of a function.
fn box_of(function: &str) -> String {
    format!(
        "[...document.getElementById('frames').children]\
         .find(g => g.querySelector('title').textContent.includes('{function}')).querySelector('rect')"
    )
}

/// Guards: the flag leads by the progress page to the graph, which zooms and can be searched, by mouse and by keyboard. Every
/// tab shows something, a download arrives, and nothing makes the browser complain.
#[test]
fn the_flag_leads_to_a_working_graph() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    page.go("/albums?year=1999&__geordi__");
    page.until("document.getElementById('state')?.textContent === 'Running'");
    page.until("document.getElementById('place').textContent.includes('wait_for_somebody')");
    // Not where it was built.
    page.until("/ tests.profile_page.app.rs:[0-9]+$/.test(document.getElementById('place').textContent)");
    let elapsed = page.cdp.eval("document.getElementById('elapsed').textContent");
    page.until(&format!("document.getElementById('elapsed').textContent !== {elapsed}"));
    page.until("document.title === 'Running: GET /albums?year=1999'");
    let address = page.cdp.eval("location.href");
    assert!(address.as_str().unwrap().starts_with(&format!("{}/albums?year=1999&__geordi__=", app.home)), "{address}");
    app.open();
    // By itself, at the same address.
    page.until(DONE);
    assert_eq!(page.cdp.eval("location.href"), address);
    assert!(page.text().contains("GET /albums?year=1999"));
    page.assert_quiet();

    let frame = page.picture();
    let width = |function: &str| format!("{}.getBoundingClientRect().width", box_of(function));
    let whole = page.eval_in(&frame, "document.getElementById('frames').getBoundingClientRect().width");
    let whole = whole.as_f64().unwrap();
    let before = page.eval_in(&frame, &width(BOX));
    assert!(whole > 600.0 && before.as_f64().unwrap() < 0.99 * whole, "{before} of {whole}");
    page.click_in(&frame, &box_of(BOX), &format!("Math.abs({} - {whole}) < 2", width(BOX)));
    page.until_in(Some(&frame), &format!("document.getElementById('about').textContent.includes('{BOX}')"));
    let as_before = format!("Math.abs({} - {before}) < 0.01", width(BOX));
    page.click_in(&frame, "document.getElementById('back')", &as_before);

    let found = "document.getElementById('found').value";
    page.click_in(&frame, "document.getElementById('term')", "document.activeElement.id === 'term'");
    page.type_text(&BOX[..10].to_uppercase());
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
    // Milliseconds, or on a busy machine seconds.
    assert!([" ms", " s"].iter().any(|unit| about.as_str().unwrap().contains(unit)), "{about}");
    page.assert_quiet();

    tabs(&mut page);
    page.click_on("label", "Downloads");
    let (name, file) = page.download(|page| page.click_on("a", "speedscope"));
    assert!(name.starts_with("profile-") && name.ends_with(".speedscope.json"), "{name}");
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    assert!(file["shared"]["frames"].to_string().contains(BOX));
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
        // What a thread does inside of a poll is not known everywhere.
        assert!(seen.iter().any(|id| id == wanted) || PORTABLE && wanted == "cpu", "{wanted} of {seen:?}");
    }
    page.assert_quiet();
}

/// Guards: the button cancels the request. It is dropped, and its page says so.
#[test]
fn the_button_cancels_the_request() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    page.go("/albums?__geordi__");
    page.until("document.getElementById('state')?.textContent === 'Running'");
    until("the handler waits", || app.waiting() == 1);
    page.click_on("button", "Cancel the request");
    page.until(DONE);
    until("the handler is dropped", || app.waiting() == 0);
    let end = page.cdp.eval("document.querySelector('.end').textContent");
    assert!(end.as_str().unwrap().to_lowercase().contains("cancelled"), "{end}");
    page.picture();
    page.assert_quiet();
}

/// Guards: the ways from one profile to the next: again, the comparison with the one before, and the list of all, searched.
#[test]
fn pages_lead_from_one_profile_to_the_next() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    app.open();
    app.open();
    page.go("/albums?year=1999&__geordi__");
    page.until(DONE);
    let first = page.cdp.eval("location.href");
    page.click_on("a", "Profile this URL again");
    page.until(&format!("location.href !== {first} && {DONE}"));
    page.click_on("label", "Compare");
    page.click("document.querySelector('#p-compare td a')");
    page.until("document.title.startsWith('Compared: GET /albums')");
    let frame = page.picture();
    page.until_in(Some(&frame), "document.getElementById('frames').children.length > 1");
    page.assert_quiet();

    page.cdp.eval("history.back()");
    page.click_on("a", "All profiles");
    page.until("document.querySelectorAll('table.list tbody tr').length === 2");
    page.click("document.querySelector('[name=q]')");
    page.type_text("YEAR=1999 get");
    page.press("Enter");
    page.until("location.search.includes('q=') && document.querySelectorAll('table.list tbody tr').length === 2");
    page.click("document.querySelector('[name=q]')");
    page.type_text(" nothing");
    page.press("Enter");
    page.until("document.body.innerText.includes('No URL matches')");
    page.assert_quiet();
}

/// Guards: without script, the progress page reloads itself until the profile is there.
#[test]
fn the_progress_page_works_without_script() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    page.cdp.command("Emulation.setScriptExecutionDisabled", serde_json::json!({"value": true}));
    page.go("/albums?__geordi__");
    until("the handler waits", || app.waiting() == 1);
    page.until("document.getElementById('state')?.textContent === 'Running'");
    app.open();
    page.until("!!document.querySelector('.lead')");
    // The tabs need none.
    page.click_on("label", "Functions");
    page.until("document.getElementById('p-table').checkVisibility()");
    page.until("document.body.innerText.includes('wait_for_somebody')");
}

/// Guards: on a phone nothing overflows the edge. Where dark is preferred, the page is dark.
#[test]
fn pages_fit_a_phone_in_dark_mode() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    let phone = serde_json::json!({"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true});
    page.cdp.command("Emulation.setDeviceMetricsOverride", phone);
    let dark = serde_json::json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    page.cdp.command("Emulation.setEmulatedMedia", dark);
    app.open();
    page.go("/albums?__geordi__");
    page.until(DONE);
    for tab in ["Flamegraph", "Functions", "Request and response", "Downloads"] {
        page.click_on("label", tab);
        assert_eq!(page.cdp.eval("document.scrollingElement.scrollWidth"), 360, "{tab}");
    }
    page.click_on("label", "Flamegraph");
    let frame = page.picture();
    let width =
        page.eval_in(&frame, "document.getElementById('frames').getBoundingClientRect().right <= innerWidth + 1");
    assert_eq!(width, true);
    // Red, green and blue of what is behind everything.
    let light = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).every(part => part < 64)";
    assert_eq!(page.cdp.eval(light), true);
    page.assert_quiet();
}

/// Guards: a picture, which runs a script among names from anywhere, has no origin and no network. These tests also see what
/// a policy refuses.
#[test]
fn a_picture_has_no_origin_and_no_network() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    app.open();
    page.go("/albums?__geordi__");
    page.until(DONE);
    let frame = page.picture();
    page.assert_quiet();
    assert_eq!(page.eval_in(&frame, "origin"), "null");
    let parent = "(() => { try { return parent.document.title } catch (e) { return e.name } })()";
    assert_eq!(page.eval_in(&frame, parent), "SecurityError");
    let fetched = format!("fetch('{}/albums').then(() => 'answered', () => 'refused')", app.home);
    assert_eq!(page.eval_in(&frame, &fetched), "refused");
    page.cdp.eval("0");
    assert!(
        page.cdp.problems.iter().any(|problem| problem.contains("Content Security Policy")),
        "{:#?}",
        page.cdp.problems
    );
    assert_eq!(app.waiting(), 0);
}

/// Guards: before many runs a page asks for confirmation, and what is confirmed runs. On a phone nothing overflows the edge.
#[test]
fn many_runs_need_confirmation() {
    let app = App::start();
    let Some(mut page) = app.page() else { return };
    // No script is needed for that.
    page.cdp.command("Emulation.setScriptExecutionDisabled", serde_json::json!({"value": true}));
    page.go("/albums?year=1999&__geordi__=2x");
    page.until("document.body.innerText.includes('Profile this request?')");
    page.until("document.body.innerText.includes('GET /albums?year=1999')");
    assert_eq!(app.waiting(), 0, "nothing runs yet");
    let phone = serde_json::json!({"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true});
    page.cdp.command("Emulation.setDeviceMetricsOverride", phone);
    assert_eq!(page.cdp.eval("document.scrollingElement.scrollWidth"), 360);
    page.assert_quiet();
    app.open();
    app.open();
    page.click_on("button", "Run it 2 times");
    page.until("document.querySelector('.lead')?.textContent.includes(' in 2 runs')");
    page.cdp.command("Emulation.setScriptExecutionDisabled", serde_json::json!({"value": false}));

    // A request that a page embeds is not deliberate. The next one is.
    page.go("/guests");
    page.until("document.title === 'Guests' && document.readyState === 'complete'");
    let embedded = "fetch('/albums?__geordi__', {mode: 'no-cors', headers: {accept: 'text/html'}}).then(() => Promise.all(\
        ['img', 'iframe', 'script'].map(kind => new Promise(done => { const e = document.createElement(kind); \
        e.onload = e.onerror = () => done(kind); e.src = '/albums?__geordi__'; document.body.append(e); })))).then(all => all.length)";
    assert_eq!(page.cdp.eval(embedded), 3);
    assert_eq!(app.waiting(), 0);
    page.go("/albums?__geordi__");
    page.until("document.getElementById('state')?.textContent === 'Running'");
    until("the handler waits", || app.waiting() == 1);
}
