//! A photo-organising service with thirteen ways to be slow, and heeler watching it.
//!
//! ```text
//! cargo run --release -p photos            # seed, serve, walk the tour, print a table, go on serving
//! cargo run --release -p photos -- --tour  # exit after the tour: 0 only if every cause was found
//! cargo run --release -p photos -- --serve # no tour; open http://127.0.0.1:3000 and click
//! cargo run --release -p photos --features remote -- --worker # make profiles for other instances: see --help
//! ```
//!
//! `--full` seeds 100,000 users and 1,000,000 photos instead of 10,000 and 100,000. The database is SQLite in a
//! temporary directory, gone when the program ends. Nothing outside this process is needed: the slow upstream is
//! embedded too.
//!
//! | variable | default | |
//! |---|---|---|
//! | `PHOTOS_ADDR` | `127.0.0.1:3000` | where to serve |
//! | `PHOTOS_REPORTS` | `target/photos` | the directory that reports go to |
//! | `PHOTOS_THRESHOLD_MS` | `250` | a request is slow after that long; slow pages last about five times as long |
//! | `PHOTOS_LAYERS` | `watchdog,timebox,profile` | heeler's tools to use, separated by commas, or `none` |
//! | `PHOTOS_CONSOLE` | `127.0.0.1:3001` | where to show what is in flight |
//! | `PHOTOS_ADMIN_TOKEN` | made up and printed | callers with this token may profile requests and look at what is in flight |
//!
//! Add `?timebox=100` to a slow page, and it is stopped after 100 ms, with a 503 and a report of where it was. Add
//! `?__geordi__` with the token, and you see where it spends its time.
//!
//! `layers.rs` is all that heeler needs in a service. `slow/` has the guilty functions. Everything else is the service
//! around them, and `tour/`, a client that asks for every slow page and checks its report.

mod app;
mod calibrate;
mod layers;
mod log;
mod seed;
mod settings;
mod slow;
mod tour;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use heeler::Reports;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use crate::app::App;
use crate::settings::{Mode, Settings, Tool};

/// An error on its way to the terminal or into a response. Nobody here distinguishes kinds of errors.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// The service's worker threads: few and fixed, so that the tour can hold every one of them ("/slow/starved").
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let settings = match Settings::read() {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            print!("{}", settings::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => return fail(problem.as_ref()),
    };
    log::start();
    match run(settings) {
        Ok(code) => code,
        Err(problem) => fail(problem.as_ref()),
    }
}

/// Says what went wrong, with every cause underneath.
fn fail(problem: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprint!("photos: {problem}");
    let mut cause = problem.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::from(2)
}

fn run(settings: Settings) -> Result<ExitCode, Problem> {
    let folder = tempfile::Builder::new().prefix("photos-").tempdir()?;
    let service = Builder::new_multi_thread().worker_threads(WORKERS).thread_name("photos").enable_all().build()?;
    // The tour is another program in all but name. It has a runtime and a thread (this one) to itself, because it must
    // go on when every worker of the service is held.
    let client = Builder::new_current_thread().enable_all().build()?;

    let outcome = client.block_on(async {
        tokio::select! {
            biased;
            () = stopped(), if settings.mode != Mode::Worker => Ok(if settings.mode == Mode::Tour { ExitCode::FAILURE } else { ExitCode::SUCCESS }),
            outcome = work(&settings, service.handle(), folder.path().into()), if settings.mode == Mode::Worker => outcome,
            outcome = serve(&settings, service.handle(), folder.path().into()), if settings.mode != Mode::Worker => outcome,
        }
    });
    // Not dropped, because that would wait for threads that are still busy being slow.
    service.shutdown_background();
    outcome
}

/// Starts the service, walks the tour, and goes on serving, depending on the mode.
async fn serve(settings: &Settings, service: &Handle, folder: PathBuf) -> Result<ExitCode, Problem> {
    let running = service.spawn(start(settings.clone(), folder)).await??;
    if settings.mode != Mode::Serve {
        match &running.reports {
            Some(reports) if settings.has(Tool::Watchdog) => {
                let complete = tour::walk(settings, running.address, reports).await?;
                show_console(&running, settings);
                if settings.mode == Mode::Tour {
                    return Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE });
                }
            }
            _ => {
                eprintln!("photos: no tour: without the watchdog in PHOTOS_LAYERS nobody reports what is slow");
                if settings.mode == Mode::Tour {
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    }
    println!("serving on http://{} until Ctrl-C", running.address);
    if settings.mode == Mode::Serve {
        show_console(&running, settings);
    }
    if settings.has(Tool::Profile) && settings.token.made_up {
        println!(
            "to profile a page: open http://{0}/admin/{1} once, then add ?__geordi__ to any URL; or\n  \
             curl -H 'Authorization: Bearer {1}' 'http://{0}/slow/queries?__geordi__' > queries.svg",
            running.address, settings.token.secret
        );
    }
    running.server.await??;
    Ok(ExitCode::SUCCESS)
}

/// Makes profiles of what other instances are asked for, with the same service as they have.
#[cfg(feature = "remote")]
async fn work(settings: &Settings, service: &Handle, folder: PathBuf) -> Result<ExitCode, Problem> {
    let Some(remote) = settings.remote.clone() else { return Err("a worker needs PHOTOS_QUEUE: see --help".into()) };
    if settings.token.made_up {
        return Err("a worker needs the PHOTOS_ADMIN_TOKEN of the other instances, which it asks for, too".into());
    }
    if !settings.has(Tool::Profile) {
        return Err("a worker needs `profile` in PHOTOS_LAYERS".into());
    }
    let settings = settings.clone();
    let worker = service.spawn(async move {
        let library = seed::create(&folder, settings.users, settings.photos).await?;
        let (router, _reports) = layers::apply(app::router(App::start(library, &settings).await?), &settings)?;
        println!("a worker waits for requests");
        // What runs is brought to its end first.
        Ok::<(), Problem>(heeler::profile::remote::Worker::new(remote).serve_until(router, stopped()).await?)
    });
    worker.await??;
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "remote"))]
async fn work(_: &Settings, _: &Handle, _: PathBuf) -> Result<ExitCode, Problem> {
    Err("this program is built without the feature remote".into())
}

/// Says where to look at what is in flight.
fn show_console(running: &Running, settings: &Settings) {
    let Some(console) = running.console else { return };
    println!("what is in flight, while it is: http://{console}/");
    if settings.token.made_up {
        println!(
            "  open http://{}/admin/{} once, for the browser to have the token",
            running.address, settings.token.secret
        );
    }
}

struct Running {
    address: SocketAddr,
    console: Option<SocketAddr>,
    reports: Option<Reports>,
    server: JoinHandle<io::Result<()>>,
}

/// Runs on the service's runtime, like its sockets and connections from then on.
async fn start(settings: Settings, folder: PathBuf) -> Result<Running, Problem> {
    // Before the seeding, so that nobody waits for it only to hear that the port is taken.
    let listener = bind(&settings).await?;
    let address = listener.local_addr()?;

    let begun = Instant::now();
    let library = seed::create(&folder, settings.users, settings.photos).await?;
    let (users, photos, took) = (settings.users, settings.photos, begun.elapsed().as_secs_f64());
    println!("seeded {users} users and {photos} photos in {took:.1} s");

    let app = App::start(library, &settings).await?;
    let (router, reports) = layers::apply(app::router(app), &settings)?;
    let console = reports.as_ref().map(|reports| layers::console(reports, &settings)).transpose()?;
    let server = tokio::spawn(async { axum::serve(listener, router).await });
    Ok(Running { address, console, reports, server })
}

/// Binds the requested address. The tour does not need the default one, so it uses another if that is taken.
async fn bind(settings: &Settings) -> Result<TcpListener, Problem> {
    let wanted = settings.address.unwrap_or(settings::DEFAULT_ADDRESS);
    match TcpListener::bind(wanted).await {
        Ok(listener) => Ok(listener),
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && settings.address.is_none()
                && settings.mode != Mode::Serve =>
        {
            let listener = TcpListener::bind((wanted.ip(), 0)).await?;
            println!("{wanted} is taken (and PHOTOS_ADDR not set): using {} instead", listener.local_addr()?);
            Ok(listener)
        }
        Err(error) => Err(format!("cannot serve on {wanted}: {error}; set PHOTOS_ADDR to another address").into()),
    }
}

/// Completes on Ctrl-C or SIGTERM. The program then ends by itself, which removes the temporary directory.
async fn stopped() {
    #[cfg(unix)]
    if let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        return;
    }
    // If no handler can be installed, the default action ends the program.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
