//! The walk itself: ask, wait for the report, go on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::{join, try_join_all};
use heeler::Reports;
use heeler::profile::Profile;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use super::causes::{CAUSES, Cause, PROFILED, STOPPED, Visit};
use super::evidence::{Evidence, Finding};
use super::table;
use crate::log::Quiet;
use crate::settings::{Settings, Tool};
use crate::{Problem, WORKERS};

/// How long it may take to symbolize, write and find a report once its request is over. The first one of a process
/// reads the debug information of the whole program.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look for a report, or for a condition of the service.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Walks the tour and prints what it found. Returns `true` if every cause was found, and nothing else was reported.
pub(crate) async fn walk(settings: &Settings, address: SocketAddr, reports: &Reports) -> Result<bool, Problem> {
    let _quiet = Quiet::start();
    let begun = Instant::now();
    #[cfg(feature = "email")]
    let since = std::time::SystemTime::now();
    let guest = Guest {
        // One connection per request, so that one request cannot affect the connection of the next.
        http: Client::builder().no_proxy().pool_max_idle_per_host(0).build()?,
        address,
        threshold: settings.threshold,
        stuck_for: settings.stuck_for(),
        evidence: Evidence::collect(&settings.reports)?,
    };
    println!("a tour of {} causes, slow after {} ms:", CAUSES.len(), settings.threshold.as_millis());
    let mut slowest = guest.fast_pages().await?;
    let mut rows = Vec::new();
    let mut complaints = Vec::new();
    let mut found = 0;
    for (visit, cause) in (1..).zip(&CAUSES) {
        let (row, right) = guest.step(cause, visit, &mut complaints).await?;
        found += usize::from(right);
        rows.push(row);
    }
    let mut all_right = found == CAUSES.len();
    if settings.has(Tool::Timebox) {
        let (row, right) = guest.step(&STOPPED, CAUSES.len() + 1, &mut complaints).await?;
        all_right &= right;
        rows.push(row);
    }
    if settings.has(Tool::Profile) {
        let (row, right) = guest.profile(&settings.token.secret, &mut complaints).await?;
        all_right &= right;
        rows.push(row);
    }
    #[cfg(feature = "remote")]
    if settings.has(Tool::Profile) && settings.remote.is_some() {
        let (row, right) = guest.drawn_elsewhere(&settings.token.secret).await?;
        all_right &= right;
        rows.push(row);
    }
    slowest = slowest.max(guest.fast_pages().await?);

    if !reports.blocking_flush(PATIENCE) {
        complaints.push(format!("reports were still on their way after {} s", PATIENCE.as_secs()));
    }
    #[cfg(feature = "email")]
    let messages = {
        let messages = super::mail::messages(&settings.messages(), since)?;
        if messages.len() < CAUSES.len() {
            complaints.push(format!("{} messages about {} causes", messages.len(), CAUSES.len()));
        }
        messages
    };
    let unjust = guest.evidence.reports_of_fast_pages()?;
    println!();
    table::print(["endpoint", "verdict", "function", "file:line", "found"], &rows);
    println!();
    for complaint in &complaints {
        println!("{complaint}");
    }
    let fast = match unjust.as_slice() {
        [] => "no report".to_owned(),
        [first, ..] => format!("{} reports, the first of {first}", unjust.len()),
    };
    println!("{found} of {} causes found, fast pages: {fast}", CAUSES.len());
    let (took, slowest) = (begun.elapsed().as_secs_f64(), slowest.as_secs_f64() * 1e3);
    println!(
        "reports in {}; the tour took {took:.1} s, the slowest fast page {slowest:.1} ms",
        settings.reports.display()
    );
    #[cfg(feature = "email")]
    if let Some(message) = messages.last() {
        println!("{} messages, as they would be sent, the last in {}", messages.len(), message.display());
    }
    Ok(all_right && unjust.is_empty() && complaints.is_empty())
}

/// Returns whether the stack that ends at that node contains the function.
fn goes_through(profile: &Profile, stack: u32, function: &str) -> bool {
    let node = |at: u32| profile.nodes.get(at as usize);
    let mut nodes = std::iter::successors(node(stack), |one| node(one.parent?));
    nodes.any(|one| {
        let frame = profile.frames.get(one.frame as usize).and_then(|frame| frame.function.as_deref());
        frame.is_some_and(|name| name.split("::").any(|part| part == function))
    })
}

fn row(cause: &Cause, finding: Option<Finding>, right: bool) -> [String; 5] {
    let found = if right { "yes" } else { "NO" }.to_owned();
    match finding {
        Some(Finding { verdict, function, place, .. }) => [cause.path.to_owned(), verdict, function, place, found],
        None => [cause.path.to_owned(), "no report".to_owned(), String::new(), String::new(), found],
    }
}

/// Prints at once, although the line has not ended.
fn print_now(text: &str) {
    use std::io::Write as _;
    print!("{text}");
    // If the terminal is gone, the next print notices.
    let _ = std::io::stdout().flush();
}

/// The client that walks the tour.
struct Guest {
    http: Client,
    address: SocketAddr,
    threshold: Duration,
    stuck_for: Duration,
    evidence: Evidence,
}

impl Guest {
    /// Visits the page and finds the report. Returns what the table says about it, and whether that is right.
    async fn step(
        &self,
        cause: &Cause,
        visit: usize,
        complaints: &mut Vec<String>,
    ) -> Result<([String; 5], bool), Problem> {
        print_now(&format!("  {:17}  {} ... ", cause.path, cause.what));
        let (finding, asked) = join(self.finding(cause, visit), self.visit(cause, visit)).await;
        let (finding, took) = finding?;
        let right = finding.as_ref().is_some_and(|finding| finding.right) && asked.is_ok();
        println!("{}", if right { format!("found after {:.2} s", took.as_secs_f64()) } else { "not found".to_owned() });
        if let Err(problem) = asked {
            complaints.push(format!("{}: the request itself failed: {problem}", cause.path));
        }
        Ok((row(cause, finding, right), right))
    }

    /// Profiles the page, and checks where most of its time went. Nothing may be reported meanwhile.
    async fn profile(&self, token: &str, complaints: &mut Vec<String>) -> Result<([String; 5], bool), Problem> {
        print_now(&format!("  {:17}  {} ... ", PROFILED.path, PROFILED.what));
        let url = format!("http://{}{}?__geordi__=json", self.address, PROFILED.path);
        let request = self.http.get(url).bearer_auth(token).timeout(self.stuck_for * 4 + PATIENCE);
        let profile: Profile = serde_json::from_slice(&request.send().await?.error_for_status()?.bytes().await?)?;
        let slices = profile.slices.iter();
        let of_function = slices.filter(|slice| goes_through(&profile, slice.stack, PROFILED.function));
        let share = of_function.map(|slice| slice.nanos).sum::<u64>() as f64 * 100.0 / profile.wall_nanos as f64;
        let right = share > 50.0;
        let wall = Duration::from_nanos(profile.wall_nanos).as_secs_f64();
        println!("{share:.0} % of {wall:.2} s in {}", PROFILED.function);
        if !right {
            complaints.push(format!("{}: a profile has only {share:.0} % of the time there", PROFILED.path));
        }
        let finding = [PROFILED.path, "profiled", PROFILED.function, "", if right { "yes" } else { "NO" }];
        Ok((finding.map(str::to_owned), right))
    }

    /// Has a worker profile the page and draw it, as geordi did: the call graph as a PDF.
    #[cfg(feature = "remote")]
    async fn drawn_elsewhere(&self, token: &str) -> Result<([String; 5], bool), Problem> {
        print_now(&format!("  {:17}  its call graph as a PDF, from a worker ... ", PROFILED.path));
        let url = format!("http://{}{}?__geordi__=pdf", self.address, PROFILED.path);
        let request = self.http.get(url).bearer_auth(token).timeout(self.stuck_for * 4 + 3 * PATIENCE);
        let pdf = request.send().await?.error_for_status()?.bytes().await?;
        let right = pdf.starts_with(b"%PDF-");
        println!("{} bytes", pdf.len());
        let finding = [PROFILED.path, "drawn elsewhere", PROFILED.function, "", if right { "yes" } else { "NO" }];
        Ok((finding.map(str::to_owned), right))
    }

    /// Looks for the report about this visit until it is there and right, or the time is up.
    async fn finding(&self, cause: &Cause, visit: usize) -> Result<(Option<Finding>, Duration), Problem> {
        let begun = Instant::now();
        loop {
            let finding = self.evidence.finding(cause, visit)?;
            let right = finding.as_ref().is_some_and(|finding| finding.right);
            if right || begun.elapsed() > self.stuck_for * 2 + PATIENCE {
                return Ok((finding, begun.elapsed()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks for the page in the way that the cause describes. An answer that the cause does not explain is an error.
    async fn visit(&self, cause: &Cause, visit: usize) -> Result<(), Problem> {
        let path = format!("{}?tour={visit}", cause.path);
        if let Visit::IsStopped = cause.visit {
            return self.stopped(path).await;
        }
        let page = self.get(path);
        match cause.visit {
            Visit::Patient | Visit::IsStopped => page.await.map(drop),
            Visit::GivesUp => given_up(tokio::time::timeout(self.stuck_for + self.threshold, page).await),
            Visit::Leaves => given_up(tokio::time::timeout(self.threshold * 3 / 4, page).await),
            Visit::DuringImport => {
                let page = async {
                    self.until("imports").await?;
                    page.await
                };
                let (page, import) = join(page, self.get(format!("/slow/import?tour={visit}"))).await;
                page.and(import).map(drop)
            }
            Visit::AmongHogs => {
                let hogs = async {
                    // Otherwise the request to be starved would still be outside when the workers are held.
                    self.until("listeners").await?;
                    try_join_all((0..WORKERS).map(|_| self.get(format!("/slow/regex?tour={visit}")))).await
                };
                let (page, hogs) = join(page, hogs).await;
                page.and(hogs).map(drop)
            }
        }
    }

    /// Waits until the service's status counts at least one of these.
    async fn until(&self, what: &str) -> Result<(), Problem> {
        loop {
            let status: Value = serde_json::from_slice(&self.get("/status".to_owned()).await?)?;
            if status[what].as_u64() > Some(0) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN / 4).await;
        }
    }

    /// Asks for a slow page with less time than it needs to be slow, and shows the answer.
    async fn stopped(&self, path: String) -> Result<(), Problem> {
        let limit = (self.threshold / 2).as_millis();
        let url = format!("http://{}{path}&timebox={limit}", self.address);
        let response = self.http.get(url).timeout(PATIENCE).send().await?;
        let status = response.status();
        let problem: Value = serde_json::from_slice(&response.bytes().await?)?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        print_now(&format!("{status}: {detail} ... "));
        match (status, problem["status"].as_u64()) {
            (StatusCode::SERVICE_UNAVAILABLE, Some(503)) => Ok(()),
            _ => Err(format!("the answer was {status}, not a problem of 503").into()),
        }
    }

    /// Asks for pages that are never slow, several at a time. Returns how long the slowest took.
    async fn fast_pages(&self) -> Result<Duration, Problem> {
        let mut slowest = Duration::ZERO;
        for round in 0..25 {
            let users = (1..5).map(|user| format!("/users/{}/photos", round * 4 + user));
            let pages = users.chain((0..4).map(|_| "/".to_owned()));
            let times = try_join_all(pages.map(async |page| {
                let begun = Instant::now();
                self.get(page).await.map(|_| begun.elapsed())
            }));
            slowest = times.await?.into_iter().fold(slowest, Duration::max);
        }
        Ok(slowest)
    }

    /// Returns the whole response to a request that ends within reason.
    async fn get(&self, path: String) -> Result<Vec<u8>, Problem> {
        let url = format!("http://{}{path}", self.address);
        let response = self.http.get(url).timeout(self.stuck_for * 4 + PATIENCE).send().await?.error_for_status()?;
        Ok(response.bytes().await?.into())
    }
}

/// A client that gives up gets no answer, or what it asked for if that was faster.
fn given_up<T>(outcome: Result<Result<T, Problem>, tokio::time::error::Elapsed>) -> Result<(), Problem> {
    match outcome {
        Ok(answer) => answer.map(drop),
        Err(_) => Ok(()),
    }
}
