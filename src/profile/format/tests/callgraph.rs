//! The call graph: DOT through Graphviz, PDF through poppler or MuPDF.

use std::path::Path;

use super::super::graph::graph;
use super::*;

/// Returns the text of a PDF, or `None`, with a message, if no program here can read one.
pub(super) fn pdf_text(file: &Path) -> Option<String> {
    let run = Command::new("pdftotext").args(["-layout", "-enc", "UTF-8"]).arg(file).arg("-").output();
    if let Ok(output) = run {
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Poppler repairs what is broken, and says so.
        assert!(output.status.success() && stderr.is_empty(), "{stderr}");
        return Some(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    consume("mutool", &["draw", "-F", "text"], file)
}

/// Checks what must hold for any graph: labels are closed, and nothing but heeler's own is in the PDF.
pub(super) fn check(profile: &Profile) {
    let dot = text(Form::Dot, profile);
    assert!(!dot.contains(|c: char| c.is_control() && c != '\n'));
    for line in dot.lines().filter(|line| line.starts_with("  ")) {
        assert!(line.ends_with("];"), "{line}");
        let quotes = line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
        assert_eq!(quotes % 2, 0, "{line}");
    }
    let pdf = bytes(Form::Pdf, profile);
    assert!(pdf.starts_with(b"%PDF-") && pdf.ends_with(b"%%EOF"));
}

/// Guards: self time, total and recursion of the boxes. Calls count once per stack, and skip functions that are not drawn.
#[test]
fn the_graph_counts_calls_once_per_stack() {
    let mut builder = ProfileBuilder::new();
    let walk = [own("app::main", 1), own("app::walk", 1), own("app::walk", 2), own("app::leaf", 1)];
    builder.slice(State::OnCpu, 600_000_000, 6, &walk);
    builder.slice(State::Waiting, 399_000_000, 1, &[own("app::main", 1), own("app::walk", 3)]);
    let small = [own("app::main", 1), own("app::tiny", 1), own("app::leaf", 1)];
    builder.slice(State::OnCpu, 1_000_000, 1, &small);
    let graph = graph(&builder.build());
    let nodes: Vec<_> =
        graph.nodes.iter().map(|node| (&*node.name, node.own.sum(), node.total.sum(), node.recursive)).collect();
    assert_eq!(
        nodes,
        [
            ("app::main", 0, 1_000_000_000, false),
            ("app::walk", 399_000_000, 999_000_000, true),
            ("app::leaf", 601_000_000, 601_000_000, false),
        ]
    );
    let edges: Vec<_> = graph.edges.iter().map(|edge| (edge.from, edge.to, edge.nanos)).collect();
    assert_eq!(edges, [(0, 1, 999_000_000), (1, 2, 600_000_000), (0, 2, 1_000_000)]);
    assert_eq!(graph.nodes[2].figures(graph.whole), "self 601 ms (60.1 %) of 601 ms (60.1 %)");
    assert_eq!(
        graph.heading,
        [
            "GET /slow/lock: 1.00 s",
            "1 function is not drawn: none of more than 1.0 ms (0.1 %), together 0 ms (0.0 %) of their own"
        ]
    );
}

/// Guards: Graphviz parses the graph, and finds its boxes and arrows.
#[test]
fn graphviz_reads_the_graph() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("graph.dot");
    std::fs::write(&file, text(Form::Dot, &sample())).unwrap();
    let Some(plain) = consume("dot", &["-Tplain"], &file) else { return };
    let lines = |start: &str| plain.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((lines("node "), lines("edge ")), (7, 5), "{plain}");
    assert!(plain.contains("app::parse") && plain.contains("30 ms"), "{plain}");
}

/// Guards: a PDF reader finds what the graph says, including characters that the font does not have.
#[test]
fn a_pdf_reader_finds_the_text() {
    let mut profile = sample();
    profile.request.uri = "/größe/中".to_owned();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("graph.pdf");
    std::fs::write(&file, bytes(Form::Pdf, &profile)).unwrap();
    let Some(text) = pdf_text(&file) else { return };
    for expected in [
        "GET /größe/\\u{4e2d}: 100 ms",
        "app::handler",
        "app::digit",
        "self 30 ms (30.0 %) of 30 ms (30.0 %)",
        "self 0 ms (0.0 %) of 95 ms (95.0 %)",
        "[not scheduled]",
        "src/app.rs",
    ] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
}

/// Guards: the layout neither fails on a graph with very many paths, nor follows all of them.
#[test]
fn dense_graphs_are_laid_out() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let functions = random.u32(2..90);
        let mut builder = ProfileBuilder::new();
        for _ in 0..random.u32(1..400) {
            let deep = random.usize(1..30);
            let stack: Vec<Frame> = (0..deep).map(|_| own(&format!("app::f{}", random.u32(0..functions)), 1)).collect();
            builder.slice(State::OnCpu, random.u64(1..1_000_000), 1, &stack);
        }
        let profile = builder.build();
        check(&profile);
        assert!(graph(&profile).nodes.len() <= 60 && graph(&profile).edges.len() <= 120);
    }
}
