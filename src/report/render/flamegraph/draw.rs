//! The tree as SVG. inferno lays it out; what the boxes say is put in afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Direction, Options};

use super::super::units::{count, duration, place};
use super::label;
use super::tree::{Node, tree};
use crate::report::Report;
use crate::report::time::timestamp;

/// The most characters of the title and of the line below it.
const MAX_TITLE: usize = 90;
const MAX_SUBTITLE: usize = 150;

/// Between a box's label and what heeler wants to know of it after inferno has laid it out. Labels are free of control
/// characters.
const MARK: char = '\u{1}';

/// Stands for `;`, which parts the frames of a folded stack.
const SEMICOLON: char = '\u{2}';

impl Report {
    /// The report as a flamegraph: an SVG that shows in one look where the time went.
    #[must_use]
    pub fn to_svg(&self) -> String {
        or_apology(self, || draw(self))
    }
}

/// What `draw` returns, or a picture that says that there is none: no report is lost for the sake of its picture.
fn or_apology(report: &Report, draw: impl FnOnce() -> Option<String>) -> String {
    catch_unwind(AssertUnwindSafe(draw)).ok().flatten().unwrap_or_else(|| {
        let title = xml(&label::safe(&format!("{}: no flamegraph could be drawn", report.id), MAX_TITLE));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"60\">\
             <text x=\"20\" y=\"36\" font-family=\"monospace\" font-size=\"14\">{title}</text></svg>\n"
        )
    })
}

fn draw(report: &Report) -> Option<String> {
    let tree = tree(report);
    let mut colors = PaletteMap::default();
    let mut lines = Vec::new();
    for node in &tree.children {
        fold(node, "", &mut colors, &mut lines);
    }
    if tree.width == 0 {
        lines = vec![format!("no time was recorded{MARK}0| 1")];
        colors.insert(format!("no time was recorded{MARK}0|"), Color { r: 0xc8, g: 0xc8, b: 0xc8 });
    }
    // inferno's flame charts keep the order of the lines, but from the last to the first.
    lines.reverse();
    let mut options = Options::default();
    options.title = title(report);
    options.subtitle = Some(subtitle(report));
    options.flame_chart = true;
    options.direction = Direction::Inverted;
    options.bgcolors = Some(BackgroundColor::Flat(Color { r: 255, g: 255, b: 255 }));
    options.frame_height = 18;
    options.min_width = 0.0;
    options.count_name = "us".to_owned();
    options.name_type = "In".to_owned();
    options.palette_map = Some(&mut colors);
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg).ok()?;
    Some(relabel(&String::from_utf8(svg).ok()?, tree.width))
}

/// One line for each share of time: boxes from the root on, and microseconds.
fn fold(node: &Node, below: &str, colors: &mut PaletteMap, lines: &mut Vec<String>) {
    let waits = node.state.unit().filter(|_| node.waits > 0).map(|unit| count(node.waits, unit));
    let remarks = [waits.unwrap_or_default(), node.remark.to_owned()];
    let remarks: Vec<String> = remarks.into_iter().filter(|remark| !remark.is_empty()).collect();
    let label = node.label.replace(';', &SEMICOLON.to_string());
    let name = format!("{label}{MARK}{}|{}", node.time, remarks.join(", "));
    colors.insert(&name, node.state.color(node.own));
    let path = if below.is_empty() { name } else { format!("{below};{name}") };
    let mut rest = node.width;
    for child in &node.children {
        fold(child, &path, colors, lines);
        rest = rest.saturating_sub(child.width);
    }
    if rest > 0 {
        lines.push(format!("{path} {rest}"));
    }
}

/// Puts durations, shares and remarks where inferno wrote numbers.
fn relabel(svg: &str, whole: u64) -> String {
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some((before, after)) = rest.split_once(MARK) {
        out.push_str(before);
        let end = after.find('<').unwrap_or(after.len());
        let (mark, tail) = after.split_at(end);
        if tail.starts_with("</title>") {
            let (time, remarks) = mark.split_once('|').unwrap_or((mark, ""));
            let remarks = remarks.rsplit_once(" (").map_or(remarks, |(remarks, _)| remarks);
            out.push_str(&figures(time.parse().unwrap_or(0), whole, remarks));
        }
        rest = tail;
    }
    out.push_str(rest);
    // The box of the whole is the last.
    if let Some((before, after)) = out.rsplit_once("<title>all (")
        && let Some((_, after)) = after.split_once("</title>")
    {
        out = format!("{before}<title>all{}</title>{after}", figures(whole, whole, ""));
    }
    out.replace(SEMICOLON, ";")
}

/// ` (969 ms, 96.9 %, 3 waits)`. The script takes what stands in the last parentheses off to have the label.
fn figures(time: u64, whole: u64, remarks: &str) -> String {
    let percent = if whole > 0 { time as f64 / whole as f64 * 100.0 } else { 0.0 };
    let digits = if percent < 0.95 { 2 } else { 1 };
    let comma = if remarks.is_empty() { "" } else { ", " };
    format!(" ({}, {percent:.digits$} %{comma}{remarks})", duration(time as f64 / 1e3))
}

/// `GET /slow/lock: 2.51 s`.
fn title(report: &Report) -> String {
    format!("{}: {}", label::safe(&report.work(), MAX_TITLE), duration(report.elapsed_ms))
}

/// Verdict and place, threshold, host, time.
fn subtitle(report: &Report) -> String {
    let place = report.location.as_ref().map(|location| format!(" in {}", place(location))).unwrap_or_default();
    let verdict = format!("{}{place}", report.verdict.as_str().replace('_', " "));
    let mut parts = vec![label::safe(&verdict, MAX_TITLE)];
    parts.extend(report.threshold_ms.map(|ms| format!("threshold {}", duration(ms))));
    parts.push(report.process.hostname.clone());
    parts.push(timestamp(report.captured_at));
    label::safe(&parts.join(" · "), MAX_SUBTITLE)
}

/// Text for the inside of an element.
fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
