//! What the benchmarks share: arguments, races, result lines, and what `/proc` says.
//!
//! Every benchmark prints lines `name: figure`, and `name: figure (goal <= limit)` where there is a goal. None fails
//! because of a figure: a busy machine must not break a build.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Whether the program was started with `flag`. `cargo bench` adds `--bench`, which means nothing here.
pub(crate) fn has(flag: &str) -> bool {
    std::env::args().skip(1).any(|argument| argument == flag)
}

/// What follows `flag`.
pub(crate) fn after(flag: &str) -> Option<Vec<String>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let position = arguments.iter().position(|argument| argument == flag)?;
    Some(arguments[position + 1..].iter().filter(|argument| *argument != "--bench").cloned().collect())
}

/// `--quick`: a rough look, in less than a minute.
pub(crate) fn quick() -> bool {
    has("--quick")
}

/// One or the other, by `--quick`.
pub(crate) fn pick<T>(full: T, quick: T) -> T {
    if has("--quick") { quick } else { full }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(quick().then_some("--quick")).args(arguments);
    command
}

/// Runs this program again, in a process of its own.
pub(crate) fn again(arguments: &[&str]) {
    match command(arguments).status() {
        Ok(status) if status.success() => {}
        Ok(status) => println!("{}: {status}", arguments.join(" ")),
        Err(error) => println!("{}: {error}", arguments.join(" ")),
    }
}

/// The numbers that this program prints when it is run again, with an environment variable set or removed.
pub(crate) fn output(arguments: &[&str], variable: Option<(&str, Option<&str>)>) -> Option<Vec<f64>> {
    let mut command = command(arguments);
    match variable {
        Some((name, Some(value))) => command.env(name, value),
        Some((name, None)) => command.env_remove(name),
        None => &mut command,
    };
    let output = command.stderr(Stdio::inherit()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().filter_map(|line| line.parse().ok()).collect())
}

/// A figure with the limit it should stay below.
pub(crate) fn at_most(name: &str, figure: f64, goal: f64) {
    println!("{name}: {} (goal <= {goal})", short(figure));
}

/// A figure with the limit it should stay above.
pub(crate) fn at_least(name: &str, figure: f64, goal: f64) {
    println!("{name}: {} (goal >= {goal})", short(figure));
}

/// A figure without a goal.
pub(crate) fn plain(name: &str, figure: f64, unit: &str) {
    println!("{name}: {} {unit}", short(figure));
}

fn short(figure: f64) -> String {
    match figure.abs() {
        big if big >= 100.0 => format!("{figure:.0}"),
        0.0 => "0".to_owned(),
        medium if medium >= 10.0 => format!("{figure:.1}"),
        small if small >= 0.1 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}

/// The value that `share` of the sorted values are below.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// Something that can be repeated a number of times.
pub(crate) type Contender<'a> = Box<dyn FnMut(u64) + 'a>;

/// Runs the contenders in turn, A B C A B C .., `rounds` times `n` repetitions each, and returns nanoseconds a repetition
/// of all rounds, one list a contender.
pub(crate) fn race(rounds: usize, n: u64, contenders: &mut [Contender<'_>]) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for contender in contenders.iter_mut() {
        contender(n);
    }
    for _ in 0..rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let start = Instant::now();
            contender(n);
            times.push(nanos(start.elapsed()) / n as f64);
        }
    }
    times
}

/// The mean of the fastest tenth. Everything that disturbs a loop of plain computation (another process, an interrupt, a
/// lower clock) makes it slower, nothing makes it faster; ten per cent instead of the one best round, so that no single
/// misread clock counts.
pub(crate) fn undisturbed(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let best = &times[..times.len().div_ceil(10)];
    best.iter().sum::<f64>() / best.len() as f64
}

pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// A line of `/proc/self/status` or of a thread's, as a number.
pub(crate) fn status(path: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> u64 {
    status("/proc/self/status", "VmRSS:").unwrap_or(0) * 1024
}

/// The directory in `/proc` of this process's thread of that name.
pub(crate) fn thread(name: &str) -> Option<String> {
    threads_where(|comm| comm == kept(name)).pop()
}

/// Of the thread of that name, and of those named `name/..`.
pub(crate) fn threads(name: &str) -> Vec<String> {
    threads_where(|comm| comm == kept(name) || comm.split_once('/').is_some_and(|(first, _)| first == name))
}

/// The kernel keeps fifteen characters of a thread's name.
fn kept(name: &str) -> &str {
    &name[..name.len().min(15)]
}

fn threads_where(holds: impl Fn(&str) -> bool) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
    let named = tasks.filter_map(|task| Some((std::fs::read_to_string(task.path().join("comm")).ok()?, task.path())));
    named.filter(|(comm, _)| holds(comm.trim_end())).map(|(_, path)| path.to_string_lossy().into_owned()).collect()
}

/// How long the thread with that directory in `/proc` has been on a processor.
pub(crate) fn nanos_on_cpu(thread: &str) -> u64 {
    let schedule = std::fs::read_to_string(format!("{thread}/schedstat")).unwrap_or_default();
    schedule.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}
