//! As much of the DevTools protocol as a test needs: commands and their answers, and what goes wrong in the pages.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// What an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection to a browser, for one page and the frames in it.
pub(crate) struct Cdp {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    /// The page's session.
    page: String,
    /// What scripts run in: by session and number. A frame without an origin may have a process, and so a session, of its own.
    contexts: BTreeSet<(String, u64)>,
    /// Every message to the console, exception, violation of a policy, and request to elsewhere.
    pub(crate) problems: Vec<String>,
    /// Where requests may go to.
    home: String,
    /// When all has to be over.
    pub(crate) deadline: Instant,
}

impl Cdp {
    /// Connects to the browser that keeps its things in `directory`, and opens an empty page.
    pub(crate) fn connect(directory: &Path, home: String, deadline: Instant) -> Self {
        let file = directory.join("DevToolsActivePort");
        let (port, path) = loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some((port, path)) = text.trim().split_once('\n') {
                break (port.to_owned(), path.to_owned());
            }
            assert!(Instant::now() < deadline, "the browser did not start");
            std::thread::sleep(Duration::from_millis(5));
        };
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        // Whole pictures come through here.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let request = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tungstenite::client::client_with_config(request, stream, Some(config)).unwrap();
        let (contexts, problems) = (BTreeSet::new(), Vec::new());
        let mut cdp = Self { socket, last_id: 0, page: String::new(), contexts, problems, home, deadline };
        let target = cdp.ask("", "Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = cdp.ask("", "Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        cdp.watch(&session);
        cdp.page = session;
        // What was sent before is done when this is.
        cdp.command("Page.getFrameTree", json!({}));
        cdp
    }

    /// A command to the page.
    #[track_caller]
    pub(crate) fn command(&mut self, method: &str, params: Value) -> Value {
        self.ask(&self.page.clone(), method, params)
    }

    /// A command to the browser itself.
    #[track_caller]
    pub(crate) fn browser(&mut self, method: &str, params: Value) -> Value {
        self.ask("", method, params)
    }

    /// What an expression is in the page.
    #[track_caller]
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        self.try_eval(None, expression).unwrap_or_else(|why| panic!("{expression}: {why}"))
    }

    /// What an expression is in the page, or in another context; or how it failed, which it does while pages change.
    pub(crate) fn try_eval(&mut self, context: Option<&Context>, expression: &str) -> Result<Value, String> {
        let mut params = json!({"expression": expression, "returnByValue": true});
        // Not always: where scripts are disabled, no promise ever comes true.
        params["awaitPromise"] = expression.starts_with("fetch(").into();
        let session = match context {
            Some(Context(session, id)) => {
                params["contextId"] = (*id).into();
                session.clone()
            }
            None => self.page.clone(),
        };
        let result = self.try_ask(&session, "Runtime.evaluate", params)?;
        match result.get("exceptionDetails") {
            Some(details) => Err(details["exception"]["description"].as_str().unwrap_or("thrown").to_owned()),
            None => Ok(result["result"]["value"].clone()),
        }
    }

    /// All that scripts run in.
    pub(crate) fn contexts(&self) -> Vec<Context> {
        self.contexts.iter().map(|(session, id)| Context(session.clone(), *id)).collect()
    }

    #[track_caller]
    fn ask(&mut self, session: &str, method: &str, params: Value) -> Value {
        self.try_ask(session, method, params).unwrap_or_else(|why| panic!("{method}: {why}"))
    }

    fn try_ask(&mut self, session: &str, method: &str, params: Value) -> Result<Value, String> {
        let id = self.send(session, method, params);
        let asked = Instant::now();
        loop {
            // What is asked of a page that is about to go may be forgotten.
            if asked.elapsed() > ANSWER || Instant::now() > self.deadline {
                return Err("no answer".to_owned());
            }
            let Some(mut message) = self.read() else { continue };
            if message["id"] == id {
                return match message.get("error") {
                    Some(error) => Err(error.to_string()),
                    None => Ok(message["result"].take()),
                };
            }
            self.event(&message);
        }
    }

    fn send(&mut self, session: &str, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if !session.is_empty() {
            message["sessionId"] = session.into();
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        self.last_id
    }

    /// The next message, if one comes within a second.
    fn read(&mut self) -> Option<Value> {
        match self.socket.read() {
            Ok(Message::Text(text)) => Some(serde_json::from_str(&text).unwrap()),
            Ok(_) => None,
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("the browser is gone: {error}"),
        }
    }

    /// Wants to hear of all that happens in a page or a frame. What it says before is said again.
    fn watch(&mut self, session: &str) {
        let attach = json!({"autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true});
        self.send(session, "Target.setAutoAttach", attach);
        for domain in ["Runtime", "Log", "Audits", "Network", "Page"] {
            self.send(session, &format!("{domain}.enable"), json!({}));
        }
        self.send(session, "Runtime.runIfWaitingForDebugger", json!({}));
    }

    fn event(&mut self, message: &Value) {
        let (session, params) = (message["sessionId"].as_str().unwrap_or_default(), &message["params"]);
        let key = |id: &Value| (session.to_owned(), id.as_u64().unwrap_or_default());
        match message["method"].as_str().unwrap_or_default() {
            "Target.attachedToTarget" => self.watch(params["sessionId"].as_str().unwrap()),
            "Target.detachedFromTarget" => {
                let gone = params["sessionId"].as_str().unwrap_or_default();
                self.contexts.retain(|(session, _)| session != gone);
            }
            "Runtime.executionContextCreated" => {
                self.contexts.insert(key(&params["context"]["id"]));
            }
            "Runtime.executionContextDestroyed" => {
                self.contexts.remove(&key(&params["executionContextId"]));
            }
            "Runtime.executionContextsCleared" => self.contexts.retain(|(of, _)| of != session),
            "Runtime.consoleAPICalled" => self.problem("console", &params["args"]),
            "Runtime.exceptionThrown" => self.problem("exception", &params["exceptionDetails"]),
            "Log.entryAdded" => self.problem("log", &params["entry"]),
            "Audits.issueAdded" if params["issue"]["code"] == "ContentSecurityPolicyIssue" => {
                self.problem("policy", &params["issue"]["details"]);
            }
            "Page.javascriptDialogOpening" => self.problem("dialog", params),
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                if !url.starts_with(&self.home) && !url.starts_with("data:") {
                    self.problem("request to elsewhere", &params["request"]["url"].clone());
                }
            }
            _ => {}
        }
    }

    fn problem(&mut self, kind: &str, what: &Value) {
        self.problems.push(format!("{kind}: {what}"));
    }
}

/// What a script runs in.
#[derive(Debug, Clone)]
pub(crate) struct Context(String, u64);
