//! Boxes as SVG. inferno lays them out, and the labels are inserted afterwards.

use std::fmt::Write as _;

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Direction, Options, TextTruncateDirection};

/// A picture of up to this many boxes is as wide as the window. For that, the script lays all of them out again, which
/// takes a browser as long as everything else.
pub(crate) const FLUID_BOXES: usize = 2_000;

/// The width of a picture with more boxes, in pixels.
const WIDTH: usize = 1_200;

/// Separate a box's label from the rest of its tooltip, and that from its number. Neither has control characters of its
/// own.
const MARK: char = '\u{1}';
const NUMBER: char = '\u{3}';

/// Stands for `;`, which separates the frames of a folded stack.
const SEMICOLON: char = '\u{2}';

/// The color of time without a stack.
pub(crate) const GREY: Color = Color { r: 0xdd, g: 0xdd, b: 0xdd };

/// One box and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    /// Without control characters.
    pub(crate) label: String,
    /// What else the tooltip says, in parentheses. Without control characters.
    pub(crate) figures: String,
    pub(crate) color: Color,
    /// In any unit. At least the sum of the children's widths.
    pub(crate) width: u64,
    pub(crate) children: Vec<Tile>,
}

/// A picture, with the root at the top.
#[derive(Debug)]
pub(crate) struct Picture<'a> {
    pub(crate) title: String,
    pub(crate) subtitle: Option<String>,
    /// The label of the root box: `all: 2.51 s`.
    pub(crate) whole: String,
    /// From left to right.
    pub(crate) tiles: &'a [Tile],
}

impl Picture<'_> {
    /// Returns the SVG, or `None` if it cannot be drawn.
    pub(crate) fn paint(self) -> Option<String> {
        let mut colors = PaletteMap::default();
        colors.insert("", GREY);
        let mut folded = Folded { colors, lines: Vec::new(), tiles: 0 };
        for tile in self.tiles {
            folded.add(tile, "");
        }
        let Folded { mut colors, mut lines, tiles } = folded;
        // inferno's flame charts keep the order of the lines, but reversed.
        lines.reverse();
        let mut options = Options::default();
        options.title = self.title;
        options.subtitle = self.subtitle;
        options.flame_chart = true;
        options.direction = Direction::Inverted;
        options.bgcolors = Some(BackgroundColor::Flat(Color { r: 255, g: 255, b: 255 }));
        options.frame_height = 18;
        options.image_width = (tiles >= FLUID_BOXES).then_some(WIDTH);
        // A millisecond of an hour is kept, because one can zoom.
        options.min_width = 0.0;
        options.text_truncate_direction = TextTruncateDirection::Right;
        options.count_name = "us".to_owned();
        options.name_type = "In".to_owned();
        options.palette_map = Some(&mut colors);
        let mut svg = Vec::new();
        flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg).ok()?;
        Some(relabel(&String::from_utf8(svg).ok()?, &self.whole))
    }
}

/// A picture in inferno's input format.
struct Folded {
    colors: PaletteMap,
    lines: Vec<String>,
    tiles: usize,
}

impl Folded {
    /// Adds one line for each stretch with nothing on top of it: the boxes from the root on, and the width.
    fn add(&mut self, tile: &Tile, below: &str) {
        let name = self.name(tile);
        let path = format!("{below}{name}");
        let above = format!("{path};");
        let mut rest = tile.width;
        for child in &tile.children {
            self.add(child, &above);
            rest = rest.saturating_sub(child.width);
        }
        if rest > 0 {
            self.lines.push(format!("{path} {rest}"));
        }
    }

    /// Returns the name of a box for inferno. Names are unique, so that no box takes another's color.
    fn name(&mut self, tile: &Tile) -> String {
        self.tiles += 1;
        let mut name = tile.label.replace(';', &SEMICOLON.to_string());
        // Writing to a string cannot fail.
        let _ = write!(name, "{MARK}{}{NUMBER}{}", tile.figures.replace(';', &SEMICOLON.to_string()), self.tiles);
        self.colors.insert(&name, tile.color);
        name
    }
}

/// Replaces inferno's numbers with what heeler knows of a box: ` (969 ms, 96.9 %, 3 waits)`. The script removes what is
/// in the last parentheses to get the label.
fn relabel(svg: &str, whole: &str) -> String {
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some((before, after)) = rest.split_once(MARK) {
        out.push_str(before);
        let (figures, tail) = after.split_at(after.find('<').unwrap_or(after.len()));
        if tail.starts_with("</title>")
            && let Some((figures, _)) = figures.rsplit_once(NUMBER)
        {
            out.push_str(" (");
            out.push_str(figures);
            out.push(')');
        }
        rest = tail;
    }
    out.push_str(rest);
    // The root box is the last.
    if let Some((before, after)) = out.rsplit_once("<title>all (")
        && let Some((_, after)) = after.split_once("</title>")
    {
        // Its text is empty, because it has no name of its own.
        let after = after.replacen("></text>", &format!(">{whole}</text>"), 1);
        out = format!("{before}<title>{whole} (100 %)</title>{after}");
    }
    out.replace(SEMICOLON, ";")
}

/// `96.9 %`.
pub(crate) fn share(time: u64, whole: u64) -> String {
    let percent = if whole > 0 { time as f64 / whole as f64 * 100.0 } else { 0.0 };
    let digits = if percent < 0.95 { 2 } else { 1 };
    format!("{percent:.digits$} %")
}

/// Text for the inside of an element.
pub(crate) fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
