//! Draws a report's tree.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::tree::{Node, tree};
use crate::flamegraph::label;
use crate::flamegraph::picture::{GREY, Picture, Tile, share, xml};
use crate::report::Report;
use crate::report::assemble::location::place;
use crate::text::time::timestamp;
use crate::text::units::{count, duration};

/// The most characters of the title and of the line below it.
const MAX_TITLE: usize = 90;
const MAX_PLACE: usize = 110;
const MAX_SUBTITLE: usize = 160;

impl Report {
    /// Returns the report as a flamegraph: an SVG that shows where the time went. It needs nothing from outside. In a
    /// browser you can click boxes (zoom), point at them (figures) and search them.
    ///
    /// Widths are wall-clock time, in microseconds, and sum to [`elapsed`](Report::elapsed). The title names the
    /// request and that time. The row below the whole says what the work did, longest first:
    ///
    /// | row | colour | meaning |
    /// |---|---|---|
    /// | waiting | blue | between polls, until something wakes it |
    /// | blocked in a poll | vermilion | inside a poll whose thread isn't running: in a system call, or waiting for a lock |
    /// | on CPU | orange | inside a poll whose thread is running |
    /// | inside polls | green | polls that ended before their thread was observed |
    /// | yielding | yellow | it woke itself, and waits for its turn |
    /// | woken, not polled | purple | the runtime doesn't get to it |
    /// | not observed | grey | it wasn't observed |
    ///
    /// The poll in progress at the capture decides whether polls count as blocked, and all time inside polls is counted
    /// the same way. Below are the stacks, outermost frame first. The application's own frames have the full colour,
    /// others a pale one. Runs of others are folded (`… 5 frames of tokio`), as in the [text](Report::to_text). The
    /// [JSON](Report::to_json) has all of them.
    ///
    /// Branches of one wait (`join!`, `select!`) wait at the same time. They are drawn side by side below what they
    /// have in common. Each is as wide as its equal part, so that no time counts twice, and each says how long it
    /// really waited. Child work and culprits are drawn the same way, where the work waits for them, as they were at
    /// the capture.
    ///
    /// The picture is as wide as its window. With more than 2,000 boxes it is 1,200 pixels wide, so that it opens at
    /// once. Everything from outside is escaped, and long names are shortened in the middle, generic arguments first.
    /// For a report without any time, the picture says so.
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
    ///     fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
    ///         Ok(std::fs::write(&self.0, report.to_svg())?)
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn to_svg(&self) -> String {
        if let Some(dump) = &self.dump {
            return dump.to_svg();
        }
        or_apology(self, || draw(self))
    }
}

/// Returns what `draw` returns, or a picture that says that there is none. No report is lost because of its picture.
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
    let mut tiles: Vec<Tile> = tree.children.iter().map(|node| tile(node, true, tree.width)).collect();
    if tiles.is_empty() {
        // inferno doesn't draw an empty picture.
        let label = "no time was recorded".to_owned();
        tiles.push(Tile { label, figures: String::new(), color: GREY, width: 1, children: Vec::new() });
    }
    let whole = format!("all: {}", duration(Duration::from_micros(tree.width)));
    Picture { title: title(report), subtitle: Some(subtitle(report)), whole, tiles: &tiles }.paint()
}

fn tile(node: &Node, root: bool, whole: u64) -> Tile {
    let waits = node.state.unit().filter(|_| node.waits > 0).map(|unit| count(node.waits, unit));
    let share = share(node.time, whole);
    let time = duration(Duration::from_micros(node.time));
    let mut label = node.label.clone();
    let mut figures = vec![share];
    if root {
        // The legend, which must be readable without a mouse.
        label = [Some(format!("{label}: {time}")), waits].into_iter().flatten().collect::<Vec<_>>().join(", ");
    } else {
        figures.insert(0, time);
        figures.extend(waits);
    }
    if !node.remark.is_empty() {
        figures.push(node.remark.clone());
    }
    let children = node.children.iter().map(|child| tile(child, false, whole)).collect();
    Tile { label, figures: figures.join(", "), color: node.state.color(node.own), width: node.width, children }
}

/// Returns `GET /slow/lock: 2.51 s`.
fn title(report: &Report) -> String {
    format!("{}: {}", label::safe(&report.work(), MAX_TITLE), duration(report.elapsed))
}

/// Returns verdict and place, threshold, host, time.
fn subtitle(report: &Report) -> String {
    let place = report.location.as_ref().map(|location| format!(" in {}", place(location))).unwrap_or_default();
    let verdict = format!("{}{place}", report.verdict.as_str().replace('_', " "));
    let mut parts = vec![label::safe(&verdict, MAX_PLACE)];
    parts.extend(report.limit());
    parts.push(report.process.hostname.clone());
    parts.push(timestamp(report.captured_at));
    label::safe(&parts.join(" · "), MAX_SUBTITLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quick_xml::Reader;
    use quick_xml::events::Event;

    use super::*;
    use crate::flamegraph::picture::FLUID_BOXES;
    use crate::report::assemble::location::{arrange, locate};
    use crate::report::testing::{culprit, library, own, report, thread_stack};
    use crate::report::{Activity, Interval, Verdict};

    /// Returns what a viewer shows: the texts of the picture and of its boxes' tooltips. Fails if it isn't well-formed,
    /// or has an element that inferno doesn't write.
    fn read(svg: &str) -> Vec<String> {
        // <https://www.w3.org/TR/xml/#charsets>
        let is_xml =
            |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}') || matches!(c, '\n' | '\t' | '\r');
        assert!(svg.chars().all(is_xml));
        let elements: &[&[u8]] =
            &[b"svg", b"defs", b"linearGradient", b"stop", b"style", b"script", b"rect", b"text", b"title", b"g"];
        let (mut texts, mut text, mut scripts, mut depth) = (Vec::new(), None, 0, 0);
        let mut reader = Reader::from_str(svg);
        reader.config_mut().check_end_names = true;
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => {
                    assert!(elements.contains(&start.name().as_ref()), "{start:?}");
                    start.attributes().for_each(|attribute| {
                        assert!(attribute.unwrap().normalized_value(quick_xml::XmlVersion::Implicit1_0).is_ok())
                    });
                    scripts += u32::from(start.name().as_ref() == b"script");
                    depth += 1;
                    text = matches!(start.name().as_ref(), b"text" | b"title").then(String::new);
                }
                Event::Text(part) => {
                    if let Some(text) = &mut text {
                        text.push_str(&part.decode().unwrap());
                    }
                }
                Event::GeneralRef(name) => {
                    let c = match &*name {
                        b"lt" => '<',
                        b"gt" => '>',
                        b"amp" => '&',
                        b"quot" => '"',
                        b"apos" => '\'',
                        other => panic!("{other:?}"),
                    };
                    text.as_mut().unwrap().push(c);
                }
                Event::End(_) => {
                    texts.extend(text.take());
                    depth -= 1;
                }
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!((depth, scripts), (0, u32::from(svg.contains("id=\"frames\""))), "one script: inferno's");
        texts
    }

    fn drawn(report: &Report) -> Vec<String> {
        read(&report.to_svg())
    }

    #[track_caller]
    fn assert_has(texts: &[String], expected: &str) {
        assert!(texts.iter().any(|text| text == expected), "{expected}\n{texts:#?}");
    }

    /// Guards: the texts and the numbers in the tooltips are those that an engineer needs.
    #[test]
    fn the_picture_says_what_an_engineer_reads() {
        let mut report = report();
        arrange(&mut report);
        report.location = locate(&report);
        let texts = drawn(&report);
        for expected in [
            "GET /slow/lock: 2.51 s",
            "waiting in photos::wait_for_import at examples/photos/slow.rs:88 · threshold 2.50 s · web1 · 2025-01-01T00:00:02.510Z",
            "all: 2.51 s (100 %)",
            "all: 2.51 s",
            "waiting: 2.20 s, 1 wait (87.6 %)",
            "inside polls: 0.40 ms, 2 polls (0.02 %)",
            "not observed: 310 ms (12.3 %)",
            "photos::wait_for_import examples/photos/slow.rs:88 (2.20 s, 87.6 %, 1 wait)",
            "photos::wait_for_import examples/photos/slow.rs:88",
            "… 14 frames of axum, hyper, std (2.20 s, 87.6 %, 1 wait)",
        ] {
            assert_has(&texts, expected);
        }
        assert_eq!(report.to_svg(), report.to_svg(), "the same each time");
    }

    /// Guards: states differ by colour, and frames that aren't the application's own are paler.
    #[test]
    fn states_have_different_colours() {
        let mut report = report();
        report.stacks.push(thread_stack(&[own("photos::compute", 3)]));
        report.stacks.push(culprit(&[own("photos::hog", 4)]));
        report.timeline[2].stack = Some(1);
        report.timeline.push(Interval {
            activity: Activity::Runnable,
            stack: None,
            waits: 1,
            time: Duration::from_millis(100),
        });
        report.elapsed += Duration::from_millis(100);
        let svg = report.to_svg();
        let color = |label: &str| {
            let (_, box_of) = svg.split_once(&format!("<title>{label}")).unwrap_or_else(|| panic!("{label}"));
            box_of.split_once("fill=\"").unwrap().1.split_once('"').unwrap().0.to_owned()
        };
        assert_eq!(color("waiting: "), color("photos::wait_for_import "));
        assert_eq!(color("on CPU: "), color("photos::compute "));
        assert_eq!(color("woken, not polled: "), color("photos::hog "));
        let mut all = ["waiting: ", "on CPU: ", "woken, ", "not observed: ", "tokio::sync::mutex"].map(color).to_vec();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 5, "{all:?}");
    }

    /// Guards: for a report that knows nothing, the picture says so.
    #[test]
    fn an_empty_report_has_a_picture_that_says_so() {
        let mut report = report();
        let elapsed = std::mem::take(&mut report.elapsed);
        report.timeline.clear();
        assert_has(&drawn(&report), "GET /slow/lock: 0 ms");
        assert_has(&drawn(&report), "no time was recorded");
        report.elapsed = elapsed;
        report.timeline.clear();
        report.stacks.clear();
        report.verdict = Verdict::Unknown;
        assert_has(&drawn(&report), "not observed: 2.51 s (100.0 %)");
        for elapsed in [Duration::MAX, Duration::from_nanos(1)] {
            report.elapsed = elapsed;
            drawn(&report);
        }
    }

    /// Guards: if the picture fails, the other forms of the report are still written.
    #[test]
    fn a_failure_to_draw_is_a_picture() {
        let mut report = report();
        report.id = "</text>&\u{0}".to_owned();
        let expected = ["</text>&\\u{0}: no flamegraph could be drawn"];
        assert_eq!(read(&or_apology(&report, || None)), expected);
        assert_eq!(read(&or_apology(&report, || panic!("a bug"))), expected);
    }

    /// Guards: a name keeps everything, even separators of folded stacks, text that looks like a number of samples, and
    /// text that inferno usually removes from names.
    #[test]
    fn inferno_leaves_names_as_they_are() {
        for function in
            ["a;b", "x 5", "x 5 7", "--", "-", "f_[k]", "# x", "app::Buffer<[u8; 8]>", "all (1 us, 100%)", " "]
        {
            let mut report = report();
            report.stacks[0].frames = vec![own(function, 1)];
            report.stacks[0].frames[0].file = None;
            assert_has(&drawn(&report), &format!("{function} (2.20 s, 87.6 %, 1 wait)"));
            assert_has(&drawn(&report), "all: 2.51 s (100 %)");
        }
    }

    #[test]
    fn large_pictures_have_a_fixed_width() {
        let mut report = report();
        assert!(report.to_svg().contains("fluiddrawing = true"));
        let stack = report.stacks[0].clone();
        let many = FLUID_BOXES + 1;
        report.timeline = (0..many)
            .map(|at| Interval { stack: Some(at), time: Duration::from_millis(1), ..report.timeline[0].clone() })
            .collect();
        report.stacks = vec![stack; many];
        for (line, stack) in (0..).zip(&mut report.stacks) {
            (stack.frames, stack.current) = (vec![own("app::place", line)], false);
        }
        report.elapsed = Duration::from_millis(many as u64);
        assert!(report.to_svg().contains("fluiddrawing = false"));
    }

    fn hostile() -> impl Strategy<Value = String> {
        let evil = prop::sample::select(vec![
            "<script>alert(1)</script>",
            "</text></svg><script>",
            "]]><script>x</script>",
            "&#60;script&#62;&lt;",
            "\" onload=\"alert(1)",
            "'; alert(1); '",
            "a;b 5\n\r\t;",
            "\u{0}\u{1}\u{2}\u{1b}[2J",
            "\u{fffe}\u{ffff}\u{202e}",
            "all (5 us, 100%)",
            "-->",
            "<<<<>>->",
        ]);
        prop_oneof![any::<String>(), evil.prop_map(str::to_owned), "[<>&\"';() ]{0,200}".prop_map(|text| text)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        /// Guards: nothing in a request or in a binary's names is drawn as anything but text.
        #[test]
        fn hostile_names_stay_text(texts in prop::collection::vec(hostile(), 8), line in any::<Option<u32>>()) {
            let mut report = report();
            let request = report.request.as_mut().unwrap();
            (request.uri, request.method) = (texts[0].clone(), texts[1].clone());
            request.route = Some(texts[2].clone());
            report.process.hostname.clone_from(&texts[3]);
            let frame = &mut report.stacks[0].frames[3];
            (frame.function, frame.file) = (Some(texts[4].clone()), Some(texts[5].clone()));
            frame.line = line;
            let mut unnamed = library("x");
            (unnamed.function, unnamed.file) = (None, None);
            (unnamed.module, unnamed.address) = (Some(texts[6].clone()), texts[7].clone());
            report.stacks[0].frames.insert(0, unnamed);
            let mut holder = culprit(&[own(&texts[6], 1)]);
            holder.work = Some(texts[7].clone());
            holder.thread.as_mut().unwrap().syscall = Some(texts[2].clone());
            report.stacks.push(holder);
            report.timeline.push(Interval { activity: Activity::Runnable, stack: None, waits: 1, time: Duration::from_millis(9) });
            report.elapsed += Duration::from_millis(9);
            arrange(&mut report);
            report.location = locate(&report);
            let svg = report.to_svg();
            prop_assert_eq!(svg.matches("<script").count(), 1);
            let shown = read(&svg);
            prop_assert!(shown.iter().all(|text| text.chars().count() < 400));
            prop_assert!(shown.iter().any(|text| text == "all: 2.52 s (100 %)"), "{shown:#?}");
        }
    }
}
