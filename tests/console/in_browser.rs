//! The pages in a browser. Needs Chromium: see `tests/profile_page`.

use heeler::authorize;

use super::app::{App, SECRET};
use crate::browser::Page;

fn page(app: &App) -> Option<Page> {
    Page::new(&format!("http://{}", app.address), (authorize::DEFAULT_COOKIE, SECRET))
}

/// Keeps a picture for those who want to look at it as a person would.
fn show(page: &mut Page, name: &str) {
    use base64::Engine as _;

    if let Some(folder) = std::env::var_os("HEELER_SHOW") {
        let shot = page.cdp.command("Page.captureScreenshot", serde_json::json!({"captureBeyondViewport": true}));
        let png = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), png).unwrap();
    }
}

const LINES: &str = "document.querySelectorAll('table.list tbody tr').length";

/// Guards: the table is there, updates itself, and can be sorted and filtered; a line leads to its stack; nothing makes the
/// browser complain.
#[test]
fn the_table_updates_and_can_be_sorted_and_filtered() {
    let app = App::start();
    app.fill();
    let Some(mut page) = page(&app) else { return };
    page.go("/");
    page.until(&format!("{LINES} === 7"));
    let gate = app.open.clone();
    app.request("/new", async move {
        let _ = gate.acquire().await;
    });
    // By itself.
    page.until(&format!("{LINES} === 8"));
    show(&mut page, "table");
    page.click_on("a", "What it does, and where");
    page.until("location.search.includes('sort=place')");
    page.click("document.querySelector('[name=q]')");
    page.type_text("invoice/");
    page.press("Enter");
    page.until(&format!("{LINES} === 4 && location.search.includes('sort=place')"));
    page.click_on("a", "/invoice/3");
    page.until("location.search.startsWith('?work=') && !!document.querySelector('.stack li.own')");
    assert!(page.text().contains("console::app::load_invoice"));
    show(&mut page, "work");
    page.assert_quiet();
}

/// Guards: places have their stacks, a deadlock is red, and text from outside is text.
#[test]
fn places_resources_and_threads_are_shown() {
    let app = App::start();
    app.fill();
    let Some(mut page) = page(&app) else { return };
    page.go("/?view=places");
    page.until("document.querySelectorAll('details').length >= 3 && !!document.querySelector('.stack li.own')");
    assert!(page.text().contains("Deadlock."));
    show(&mut page, "places");
    page.click_on("a", "Held and awaited");
    page.until("document.querySelectorAll('svg.graph .red').length >= 6");
    let red = page.cdp.eval("getComputedStyle(document.querySelector('svg.graph .arrow.red')).stroke");
    let ink = page.cdp.eval("getComputedStyle(document.querySelector('svg.graph .arrow:not(.red)')).stroke");
    assert_ne!(red, ink);
    show(&mut page, "resources");
    assert!(page.text().contains("<script>alert(1)</script>"), "as text");
    page.click_on("a", "Threads");
    page.until("document.querySelectorAll('details').length >= 3");
    page.assert_quiet();
}

/// Guards: a watchdog is switched off and on again by its buttons, and the page says who did it and for how long.
#[test]
fn a_watchdog_is_switched_by_its_buttons() {
    let app = App::start();
    let handle = app.layer.handle();
    heeler::watch_runtime("main", &app.driven.handle, app.reports.clone());
    let Some(mut page) = page(&app) else { return };
    page.go("/?view=switches");
    page.until("document.querySelectorAll('table button').length >= 5");
    page.click("[...document.querySelectorAll('table tr')].pop().querySelector('button')");
    page.until("document.body.innerText.includes('changed by')");
    assert!(!handle.is_enabled());
    show(&mut page, "switches");
    page.click_on("button", "As before");
    page.until("!document.body.innerText.includes('changed by')");
    assert!(handle.is_enabled());
    page.go("/?view=runtimes");
    page.until("document.querySelectorAll('svg.bars rect').length > 0");
    show(&mut page, "runtimes");
    page.assert_quiet();
}

/// Guards: on a phone nothing overflows the edge, in the dark, too.
#[test]
fn pages_fit_a_phone() {
    let app = App::start();
    app.fill();
    let Some(mut page) = page(&app) else { return };
    let phone = serde_json::json!({"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": true});
    page.cdp.command("Emulation.setDeviceMetricsOverride", phone);
    let dark = serde_json::json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    page.cdp.command("Emulation.setEmulatedMedia", dark);
    for view in ["in-flight", "places", "resources", "threads", "runtimes", "history", "switches"] {
        let query = &format!("/?view={view}");
        page.go(query);
        page.until("document.readyState === 'complete' && !!document.getElementById('sentence')");
        if view == "in-flight" {
            page.until(&format!("{LINES} === 7"));
        }
        show(&mut page, &format!("phone{}", query.replace(['/', '?', '='], "-")));
        assert_eq!(page.cdp.eval("document.scrollingElement.scrollWidth"), 390, "{query}");
    }
    let dark = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).every(part => part < 64)";
    assert_eq!(page.cdp.eval(dark), true);
    page.assert_quiet();
}

/// Guards: without a script, the table is there, and is loaded again by itself.
#[test]
fn the_table_works_without_script() {
    let app = App::start();
    app.fill();
    let Some(mut page) = page(&app) else { return };
    page.cdp.command("Emulation.setScriptExecutionDisabled", serde_json::json!({"value": true}));
    page.go("/");
    page.until(&format!("{LINES} === 7"));
    let gate = app.open.clone();
    app.request("/new", async move {
        let _ = gate.acquire().await;
    });
    page.until(&format!("{LINES} === 8"));
}
