//! Flamegraphs of a profile, as SVG.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::prune::{Painted, Pruner, narrowest};
use super::steps::Steps;
use super::tree::{TreeNode, tree};
use super::words;
use crate::flamegraph::label;
use crate::flamegraph::picture::{Picture, Tile, share, xml};
use crate::profile::{Profile, State};
use crate::report::render::flamegraph;
use crate::text::time::timestamp;
use crate::text::units::count;

/// The most boxes of a picture in a page, which has several, and of one by itself. A browser lays all of them out at
/// each zoom.
pub(super) const BOXES_IN_PAGE: usize = 1_500;
const BOXES: usize = 4_000;

/// The most characters of the title, and of a line below the picture.
const MAX_TITLE: usize = 90;
const MAX_LINE: usize = 160;

/// Which part of a profile a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All of the time, by state.
    All,
    /// What ran on a CPU.
    OnCpu,
    /// What waited at await points.
    Waiting,
    /// All of the time, from left to right.
    Chart,
    /// What spawned work did meanwhile.
    Beside,
}

/// Returns a flamegraph as a file of its own. With `library_frames` it has all frames. Without, it has the
/// application's own and a few significant others.
pub(crate) fn svg(profile: &Profile, which: Which, library_frames: bool) -> String {
    or_apology(&profile.id, || {
        let (tiles, whole) = tiles(profile, which, library_frames, BOXES);
        let picture = Picture {
            title: title(profile),
            subtitle: Some(subtitle(profile, which)),
            whole: whole_label(which, whole),
            tiles: &tiles,
        };
        picture.paint().map(|svg| with_lines(&dark(&svg), &lines(profile)))
    })
}

/// Returns a flamegraph to be put into a page.
pub(super) fn bare_svg(profile: &Profile, which: Which, library_frames: bool) -> String {
    or_apology(&profile.id, || {
        let (tiles, whole) = tiles(profile, which, library_frames, BOXES_IN_PAGE);
        let whole = whole_label(which, whole);
        Picture { title: String::new(), subtitle: None, whole, tiles: &tiles }.paint().map(|svg| dark(&svg))
    })
}

/// Returns what `draw` returns, or a picture that says that there is none. No profile is lost because of its picture.
pub(super) fn or_apology(id: &str, draw: impl FnOnce() -> Option<String>) -> String {
    if let Some(picture) = catch_unwind(AssertUnwindSafe(draw)).ok().flatten() {
        return picture;
    }
    let title = xml(&label::safe(&format!("{id}: no flamegraph could be drawn"), MAX_TITLE));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"60\">\
         <text x=\"20\" y=\"36\" font-family=\"monospace\" font-size=\"14\">{title}</text></svg>\n"
    )
}

/// Returns the length of the part of the time that a picture shows.
pub(super) fn whole(profile: &Profile, which: Which) -> u64 {
    let only = match which {
        Which::OnCpu => Some(State::OnCpu),
        Which::Waiting => Some(State::Waiting),
        _ => None,
    };
    let slices = if which == Which::Beside { &profile.beside } else { &profile.slices };
    let slices = slices.iter().filter(|slice| only.is_none_or(|state| state == slice.state));
    slices.fold(0, |sum, slice| sum.saturating_add(slice.nanos))
}

fn tiles(profile: &Profile, which: Which, library_frames: bool, boxes: usize) -> (Vec<Tile>, u64) {
    let mut steps = Steps::new(library_frames);
    let (tree, whole) = tree(profile, which, &mut steps);
    let min = narrowest(&tree, whole, boxes);
    let narrower = steps.foreign("…");
    let paint = |tree_node: &TreeNode, root: bool| {
        let step = steps.get(tree_node.step);
        let color = color(tree_node.state, step.own);
        let mut figures = figures(tree_node, which, whole);
        let time = words::nanos(tree_node.nanos);
        // The legend, which is read without a mouse.
        let label = if root && matches!(which, Which::All | Which::Beside) {
            format!("{}: {time}", step.label)
        } else {
            figures.insert(usize::from(which == Which::Chart), time);
            step.label.clone()
        };
        Painted { label, figures: figures.join(", "), color }
    };
    (Pruner { tree: &tree, min, narrower, paint }.tiles(), whole)
}

/// The colours of heeler's pages.
fn color(state: State, own: bool) -> inferno::flamegraph::color::Color {
    match state {
        State::OnCpu => flamegraph::State::OnCpu,
        State::Blocked => flamegraph::State::Blocked,
        State::NoCpu => flamegraph::State::NoCpu,
        State::Waiting => flamegraph::State::Waiting,
        State::Runnable => flamegraph::State::Runnable,
    }
    .color(own)
}

/// Returns `40.6 %` or `3 waits`. In a chart, puts its beginning before that.
fn figures(tree_node: &TreeNode, which: Which, whole: u64) -> Vec<String> {
    let mut figures = vec![share(tree_node.nanos, whole)];
    if tree_node.count > 0 {
        figures.push(count(tree_node.count, words::unit(tree_node.state)));
    }
    if which == Which::Chart {
        figures.insert(0, format!("{} after its start", words::nanos(tree_node.start)));
    }
    figures
}

/// Returns the label of the box of the whole.
fn whole_label(which: Which, whole: u64) -> String {
    let what = match which {
        Which::All | Which::Chart => "all",
        Which::OnCpu => "on CPU",
        Which::Waiting => "waiting",
        Which::Beside => "work beside the request",
    };
    format!("{what}: {}", words::nanos(whole))
}

/// `GET /slow/lock: 2.51 s`.
fn title(profile: &Profile) -> String {
    let work = label::safe(&words::work(&profile.request.method, &profile.request.uri), MAX_TITLE);
    format!("{work}: {}", words::nanos(profile.wall_nanos))
}

fn subtitle(profile: &Profile, which: Which) -> String {
    let part = match which {
        Which::All => None,
        Which::OnCpu => Some("on CPU only"),
        Which::Waiting => Some("waiting only"),
        Which::Chart => Some("in order of time"),
        Which::Beside => Some("what spawned work did meanwhile"),
    };
    let parts = [
        part.map(str::to_owned),
        Some(words::outcome(&profile.outcome).to_owned()),
        (profile.runs > 1).then(|| format!("{} runs", profile.runs)),
        Some(profile.process.hostname.clone()),
        Some(timestamp(profile.started_at)),
    ];
    label::safe(&parts.into_iter().flatten().collect::<Vec<_>>().join(" · "), MAX_LINE)
}

/// Returns the lines under the picture.
fn lines(profile: &Profile) -> Vec<String> {
    let end = words::bad_end(&profile.outcome).map(|(what, why)| format!("{what} {why}"));
    let notes = profile.notes.iter().cloned();
    let lines = end.into_iter().chain(words::quality(profile)).chain(notes);
    lines.map(|line| label::safe(&line, MAX_LINE)).collect()
}

/// Makes it legible on a dark background, too: boxes keep their colours, and the text on them stays black.
pub(super) fn dark(svg: &str) -> String {
    let style = "@media screen and (prefers-color-scheme: dark) {\n\
                 svg > rect { fill: #15171c; }\n\
                 svg > text { fill: #e6e6e6; }\n\
                 #frames text { fill: #000; }\n\
                 #frames > *:hover { stroke: white; }\n\
                 #frames > *:hover > text { stroke: none; }\n}\n</style>";
    svg.replacen("</style>", style, 1)
}

/// Pixels per line.
const LINE: usize = 18;

/// Returns the height of a picture in pixels, and the text of that number.
fn height(svg: &str) -> Option<(usize, &str)> {
    let (_, after) = svg.split_once("<svg ")?;
    let (_, after) = after.split_once("height=\"")?;
    let (number, _) = after.split_once('"')?;
    Some((number.parse().ok()?, number))
}

/// Returns the height of a picture, in pixels.
pub(super) fn height_of(svg: &str) -> usize {
    height(svg).map_or(400, |(height, _)| height)
}

/// Makes room below the picture, and writes the lines there.
fn with_lines(svg: &str, lines: &[String]) -> String {
    use std::fmt::Write as _;

    let Some((before, number)) = height(svg) else { return svg.to_owned() };
    let after = before + lines.len() * LINE + LINE / 2;
    // The picture, its view box and its background.
    let mut out = svg.replacen(&format!("height=\"{number}\""), &format!("height=\"{after}\""), 2).replacen(
        &format!(" {number}\""),
        &format!(" {after}\""),
        1,
    );
    if let Some(end) = out.rfind("</svg>") {
        out.truncate(end);
    }
    for (at, line) in lines.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(out, "<text x=\"10\" y=\"{}\">{}</text>", before + at * LINE + 4, xml(line));
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use quick_xml::Reader;
    use quick_xml::events::Event;

    use super::*;
    use crate::profile::page::sample::{album, hostile, wide};
    use crate::profile::testing::{ProfileBuilder, own};

    const ALL: [Which; 5] = [Which::All, Which::OnCpu, Which::Waiting, Which::Chart, Which::Beside];

    /// Returns tooltip, row, and width of each box. Fails if the picture is not well-formed, or has an element that
    /// inferno does not write.
    fn boxes(svg: &str) -> Vec<(String, u64, u64)> {
        let elements: &[&[u8]] =
            &[b"svg", b"defs", b"linearGradient", b"stop", b"style", b"script", b"rect", b"text", b"title", b"g"];
        assert!(svg.chars().all(|c| !c.is_control() || c == '\n'), "characters that XML cannot hold");
        let (mut boxes, mut title, mut in_title, mut scripts) = (Vec::new(), String::new(), false, 0);
        let mut reader = Reader::from_str(svg);
        loop {
            let event = reader.read_event().unwrap();
            match &event {
                Event::Start(tag) | Event::Empty(tag) => {
                    assert!(elements.contains(&tag.name().as_ref()), "{tag:?}");
                    in_title = tag.name().as_ref() == b"title";
                    title = if in_title { String::new() } else { title };
                    scripts += u32::from(tag.name().as_ref() == b"script");
                    let get = |name: &str| {
                        let attribute = tag.try_get_attribute(name).unwrap()?;
                        std::str::from_utf8(&attribute.value).unwrap().parse().ok()
                    };
                    if let (Some(y), Some(width)) = (get("y"), get("fg:w")) {
                        boxes.push((title.clone(), y, width));
                    }
                }
                Event::End(_) => in_title = false,
                Event::Text(text) if in_title => title.push_str(&text.decode().unwrap()),
                Event::GeneralRef(name) if in_title => title.push_str(name.decode().unwrap().as_ref()),
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(scripts, 1, "inferno's");
        boxes
    }

    /// Returns the sum of the boxes directly on the whole.
    fn second_row(boxes: &[(String, u64, u64)]) -> u64 {
        let mut rows: Vec<u64> = boxes.iter().map(|(_, y, _)| *y).collect();
        rows.sort_unstable();
        rows.dedup();
        boxes.iter().filter(|(_, y, _)| *y == rows[1]).map(|(.., width)| width).sum()
    }

    /// Guards: widths are time, to the nanosecond, with and without library frames, however many boxes are merged.
    #[test]
    fn widths_sum_to_the_time() {
        for profile in [album(), hostile(), wide()] {
            for (which, library_frames) in ALL.into_iter().flat_map(|which| [(which, false), (which, true)]) {
                let time = whole(&profile, which).max(1);
                for svg in [svg(&profile, which, library_frames), bare_svg(&profile, which, library_frames)] {
                    let boxes = boxes(&svg);
                    assert_eq!(second_row(&boxes), time, "{which:?}");
                    assert!(boxes.len() <= BOXES + 1, "{which:?}: {}", boxes.len());
                }
            }
        }
        assert!(boxes(&bare_svg(&wide(), Which::All, true)).len() <= BOXES_IN_PAGE + 1);
        assert_eq!(whole(&album(), Which::All), album().wall_nanos);
    }

    #[test]
    fn boxes_show_time_share_and_count() {
        let drawn = boxes(&svg(&album(), Which::All, false));
        let says = |text: &str| drawn.iter().any(|(title, ..)| title == text);
        for text in [
            "all: 2.35 s (100 %)",
            "waiting: 1.04 s (44.4 %, 7 waits)",
            "photos::store::PhotoStore::list src/store.rs:33 (812 ms, 34.6 %, 1 wait)",
            "photos::thumb::decode src/thumb.rs (680 ms, 29.0 %, 680 samples)",
            "[unattributed] (3.0 ms, 0.13 %)",
        ] {
            assert!(says(text), "{text}\n{drawn:#?}");
        }
        assert!(!drawn.iter().any(|(title, ..)| title.starts_with("axum::")), "library frames are folded");
        let full = boxes(&svg(&album(), Which::All, true));
        assert!(full.iter().any(|(title, ..)| title.starts_with("axum::handler::Handler::call ")));
        let chart = boxes(&svg(&album(), Which::Chart, false));
        assert!(
            chart
                .iter()
                .any(|(title, ..)| title == "blocked in a poll (1.79 s after its start, 498 ms, 21.2 %, 3 samples)"),
            "{chart:#?}"
        );
        assert!(svg(&album(), Which::All, false) == svg(&album(), Which::All, false), "the same each time");
    }

    /// Guards: lines below the picture, but within its bounds, say how far it can be trusted.
    #[test]
    fn the_picture_says_how_accurate_it_is() {
        let mut profile = album();
        profile.outcome = crate::profile::Outcome::Panicked("index <3>".to_owned());
        let drawn = svg(&profile, Which::All, false);
        for line in [
            "The handler panicked. index &lt;3&gt;",
            "1,260 of 1,262 samples taken at 1,000 Hz, 2 lost, 7 late; 0 stacks cut at their outer end.",
            "The request spawned one task, which was profiled beside it.",
        ] {
            let (_, rest) = drawn.split_once(&format!(">{line}</text>")).map(|(a, b)| (b, a)).expect(line);
            let (_, y) = rest.rsplit_once("y=\"").unwrap();
            assert!(y.trim_end_matches('"').parse::<usize>().unwrap() < height_of(&drawn));
        }
        let bare = height_of(&bare_svg(&profile, Which::All, false));
        assert!(height_of(&drawn) > bare + 5 * LINE);
        assert!(drawn.contains(&format!("viewBox=\"0 0 1200 {}\"", height_of(&drawn))));
    }

    /// Guards: an empty profile, and one of a nanosecond, have a picture.
    #[test]
    fn an_empty_profile_has_a_picture() {
        let mut builder = ProfileBuilder::new();
        assert!(svg(&ProfileBuilder::new().build(), Which::All, false).contains("no time was spent this way"));
        builder.slice(State::OnCpu, 1, 0, &[own("app::a", 1)]);
        builder.slice(State::Waiting, 0, 0, &[own("app::b", 1)]);
        let profile = builder.build();
        for which in ALL {
            assert!(boxes(&svg(&profile, which, true)).len() >= 2, "{which:?}");
        }
        let mut huge = profile;
        huge.slices.iter_mut().for_each(|slice| slice.nanos = u64::MAX);
        huge.wall_nanos = u64::MAX;
        for which in ALL {
            svg(&huge, which, false);
        }
    }
}
