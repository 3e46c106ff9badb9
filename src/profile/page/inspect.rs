//! Reads a page as a browser does, for tests: its elements and its text. Fails on anything that no page of heeler's
//! has.

/// The content of a page.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// All text except scripts and styles, one piece per line.
    pub(super) text: String,
    /// Where links and forms lead.
    pub(super) targets: Vec<String>,
    /// The documents in frames.
    pub(super) frames: Vec<Seen>,
    /// The number of scripts, in it and in its frames.
    pub(super) scripts: usize,
    /// How high its pictures' boxes say the pictures are, as widths of the row right under the whole.
    pub(super) ids: Vec<String>,
}

const ELEMENTS: [&str; 49] = [
    "html",
    "head",
    "meta",
    "title",
    "link",
    "style",
    "script",
    "noscript",
    "body",
    "nav",
    "main",
    "a",
    "h1",
    "h2",
    "p",
    "b",
    "code",
    "bdi",
    "span",
    "strong",
    "ul",
    "li",
    "dl",
    "dt",
    "dd",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "div",
    "fieldset",
    "legend",
    "input",
    "label",
    "iframe",
    "form",
    "button",
    "output",
    "svg",
    "defs",
    "linearGradient",
    "stop",
    "rect",
    "text",
    "g",
    "br",
];

const ATTRIBUTES: [&str; 56] = [
    "lang",
    "charset",
    "content",
    "http-equiv",
    "name",
    "rel",
    "href",
    "nonce",
    "class",
    "id",
    "role",
    "aria-label",
    "aria-hidden",
    "aria-live",
    "title",
    "type",
    "checked",
    "for",
    "sandbox",
    "loading",
    "height",
    "width",
    "srcdoc",
    "scope",
    "tabindex",
    "method",
    "action",
    "value",
    "placeholder",
    "autocomplete",
    "spellcheck",
    "hidden",
    "disabled",
    "viewBox",
    "preserveAspectRatio",
    "x",
    "y",
    "x1",
    "x2",
    "y1",
    "y2",
    "fill",
    "version",
    "xmlns",
    "xmlns:xlink",
    "xmlns:fg",
    "total_samples",
    "fg:x",
    "fg:w",
    "stop-color",
    "offset",
    "data-status",
    "onload",
    "dir",
    "datetime",
    "alt",
];

/// Reads a page whose scripts and styles have this nonce.
pub(super) fn inspect(page: &str, nonce: &str) -> Seen {
    let mut seen = Seen::default();
    let mut rest = page;
    while let Some((text, after)) = rest.split_once('<') {
        seen.text.push_str(&decoded(text));
        if after.starts_with("!--") {
            rest = after.split_once("-->").expect("a comment ends").1;
            continue;
        }
        let (name, attributes, after) = tag(after);
        rest = after;
        seen.text.push('\n');
        if name.starts_with(['/', '!']) {
            continue;
        }
        assert!(ELEMENTS.contains(&name), "<{name}>");
        element(&mut seen, name, &attributes, nonce);
        if matches!(name, "script" | "style") {
            let end = format!("</{name}>");
            rest = &rest[rest.find(&end).expect("it ends")..];
        }
    }
    seen.text.push_str(&decoded(rest));
    seen
}

fn element(seen: &mut Seen, name: &str, attributes: &[(String, String)], nonce: &str) {
    let get = |wanted: &str| attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    for (attribute, value) in attributes {
        assert!(ATTRIBUTES.contains(&attribute.as_str()), "<{name} {attribute}>");
        assert!(!attribute.starts_with("on"), "{attribute} needs a handler");
        if matches!(attribute.as_str(), "href" | "action" | "data-status") && !value.starts_with("data:,") {
            assert!(value.starts_with('?'), "to another place: {value}");
            seen.targets.push(value.clone());
        }
    }
    seen.ids.extend(get("id").map(str::to_owned));
    match name {
        "script" | "style" => {
            assert_eq!(get("nonce"), Some(nonce), "<{name}>");
            seen.scripts += usize::from(name == "script");
        }
        "iframe" => {
            assert_eq!(get("sandbox"), Some("allow-scripts"), "no origin");
            let frame = inspect(get("srcdoc").expect("nothing is loaded"), nonce);
            seen.scripts += frame.scripts;
            seen.frames.push(frame);
        }
        _ => {}
    }
}

/// Returns name and attributes of the tag at the beginning, and the rest.
fn tag(text: &str) -> (&str, Vec<(String, String)>, &str) {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '>')).expect("a tag ends");
    let (name, mut rest) = text.split_at(end);
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if let Some(rest) = rest.strip_prefix('>') {
            return (name.trim_end_matches('/'), attributes, rest);
        }
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '=' | '>')).expect("a tag ends");
        let (attribute, after) = rest.split_at(end);
        let Some(value) = after.strip_prefix('=') else {
            attributes.push((attribute.to_owned(), String::new()));
            rest = after;
            continue;
        };
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'')).expect("values are quoted");
        let (value, after) = value[1..].split_once(quote).expect("a value ends");
        attributes.push((attribute.to_owned(), decoded(value)));
        rest = after;
    }
}

fn decoded(text: &str) -> String {
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    named.iter().fold(text.to_owned(), |text, (entity, c)| text.replace(entity, c))
}
