//! The call graph as a PDF page. Only this crate and its dependencies draw it.

use std::io::Write as _;

use flate2::{Compression, write::ZlibEncoder};
use pdf_writer::{Content, Filter, Finish as _, Name, Pdf, Rect, Ref, Str, TextStr};

use super::dot::{fill, width};
use super::graph::{Graph, graph, share, time};
use super::layout::{CHARACTER, LINE, Shape, TEXT, lay_out};
use crate::profile::Profile;

/// The margin around everything.
const MARGIN: f64 = 24.0;

/// The largest size of a page, by the standard.
const MAX_SIDE: f64 = 14_400.0;

/// The length of an arrow's head.
const HEAD: f64 = 6.0;

const FONT: Name<'static> = Name(b"F");

pub(super) fn pdf(profile: &Profile) -> Result<Vec<u8>, String> {
    let graph = graph(profile);
    let lines: Vec<Vec<String>> = (0..graph.nodes.len()).map(|at| lines(&graph, at)).collect();
    let shapes = lay_out(&graph, &lines)?;
    let mut page = Page::around(&graph, &shapes);
    page.heading(&graph);
    for shape in &shapes {
        page.edge(&graph, shape);
    }
    for shape in &shapes {
        page.label(&graph, shape);
    }
    for shape in &shapes {
        page.node(&graph, &lines, shape);
    }
    page.finish(&graph)
}

/// Returns the text in a box.
fn lines(graph: &Graph, at: usize) -> Vec<String> {
    let node = &graph.nodes[at];
    let mut lines = wrap(&node.name);
    lines.extend(node.place.clone());
    lines.push(node.figures(graph.whole));
    if node.recursive {
        lines.push("calls itself".to_owned());
    }
    lines.iter().map(|line| printable(line)).collect()
}

/// Splits a name into lines of bounded length, at its path separators if possible.
fn wrap(name: &str) -> Vec<String> {
    const WIDTH: usize = 36;
    let mut lines = Vec::new();
    let mut rest = name;
    while let Some((end, _)) = rest.char_indices().nth(WIDTH) {
        let cut = rest[..end].rfind("::").map(|at| at + 2).filter(|&at| at > WIDTH / 3).unwrap_or(end);
        lines.push(rest[..cut].to_owned());
        rest = &rest[cut..];
    }
    lines.push(rest.to_owned());
    lines
}

/// Writes characters that the standard fonts do not have as `\u{4e2d}`.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match encode(c) {
            Some(_) => out.push(c),
            None => out.extend(c.escape_unicode()),
        }
    }
    out
}

/// Returns the character in `WinAnsiEncoding`.
fn encode(c: char) -> Option<u8> {
    match c {
        ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}' => u8::try_from(u32::from(c)).ok(),
        '…' => Some(0x85),
        _ => None,
    }
}

struct Page {
    content: Content,
    /// The upper left corner of the drawing.
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Page {
    fn around(graph: &Graph, shapes: &[Shape]) -> Self {
        let mut corners = Vec::new();
        for shape in shapes {
            match shape {
                Shape::Node { left, top, width, height, .. } => {
                    corners.extend([(*left, *top), (left + width, top + height)]);
                }
                Shape::Edge { start, curves, .. } => {
                    corners.push(*start);
                    corners.extend(curves.iter().flatten());
                }
            }
        }
        let heading = graph.heading.iter().map(|line| printable(line).chars().count()).max().unwrap_or(0);
        let of = |pick: fn(&(f64, f64)) -> f64, better: fn(f64, f64) -> f64| {
            corners.iter().map(pick).filter(|side| side.is_finite()).reduce(better).unwrap_or(0.0)
        };
        let (left, right) = (of(|at| at.0, f64::min), of(|at| at.0, f64::max));
        let (top, bottom) = (of(|at| at.1, f64::min), of(|at| at.1, f64::max));
        let above = (graph.heading.len() + 1) as f64 * LINE;
        Self {
            content: Content::new(),
            left: left - MARGIN,
            top: top - MARGIN - above,
            width: (right - left).max(heading as f64 * CHARACTER) + 2.0 * MARGIN,
            height: bottom - top + above + 2.0 * MARGIN,
        }
    }

    /// Converts to PDF's coordinates, which start at the lower left.
    fn place(&self, (x, y): (f64, f64)) -> (f32, f32) {
        ((x - self.left) as f32, (self.height - (y - self.top)) as f32)
    }

    fn text(&mut self, text: &str, left: f64, baseline: f64) {
        let (x, y) = self.place((left, baseline));
        let bytes: Vec<u8> = text.chars().filter_map(encode).collect();
        self.content.begin_text().set_font(FONT, TEXT as f32).next_line(x, y).show(Str(&bytes)).end_text();
    }

    fn heading(&mut self, graph: &Graph) {
        self.content.set_fill_rgb(0.0, 0.0, 0.0);
        let (left, top) = (self.left + MARGIN, self.top + MARGIN);
        for (line, at) in graph.heading.iter().zip(1u32..) {
            self.text(&printable(line), left, top + f64::from(at) * LINE);
        }
    }

    fn node(&mut self, graph: &Graph, lines: &[Vec<String>], shape: &Shape) {
        let Shape::Node { node, left, top, width, height } = shape else { return };
        let about = &graph.nodes[*node];
        let color = fill(about.own.sum(), about.total.mostly(), about.own.mostly());
        let [r, g, b] = color.map(|part| f32::from(part) / 255.0);
        let (x, y) = self.place((*left, top + height));
        self.content.set_fill_rgb(r, g, b).set_stroke_gray(0.2).set_line_width(0.8);
        self.content.rect(x, y, *width as f32, *height as f32).fill_nonzero_and_stroke();
        self.content.set_fill_rgb(0.0, 0.0, 0.0);
        let lines = &lines[*node];
        let first = top + (height - lines.len() as f64 * LINE) / 2.0 + TEXT;
        for (line, at) in lines.iter().zip(0u32..) {
            let indent = (width - line.chars().count() as f64 * CHARACTER) / 2.0;
            self.text(line, left + indent, first + f64::from(at) * LINE);
        }
    }

    /// Writes the weight of a call in the middle of its arrow, on white.
    fn label(&mut self, graph: &Graph, shape: &Shape) {
        let Shape::Edge { edge, start, curves, .. } = shape else { return };
        let at = curves.len() / 2;
        let from = at.checked_sub(1).map_or(*start, |before| curves[before][2]);
        let [one, two, end] = curves[at];
        let middle = |from: f64, one: f64, two: f64, end: f64| (from + 3.0 * one + 3.0 * two + end) / 8.0;
        let (x, y) = (middle(from.0, one.0, two.0, end.0), middle(from.1, one.1, two.1, end.1));
        let text = time(graph.edges[*edge].nanos);
        let width = text.chars().count() as f64 * CHARACTER;
        let (left, bottom) = self.place((x - width / 2.0 - 1.0, y + LINE / 2.0));
        self.content.set_fill_gray(1.0).rect(left, bottom, width as f32 + 2.0, LINE as f32).fill_nonzero();
        self.content.set_fill_gray(0.2);
        self.text(&text, x - width / 2.0, y + TEXT / 3.0);
    }

    fn edge(&mut self, graph: &Graph, shape: &Shape) {
        let Shape::Edge { edge, start, curves, head_at_start } = shape else { return };
        let Some([.., before, end]) = curves.last() else { return };
        let width = width(share(graph.edges[*edge].nanos, graph.whole)) as f32;
        self.content.set_stroke_gray(0.35).set_fill_gray(0.35).set_line_width(width);
        let (x, y) = self.place(*start);
        self.content.move_to(x, y);
        for curve in curves {
            let [(x1, y1), (x2, y2), (x3, y3)] = curve.map(|point| self.place(point));
            self.content.cubic_to(x1, y1, x2, y2, x3, y3);
        }
        self.content.stroke();
        if *head_at_start {
            self.head(curves[0][0], *start);
        } else {
            self.head(*before, *end);
        }
    }

    /// Draws a triangle with its tip at `tip`, pointing away from `from`.
    fn head(&mut self, from: (f64, f64), tip: (f64, f64)) {
        let (dx, dy) = (tip.0 - from.0, tip.1 - from.1);
        let length = dx.hypot(dy);
        if length < 0.01 {
            return;
        }
        let (dx, dy) = (dx / length * HEAD, dy / length * HEAD);
        let (x, y) = self.place(tip);
        self.content.move_to(x, y);
        for side in [0.5, -0.5] {
            let (x, y) = self.place((tip.0 - dx + side * dy, tip.1 - dy - side * dx));
            self.content.line_to(x, y);
        }
        self.content.close_path().fill_nonzero();
    }

    fn finish(self, graph: &Graph) -> Result<Vec<u8>, String> {
        let ids = [1, 2, 3, 4, 5, 6].map(Ref::new);
        let [catalog, pages, page, font, content, info] = ids;
        let scale = (MAX_SIDE / self.width.max(self.height)).min(1.0);
        let mut drawn = Content::new();
        drawn.transform([scale as f32, 0.0, 0.0, scale as f32, 0.0, 0.0]);
        let mut stream = ZlibEncoder::new(Vec::new(), Compression::default());
        let parts = [drawn.finish(), self.content.finish()];
        let written = parts.iter().try_for_each(|part| stream.write_all(part).and_then(|()| stream.write_all(b"\n")));
        let stream = written.and_then(|()| stream.finish()).map_err(|error| error.to_string())?;

        let mut pdf = Pdf::new();
        pdf.catalog(catalog).pages(pages);
        pdf.pages(pages).kids([page]).count(1);
        let mut writer = pdf.page(page);
        writer.media_box(Rect::new(0.0, 0.0, (self.width * scale) as f32, (self.height * scale) as f32));
        writer.parent(pages).contents(content);
        writer.resources().fonts().pair(FONT, font);
        writer.finish();
        pdf.type1_font(font).base_font(Name(b"Courier")).encoding_predefined(Name(b"WinAnsiEncoding"));
        pdf.stream(content, &stream).filter(Filter::FlateDecode);
        let title = graph.heading.first().map(String::as_str).unwrap_or_default();
        pdf.document_info(info).title(TextStr(title)).producer(TextStr("heeler"));
        Ok(pdf.finish())
    }
}
