//! A page in a browser, used as a person uses it: by mouse and keyboard.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cdp::{Cdp, Context};
use crate::common::chromium::Chromium;

/// What one test may take, a browser's first start on a busy machine included.
const PATIENCE: Duration = Duration::from_secs(240);

/// When a click that has changed nothing is repeated.
const CLICK_AGAIN: Duration = Duration::from_secs(3);

/// One browser at a time: two that share a small machine are slow.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) struct Page {
    pub(crate) cdp: Cdp,
    home: String,
    directory: TempDir,
    _chromium: Chromium,
    _alone: MutexGuard<'static, ()>,
}

impl Page {
    /// An empty page of a browser that has the cookie; `None` without a browser. `home` is where the server is.
    pub(crate) fn new(home: &str, cookie: (&str, &str)) -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let chromium = Chromium::start(directory.path(), (1280, 1000), "about:blank")?;
        let mut cdp = Cdp::connect(directory.path(), home.to_owned(), Instant::now() + PATIENCE);
        let cookie = json!({"name": cookie.0, "value": cookie.1, "url": home, "httpOnly": true, "sameSite": "Strict"});
        cdp.command("Network.setCookie", cookie);
        let page = Self { cdp, home: home.to_owned(), directory, _chromium: chromium, _alone: alone };
        std::fs::create_dir(page.downloads()).unwrap();
        Some(page)
    }

    /// Goes there as somebody does who types it.
    #[track_caller]
    pub(crate) fn go(&mut self, path: &str) {
        let url = format!("{}{path}", self.home);
        let went = self.cdp.command("Page.navigate", json!({"url": url, "transitionType": "typed"}));
        assert_eq!(went.get("errorText"), None, "{path}");
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        self.until_in(None, expression);
    }

    /// The same in a frame.
    #[track_caller]
    pub(crate) fn until_in(&mut self, frame: Option<&Context>, expression: &str) {
        if self.comes_true(frame, expression, self.cdp.deadline) {
            return;
        }
        let text = self.cdp.try_eval(None, "location.href + '\\n' + document.body.innerText");
        panic!("timed out waiting until {expression} on {text:?}, problems: {:#?}", self.cdp.problems);
    }

    /// Whether an expression is true before then.
    fn comes_true(&mut self, frame: Option<&Context>, expression: &str, before: Instant) -> bool {
        while Instant::now() < before {
            if self.cdp.try_eval(frame, expression) == Ok(Value::Bool(true)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// What an expression is in a frame.
    #[track_caller]
    pub(crate) fn eval_in(&mut self, frame: &Context, expression: &str) -> Value {
        self.cdp.try_eval(Some(frame), expression).unwrap_or_else(|why| panic!("{expression}: {why}"))
    }

    /// The text of the whole page.
    #[track_caller]
    pub(crate) fn text(&mut self) -> String {
        self.cdp.eval("document.body.innerText").as_str().unwrap().to_owned()
    }

    /// Clicks in the middle of the element that an expression of the page is.
    #[track_caller]
    pub(crate) fn click(&mut self, element: &str) {
        let middle = format!(
            "(() => {{ const e = {element}; if (!e) return null; e.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        // Until it is there and stays where it is: a page that is new is not laid out at once.
        let (mut at, mut times) = (Value::Null, 0);
        while times < 3 {
            assert!(Instant::now() < self.cdp.deadline, "{element} is not there, or moves");
            let now = self.cdp.try_eval(None, &middle).unwrap_or_default();
            times = if now == at && !now.is_null() { times + 1 } else { 0 };
            at = now;
            std::thread::sleep(Duration::from_millis(20));
        }
        self.click_at(at[0].as_f64().unwrap(), at[1].as_f64().unwrap());
    }

    /// Clicks a link or a button that says that.
    #[track_caller]
    pub(crate) fn click_on(&mut self, kind: &str, text: &str) {
        let all = format!("[...document.querySelectorAll('{kind}')].filter(e => e.checkVisibility())");
        let element = format!("{all}.find(e => e.textContent.includes({}))", json!(text));
        self.until(&format!("!!{element}"));
        self.click(&element);
    }

    /// Clicks in a frame, near the left end of the element that an expression of the frame is, until another expression of
    /// the frame is true. A busy browser that has not drawn the frame yet does not know where a click belongs, and drops it;
    /// then a person clicks again.
    #[track_caller]
    pub(crate) fn click_in(&mut self, frame: &Context, element: &str, done: &str) {
        loop {
            let of_frame =
                self.cdp.eval("(() => { const r = visible().getBoundingClientRect(); return [r.x, r.y]; })()");
            let at = self.eval_in(
                frame,
                &format!(
                    "(() => {{ const r = {element}.getBoundingClientRect(); return [r.x + 3, r.y + r.height / 2]; }})()"
                ),
            );
            let sum = |axis: usize| of_frame[axis].as_f64().unwrap() + at[axis].as_f64().unwrap();
            self.click_at(sum(0), sum(1));
            if self.comes_true(Some(frame), done, self.cdp.deadline.min(Instant::now() + CLICK_AGAIN)) {
                return;
            }
            assert!(Instant::now() < self.cdp.deadline, "a click on {element} does not lead to {done}");
        }
    }

    fn click_at(&mut self, x: f64, y: f64) {
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": 1});
            self.cdp.command("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => unreachable!("{key} has no code here"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            // What sends a form.
            if key == "Enter" && kind == "keyDown" {
                event["text"] = "\r".into();
            }
            self.cdp.command("Input.dispatchKeyEvent", event);
        }
    }

    /// Types a text.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.cdp.command("Input.insertText", json!({"text": text}));
    }

    /// The frame of the picture that is shown, when it is laid out.
    #[track_caller]
    pub(crate) fn picture(&mut self) -> Context {
        self.cdp.eval(
            "window.visible = () => [...document.querySelectorAll('iframe')].find(f => f.checkVisibility()), \
             visible().scrollIntoView({block: 'center', behavior: 'instant'})",
        );
        loop {
            assert!(Instant::now() < self.cdp.deadline, "no picture was laid out, problems: {:#?}", self.cdp.problems);
            let ready =
                "!!document.getElementById('frames') && innerWidth > 0 && !document.getElementById('bar').hidden";
            for context in self.cdp.contexts() {
                if self.cdp.try_eval(Some(&context), ready) == Ok(Value::Bool(true)) {
                    return context;
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where downloads go.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.directory.path().join("downloads")
    }

    /// Waits for a download. Its name and what is in it.
    #[track_caller]
    pub(crate) fn download(&mut self, click: impl FnOnce(&mut Self)) -> (String, Vec<u8>) {
        let path = self.downloads();
        self.cdp.browser("Browser.setDownloadBehavior", json!({"behavior": "allow", "downloadPath": path}));
        click(self);
        loop {
            assert!(Instant::now() < self.cdp.deadline, "nothing was downloaded, problems: {:#?}", self.cdp.problems);
            for entry in std::fs::read_dir(&path).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                if name.starts_with("profile-") && !name.ends_with(".crdownload") {
                    return (name, std::fs::read(entry.path()).unwrap());
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails if anything went wrong in any page so far.
    #[track_caller]
    pub(crate) fn assert_quiet(&mut self) {
        // Whatever was said before this is answered has been heard.
        self.cdp.eval("0");
        assert!(self.cdp.problems.is_empty(), "{:#?}", self.cdp.problems);
    }
}
