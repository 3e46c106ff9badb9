//! A mail server for tests, on a thread and a runtime of its own: `mailin` speaks SMTP, the rest is sockets and mischief.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mail_parser::{Message, MessageParser};
use mailin::{Action, AuthMechanism, Handler, Response, SessionBuilder, response};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::common::PATIENCE;

pub(crate) const USER: &str = "watchdog";
pub(crate) const PASSWORD: &str = "hunter2 & söns";

/// How the server is to behave.
pub(crate) struct Rules {
    pub(crate) starttls: bool,
    pub(crate) implicit_tls: bool,
    pub(crate) auth: Option<AuthMechanism>,
    /// Accepts connections, and says nothing.
    pub(crate) silent: bool,
    /// How long each answer takes.
    pub(crate) delay: Duration,
    /// The answer to a recipient; the number counts all recipients of the server's life from 0.
    pub(crate) rcpt: fn(&str, usize) -> Option<Response>,
    /// The answer to a whole mail for these recipients; the number counts them from 0.
    pub(crate) mail: fn(&[String], usize) -> Option<Response>,
    /// So many connections are reset while they send a mail.
    pub(crate) resets: usize,
    /// A connection is closed after so many mails, without a word.
    pub(crate) mails_a_connection: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            starttls: false,
            implicit_tls: false,
            auth: None,
            silent: false,
            delay: Duration::ZERO,
            rcpt: |_, _| None,
            mail: |_, _| None,
            resets: 0,
            mails_a_connection: usize::MAX,
        }
    }
}

/// A mail that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) encrypted: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Received {
    pub(crate) fn parse(&self) -> Message<'_> {
        MessageParser::default().parse(&self.bytes).expect("it is a mail")
    }
}

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) mails: Vec<Received>,
    pub(crate) connections: usize,
    pub(crate) recipients: usize,
    /// Whole mails that were sent, taken or not.
    pub(crate) sent: usize,
    pub(crate) resets: usize,
    /// User and password of each login.
    pub(crate) logins: Vec<(String, String)>,
    /// Every line of a client, but those of mails.
    pub(crate) lines: Vec<String>,
}

struct State {
    rules: Rules,
    tls: Option<TlsAcceptor>,
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl State {
    fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let changed = change(&mut self.seen.lock().unwrap());
        self.changed.notify_all();
        changed
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The certificate to trust.
    pub(crate) root: String,
    state: Arc<State>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn start(rules: Rules) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let tls = (rules.starttls || rules.implicit_tls).then(|| {
            let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
            let config =
                ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
            TlsAcceptor::from(Arc::new(config))
        });
        let state = Arc::new(State { rules, tls, seen: Mutex::default(), changed: Condvar::new() });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = super::common::runtime(0);
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let serve = async {
                    loop {
                        let (stream, peer) = listener.accept().await.unwrap();
                        tokio::spawn(serve(Arc::clone(&shared), stream, peer.ip()));
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), root: cert.pem(), state, _stop: stop }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.state.seen.lock().unwrap())
    }

    /// Waits until something has happened.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Seen) -> bool) {
        let start = Instant::now();
        let mut seen = self.state.seen.lock().unwrap();
        while !holds(&seen) {
            let Some(left) = PATIENCE.checked_sub(start.elapsed()) else { panic!("timed out waiting for {what}") };
            seen = self.state.changed.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// The first so many mails.
    #[track_caller]
    pub(crate) fn mails(&self, number: usize) -> Vec<Received> {
        self.wait("mails", |seen| seen.mails.len() >= number);
        self.look(|seen| seen.mails.clone())
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The number so far; one more from now on.
fn count(number: &mut usize) -> usize {
    *number += 1;
    *number - 1
}

async fn serve(state: Arc<State>, stream: TcpStream, peer: IpAddr) {
    state.change(|seen| seen.connections += 1);
    if state.rules.silent {
        let mut lines = BufReader::new(stream).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            state.change(|seen| seen.lines.push(String::from_utf8_lossy(&line).into_owned()));
        }
        return;
    }
    stream.set_zero_linger().unwrap();
    let stream: Box<dyn Stream> = match &state.tls {
        Some(tls) if state.rules.implicit_tls => match tls.accept(stream).await {
            Ok(stream) => Box::new(stream),
            Err(_) => return,
        },
        _ => Box::new(stream),
    };
    // How it ends is the client's business.
    let _ = converse(&state, stream, peer).await;
}

async fn converse(state: &Arc<State>, stream: Box<dyn Stream>, peer: IpAddr) -> io::Result<()> {
    let mut builder = SessionBuilder::new("mail.example.com");
    if state.rules.starttls {
        builder.enable_start_tls();
    }
    if let Some(mechanism) = &state.rules.auth {
        builder.enable_auth(mechanism.clone());
        if state.tls.is_none() {
            builder.insecure_enable_plaintext_auth();
        }
    }
    let mails = Arc::new(Mutex::new(0));
    let encrypted = Arc::new(Mutex::new(state.rules.implicit_tls));
    let talk = Talk {
        state: Arc::clone(state),
        from: String::new(),
        to: Vec::new(),
        data: Vec::new(),
        mails: Arc::clone(&mails),
        encrypted: Arc::clone(&encrypted),
    };
    let mut session = builder.build(peer, talk);
    if state.rules.implicit_tls {
        session.tls_active();
    }
    let mut stream = BufReader::new(stream);
    stream.write_all(&session.greeting().buffer()?).await?;
    let (mut line, mut in_data) = (Vec::new(), 0);
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let response = session.process(&line);
        if response.action == Action::NoReply {
            in_data += 1;
            if in_data == 5 && state.change(|seen| count(&mut seen.resets)) < state.rules.resets {
                // Without lingering: the client sees a reset.
                return Ok(());
            }
            continue;
        }
        if in_data == 0 {
            state.change(|seen| seen.lines.push(String::from_utf8_lossy(&line).trim_end().to_owned()));
        }
        in_data = 0;
        tokio::time::sleep(state.rules.delay).await;
        stream.write_all(&response.buffer()?).await?;
        stream.flush().await?;
        match response.action {
            Action::Close => return Ok(()),
            Action::UpgradeTls => {
                let tls = state.tls.clone().expect("STARTTLS is offered only with a certificate");
                let inner: Box<dyn Stream> = Box::new(tls.accept(stream.into_inner()).await?);
                stream = BufReader::new(inner);
                session.tls_active();
                *encrypted.lock().unwrap() = true;
            }
            Action::Reply | Action::NoReply => {}
        }
        if *mails.lock().unwrap() >= state.rules.mails_a_connection {
            return Ok(());
        }
    }
}

/// One connection's side of `mailin`.
struct Talk {
    state: Arc<State>,
    from: String,
    to: Vec<String>,
    data: Vec<u8>,
    mails: Arc<Mutex<usize>>,
    encrypted: Arc<Mutex<bool>>,
}

impl Talk {
    fn log_in(&self, user: &str, password: &str) -> Response {
        self.state.change(|seen| seen.logins.push((user.to_owned(), password.to_owned())));
        if (user, password) == (USER, PASSWORD) {
            return response::AUTH_OK;
        }
        // A server that says too much.
        Response::custom(535, format!("5.7.8 no such user, or not {password}"))
    }
}

impl Handler for Talk {
    fn mail(&mut self, _: IpAddr, _: &str, from: &str) -> Response {
        (self.from, self.to) = (from.to_owned(), Vec::new());
        response::OK
    }

    fn rcpt(&mut self, to: &str) -> Response {
        let number = self.state.change(|seen| count(&mut seen.recipients));
        if let Some(refusal) = (self.state.rules.rcpt)(to, number) {
            return refusal;
        }
        self.to.push(to.to_owned());
        response::OK
    }

    fn data_start(&mut self, _: &str, _: &str, _: bool, _: &[String]) -> Response {
        self.data.clear();
        response::START_DATA
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.data.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let (from, to) = (self.from.clone(), std::mem::take(&mut self.to));
        let number = self.state.change(|seen| count(&mut seen.sent));
        if let Some(mut refusal) = (self.state.rules.mail)(&to, number) {
            // For `mailin`, an error here means that the mail goes on.
            refusal.is_error = false;
            return refusal;
        }
        let encrypted = *self.encrypted.lock().unwrap();
        let bytes = std::mem::take(&mut self.data);
        *self.mails.lock().unwrap() += 1;
        self.state.change(|seen| seen.mails.push(Received { from, to, encrypted, bytes }));
        response::OK
    }

    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        self.log_in(user, password)
    }

    fn auth_login(&mut self, user: &str, password: &str) -> Response {
        self.log_in(user, password)
    }
}
