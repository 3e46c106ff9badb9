//! Where the boxes and arrows of a call graph go: in layers from callers to callees, computed by `layout-rs`.
//!
//! On graphs that it considers large, some of its steps take longer than anybody waits. So it gets no labels, because
//! each label counts as a node, and it does not look for fewer crossings where there are too many to count.

use std::panic::{AssertUnwindSafe, catch_unwind};

use layout::core::base::Orientation;
use layout::core::color::Color;
use layout::core::format::{ClipHandle, RenderBackend};
use layout::core::geometry::Point;
use layout::core::style::{LineStyleKind, StyleAttr};
use layout::std_shapes::shapes::{Arrow, Element, LineEndKind, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::graph::{Edge, Graph};

/// The size of text. Units are PDF's, and a character of Courier is 0.6 of that wide.
pub(super) const TEXT: f64 = 9.0;
pub(super) const LINE: f64 = 1.25 * TEXT;
pub(super) const CHARACTER: f64 = 0.6 * TEXT;

/// The space between a box's text and its edge.
const PADDING: f64 = 6.0;

/// How many comparisons a count of crossings may need. The layout counts more than fifty times.
const MAX_CROSSINGS: usize = 50_000;

/// A shape with its position: x grows to the right, y down.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// The node with that number.
    Node { node: usize, left: f64, top: f64, width: f64, height: f64 },
    /// The edge with that number: where it starts, and its curves, each with two control points and an end.
    Edge { edge: usize, start: (f64, f64), curves: Vec<[(f64, f64); 3]>, head_at_start: bool },
}

/// Lays the graph out. `lines`: the text of each node.
///
/// # Errors
///
/// Returns an error in words if `layout-rs` gives up.
pub(super) fn lay_out(graph: &Graph, lines: &[Vec<String>]) -> Result<Vec<Shape>, String> {
    if graph.nodes.is_empty() {
        return Ok(Vec::new());
    }
    let order = order(graph);
    let mut visual = VisualGraph::new(Orientation::TopToBottom);
    // Its checks walk all paths through the graph, and there may be too many to walk. For the same reason edges must
    // come in this order: then its search for a cycle ends at once.
    visual.dag.set_validate(false);
    let look = StyleAttr::new(Color::fast("black"), 1, None, 0, 1);
    let handles: Vec<_> = lines
        .iter()
        .enumerate()
        .map(|(at, lines)| {
            let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
            let size =
                Point::new(longest as f64 * CHARACTER + 2.0 * PADDING, lines.len() as f64 * LINE + 2.0 * PADDING);
            visual.add_node(Element::create_with_properties(
                ShapeKind::new_box(""),
                look.clone(),
                Orientation::TopToBottom,
                size,
                at.to_string(),
            ))
        })
        .collect();
    let mut edges: Vec<usize> = (0..graph.edges.len()).collect();
    edges.sort_by_key(|&at| {
        let edge = &graph.edges[at];
        let (from, to) = (order[edge.from], order[edge.to]);
        (from.min(to), from.max(to), at)
    });
    for at in edges {
        let edge = &graph.edges[at];
        let back = order[edge.from] > order[edge.to];
        let (from, to) = if back { (edge.to, edge.from) } else { (edge.from, edge.to) };
        let (start, end) =
            if back { (LineEndKind::Arrow, LineEndKind::None) } else { (LineEndKind::None, LineEndKind::Arrow) };
        let style = LineStyleKind::Normal;
        let arrow = Arrow::with_properties(start, end, style, "", &look, at.to_string(), &None, &None);
        visual.add_edge(arrow, handles[from], handles[to]);
    }
    let mut shapes = Shapes(Vec::new());
    // It has assertions of its own. A graph that it cannot lay out must not make anything else fail.
    let hasty = crossings(graph, &order) > MAX_CROSSINGS;
    catch_unwind(AssertUnwindSafe(|| visual.do_it(false, hasty, false, &mut shapes)))
        .map_err(|_| "its call graph could not be laid out; `dot` can be had".to_owned())?;
    Ok(shapes.0)
}

/// Returns each node's place in an order in which callers come before what they call, except for calls that close a
/// cycle.
fn order(graph: &Graph) -> Vec<usize> {
    let mut calls = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        calls[edge.from].push(edge.to);
    }
    let mut called = vec![false; graph.nodes.len()];
    for edge in &graph.edges {
        called[edge.to] = true;
    }
    // Starts from those that nobody calls, depth first. A node is done after everything that it calls.
    let roots = (0..graph.nodes.len()).filter(|&node| !called[node]).chain(0..graph.nodes.len());
    let mut order = vec![0; graph.nodes.len()];
    let mut next = graph.nodes.len();
    let mut seen = vec![false; graph.nodes.len()];
    for root in roots {
        if std::mem::replace(&mut seen[root], true) {
            continue;
        }
        let mut path = vec![(root, 0)];
        while let Some((node, at)) = path.last_mut() {
            if let Some(&callee) = calls[*node].get(*at) {
                *at += 1;
                if !std::mem::replace(&mut seen[callee], true) {
                    path.push((callee, 0));
                }
            } else {
                next -= 1;
                order[*node] = next;
                path.pop();
            }
        }
    }
    order
}

/// Estimates how many comparisons a count of the crossings takes: of all pairs in a row with all in the next, where an
/// edge has a place in each row that it passes.
fn crossings(graph: &Graph, order: &[usize]) -> usize {
    let span = |edge: &Edge| (order[edge.from].min(order[edge.to]), order[edge.from].max(order[edge.to]));
    let mut edges: Vec<(usize, usize)> = graph.edges.iter().map(span).collect();
    edges.sort_unstable();
    // In the order of their places. No row is above that of a caller.
    let mut row = vec![0; order.len()];
    for &(from, to) in &edges {
        row[to] = row[to].max(row[from] + 1);
    }
    let mut wide = vec![0; row.len() + 1];
    for &row in &row {
        wide[row] += 1;
    }
    for &(from, to) in &edges {
        wide[row[from] + 1..row[to]].iter_mut().for_each(|wide| *wide += 1);
    }
    wide.windows(2).map(|rows| rows[0] * rows[0] * rows[1]).sum()
}

/// Records what the layout draws.
struct Shapes(Vec<Shape>);

impl RenderBackend for Shapes {
    fn draw_rect(&mut self, xy: Point, size: Point, _: &StyleAttr, properties: Option<String>, _: Option<ClipHandle>) {
        if let Some(node) = properties.and_then(|node| node.parse().ok()) {
            self.0.push(Shape::Node { node, left: xy.x, top: xy.y, width: size.x, height: size.y });
        }
    }

    fn draw_line(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn draw_circle(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn draw_text(&mut self, _: Point, _: &str, _: &StyleAttr) {}

    fn draw_arrow(
        &mut self,
        path: &[(Point, Point)],
        _: bool,
        head: (bool, bool),
        _: &StyleAttr,
        properties: Option<String>,
        _: &str,
    ) {
        let Some(edge) = properties.and_then(|edge| edge.parse().ok()) else { return };
        let [(start, leaving), (arriving, end), rest @ ..] = path else { return };
        let point = |point: &Point| (point.x, point.y);
        let mut curves = vec![[point(leaving), point(arriving), point(end)]];
        for (arriving, end) in rest {
            // A smooth curve goes on in the direction in which the one before it ended. Its first control point is the
            // last one of that curve, mirrored.
            let [_, before, from] = curves[curves.len() - 1];
            let leaving = (2.0 * from.0 - before.0, 2.0 * from.1 - before.1);
            curves.push([leaving, point(arriving), point(end)]);
        }
        self.0.push(Shape::Edge { edge, start: point(start), curves, head_at_start: head.0 });
    }

    fn create_clip(&mut self, _: Point, _: Point, _: usize) -> ClipHandle {
        0
    }
}
