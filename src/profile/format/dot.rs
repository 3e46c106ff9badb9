//! The call graph in DOT, for Graphviz and others: a box is a function, an arrow a call.

use std::fmt::Write as _;

use super::graph::{Graph, graph, share, time};
use super::names::color;
use crate::profile::Profile;

pub(super) fn dot(profile: &Profile) -> String {
    let graph = graph(profile);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, &graph);
    out
}

fn write(out: &mut String, graph: &Graph) -> std::fmt::Result {
    let heading: Vec<String> = graph.heading.iter().map(|line| quoted(line)).collect();
    writeln!(out, "digraph profile {{")?;
    writeln!(out, "  graph [label=\"{}\\l\", labelloc=t, labeljust=l, fontname=Courier];", heading.join("\\l"))?;
    writeln!(out, "  node [shape=box, style=filled, fontname=Courier, fontsize=11];")?;
    writeln!(out, "  edge [fontname=Courier, fontsize=10];")?;
    for (at, node) in graph.nodes.iter().enumerate() {
        let mut lines = vec![quoted(&node.name)];
        lines.extend(node.place.as_deref().map(quoted));
        lines.push(quoted(&node.figures(graph.whole)));
        if node.recursive {
            lines.push("calls itself".to_owned());
        }
        let [r, g, b] = fill(node.own.sum(), node.total.mostly(), node.own.mostly());
        writeln!(out, "  n{at} [label=\"{}\", fillcolor=\"#{r:02x}{g:02x}{b:02x}\"];", lines.join("\\n"))?;
    }
    for edge in &graph.edges {
        let share = share(edge.nanos, graph.whole);
        // Graphviz draws heavy edges short and straight.
        let weight = 1 + (share * 100.0) as u32;
        let width = width(share);
        let label = time(edge.nanos);
        writeln!(out, "  n{} -> n{} [label=\"{label}\", weight={weight}, penwidth={width:.1}];", edge.from, edge.to)?;
    }
    writeln!(out, "}}")
}

/// Returns the colour of a function. One with time of its own has the colour of what it did then. Others have a pale
/// colour of what was done below them.
pub(super) fn fill(own: u64, total: crate::profile::State, mostly: crate::profile::State) -> [u8; 3] {
    if own > 0 { color(mostly) } else { color(total).map(|part| 255 - (255 - part) / 3) }
}

/// How wide an arrow is drawn, in points.
pub(super) fn width(share: f64) -> f64 {
    0.6 + 4.0 * share.clamp(0.0, 1.0)
}

/// Quotes text for use between quotation marks. In labels a backslash begins an escape, and `&` an entity.
fn quoted(text: &str) -> String {
    text.replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"")
}
