//! The tree as SVG. inferno lays it out; what the boxes say is put in afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Direction, Options, TextTruncateDirection};

use super::super::units::{count, duration, place};
use super::label;
use super::tree::{Node, tree};
use crate::report::Report;
use crate::report::time::timestamp;

/// The most characters of the title and of the line below it.
const MAX_TITLE: usize = 90;
const MAX_PLACE: usize = 110;
const MAX_SUBTITLE: usize = 160;

/// Between a box's label and what heeler wants to know of it after inferno has laid it out. Labels are free of control
/// characters.
const MARK: char = '\u{1}';

/// What there is no stack for.
const GREY: Color = Color { r: 0xdd, g: 0xdd, b: 0xdd };

/// Stands for `;`, which parts the frames of a folded stack.
const SEMICOLON: char = '\u{2}';

impl Report {
    /// The report as a flamegraph: an SVG that shows where the time went. It needs nothing from outside; in a browser
    /// boxes can be clicked (zoom), pointed at (figures) and searched.
    ///
    /// Widths are wall-clock time, in microseconds, and sum to [`elapsed_ms`](Report::elapsed_ms). The title names the
    /// request and that time. The row below the whole says what the work did, longest first:
    ///
    /// | row | colour | what it is |
    /// |---|---|---|
    /// | waiting | blue | between polls, until something wakes it |
    /// | blocked in a poll | vermilion | inside a poll whose thread does not run: in a system call, or waiting for a lock |
    /// | on CPU | orange | inside a poll whose thread runs |
    /// | running | green | inside polls that ended before anybody looked at their thread |
    /// | yielding | yellow | it woke itself, and waits for its turn |
    /// | woken, not polled | purple | the runtime does not get to it |
    /// | not observed | grey | nobody looked |
    ///
    /// Whether polls blocked is told from the one that lasts at the capture; all time inside polls goes with it. Below
    /// stand the stacks, outermost frame first. Frames of the application's own have the full colour, others a pale one;
    /// runs of others are folded (`… 5 frames of tokio`), as in the [text](Report::to_text). The [JSON](Report::to_json)
    /// has all of them.
    ///
    /// Branches of one wait (`join!`, `select!`) wait at the same time: they stand side by side above what they have in
    /// common, each as wide as its equal part, so that no time counts twice, and each tells how long it really waited.
    /// So do child work and what holds the workers, which stand where the work waits for them, as they were at the
    /// capture.
    ///
    /// What comes from outside is escaped, and long names lose their middle: generic arguments first. A report without any
    /// time is a picture that says so.
    ///
    /// [Flame graphs](https://www.brendangregg.com/flamegraphs.html) are Brendan Gregg's idea;
    /// [inferno](https://crates.io/crates/inferno) draws this one, with the root at the top.
    ///
    /// ```
    /// use heeler::{Report, Sink};
    ///
    /// /// Keeps the picture of the latest report.
    /// struct Latest(std::path::PathBuf);
    ///
    /// impl Sink for Latest {
    ///     fn name(&self) -> &str {
    ///         "latest"
    ///     }
    ///
    ///     fn deliver(&self, report: &Report) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///         Ok(std::fs::write(&self.0, report.to_svg())?)
    ///     }
    /// }
    /// ```
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
    // The whole.
    colors.insert("", GREY);
    let mut lines = Vec::new();
    for node in &tree.children {
        fold(node, "", tree.width, &mut colors, &mut lines);
    }
    if lines.is_empty() {
        // inferno draws no empty picture.
        lines.push(format!("{} 1", name("no time was recorded", &[], GREY, &mut colors)));
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
    // A millisecond of an hour is kept: one can zoom.
    options.min_width = 0.0;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.count_name = "us".to_owned();
    options.name_type = "In".to_owned();
    options.palette_map = Some(&mut colors);
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg).ok()?;
    Some(relabel(&String::from_utf8(svg).ok()?, tree.width))
}

/// One line for each share of time: boxes from the root on, and microseconds.
fn fold(node: &Node, below: &str, whole: u64, colors: &mut PaletteMap, lines: &mut Vec<String>) {
    let waits = node.state.unit().filter(|_| node.waits > 0).map(|unit| count(node.waits, unit));
    let share = share(node.time, whole);
    let time = duration(node.time as f64 / 1e3);
    let mut label = node.label.clone();
    let mut figures = vec![share];
    if below.is_empty() {
        // The legend: it is read without a mouse.
        label = [Some(format!("{label}: {time}")), waits].into_iter().flatten().collect::<Vec<_>>().join(", ");
    } else {
        figures.insert(0, time);
        figures.extend(waits);
    }
    if !node.remark.is_empty() {
        figures.push(node.remark.clone());
    }
    let path = format!("{below}{}", name(&label, &figures, node.state.color(node.own), colors));
    let mut rest = node.width;
    let above = format!("{path};");
    for child in &node.children {
        fold(child, &above, whole, colors, lines);
        rest = rest.saturating_sub(child.width);
    }
    if rest > 0 {
        lines.push(format!("{path} {rest}"));
    }
}

/// The name of a box for inferno: its label, and what the tooltip says besides.
fn name(label: &str, figures: &[String], color: Color, colors: &mut PaletteMap) -> String {
    let name = format!("{}{MARK}{}", label.replace(';', &SEMICOLON.to_string()), figures.join(", "));
    colors.insert(&name, color);
    name
}

/// Puts what heeler knows of a box where inferno wrote its numbers: ` (969 ms, 96.9 %, 3 waits)`. The script takes off what
/// stands in the last parentheses to have the label.
fn relabel(svg: &str, whole: u64) -> String {
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some((before, after)) = rest.split_once(MARK) {
        out.push_str(before);
        let (figures, tail) = after.split_at(after.find('<').unwrap_or(after.len()));
        if tail.starts_with("</title>")
            && let Some((figures, _)) = figures.rsplit_once(" (")
        {
            out.push_str(&format!(" ({figures})"));
        }
        rest = tail;
    }
    out.push_str(rest);
    // The box of the whole is the last.
    if let Some((before, after)) = out.rsplit_once("<title>all (")
        && let Some((_, after)) = after.split_once("</title>")
    {
        out = format!("{before}<title>all: {} (100 %)</title>{after}", duration(whole as f64 / 1e3));
    }
    out.replace(SEMICOLON, ";")
}

/// `96.9 %`.
fn share(time: u64, whole: u64) -> String {
    let percent = if whole > 0 { time as f64 / whole as f64 * 100.0 } else { 0.0 };
    let digits = if percent < 0.95 { 2 } else { 1 };
    format!("{percent:.digits$} %")
}

/// `GET /slow/lock: 2.51 s`.
fn title(report: &Report) -> String {
    format!("{}: {}", label::safe(&report.work(), MAX_TITLE), duration(report.elapsed_ms))
}

/// Verdict and place, threshold, host, time.
fn subtitle(report: &Report) -> String {
    let place = report.location.as_ref().map(|location| format!(" in {}", place(location))).unwrap_or_default();
    let verdict = format!("{}{place}", report.verdict.as_str().replace('_', " "));
    let mut parts = vec![label::safe(&verdict, MAX_PLACE)];
    parts.extend(report.threshold_ms.map(|ms| format!("threshold {}", duration(ms))));
    parts.push(report.process.hostname.clone());
    parts.push(timestamp(report.captured_at));
    label::safe(&parts.join(" · "), MAX_SUBTITLE)
}

/// Text for the inside of an element.
fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
