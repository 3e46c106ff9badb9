//! What a request to the console asks for.

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Page(View),
    /// One piece of work, by its id.
    Work(String),
    /// A form of a dump.
    Form(Form),
    /// The last report with that fingerprint, as a page or in a form.
    Report(String, Option<Form>),
    /// Reports of that fingerprint, of all instances.
    Shared(String),
    /// A stored profile, by its id.
    Profile(String, Form),
    /// News of the table.
    Events,
}

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    InFlight,
    Places,
    Resources,
    Threads,
    Runtimes,
    History,
    Fleet,
    Switches,
}

/// A document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    Svg,
    Table,
}

/// The order of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Sort {
    #[default]
    Age,
    Place,
    Route,
    Polls,
    Left,
}

/// Which lines the table has, in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Filter {
    pub(super) sort: Sort,
    /// In lower case.
    pub(super) text: String,
}

impl Sort {
    pub(super) const ALL: [Self; 5] = [Self::Age, Self::Place, Self::Route, Self::Polls, Self::Left];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Place => "place",
            Self::Route => "route",
            Self::Polls => "polls",
            Self::Left => "left",
        }
    }
}

impl Sort {
    /// Returns the direction, as `aria-sort` names it.
    pub(super) const fn direction(self) -> &'static str {
        match self {
            Self::Age | Self::Polls => "descending",
            Self::Place | Self::Route | Self::Left => "ascending",
        }
    }
}

impl View {
    pub(super) const ALL: [Self; 8] = [
        Self::InFlight,
        Self::Places,
        Self::Resources,
        Self::Threads,
        Self::Runtimes,
        Self::History,
        Self::Fleet,
        Self::Switches,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Places => "places",
            Self::Resources => "resources",
            Self::Threads => "threads",
            Self::Runtimes => "runtimes",
            Self::History => "history",
            Self::Fleet => "fleet",
            Self::Switches => "switches",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::InFlight => "In flight",
            Self::Places => "By place",
            Self::Resources => "Held and awaited",
            Self::Threads => "Threads",
            Self::Runtimes => "Runtimes",
            Self::History => "History",
            Self::Fleet => "Fleet",
            Self::Switches => "Switches",
        }
    }
}

/// The most characters of a text to search for.
const MAX_TEXT: usize = 200;

/// Returns what a query asks for, or `None` if that does not exist.
pub(super) fn parse(query: &str) -> Option<(Asked, Filter)> {
    let (mut asked, mut filter) = (Asked::Page(View::InFlight), Filter::default());
    for (name, value) in
        query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
    {
        match name {
            "view" => asked = Asked::Page(View::ALL.into_iter().find(|view| view.as_str() == value)?),
            "work" => asked = Asked::Work(Some(value).filter(|id| is_id(id))?.to_owned()),
            "report" => asked = Asked::Report(Some(value).filter(|id| is_id(id))?.to_owned(), None),
            "fleet" => asked = Asked::Shared(Some(value).filter(|id| is_id(id))?.to_owned()),
            "profile" => asked = Asked::Profile(Some(value).filter(|id| is_profile(id))?.to_owned(), Form::Svg),
            "form" => {
                let form = match value {
                    "text" => Form::Text,
                    "json" => Form::Json,
                    "svg" => Form::Svg,
                    "table" => Form::Table,
                    _ => return None,
                };
                asked = match asked {
                    Asked::Report(fingerprint, _) => Asked::Report(fingerprint, Some(form)),
                    Asked::Profile(id, _) => Asked::Profile(id, form),
                    _ => Asked::Form(form),
                };
            }
            "events" => asked = Asked::Events,
            "sort" => filter.sort = Sort::ALL.into_iter().find(|sort| sort.as_str() == value)?,
            "q" => filter.text = decoded(value).chars().take(MAX_TEXT).flat_map(char::to_lowercase).collect(),
            _ => {}
        }
    }
    Some((asked, filter))
}

fn is_id(id: &str) -> bool {
    id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_profile(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Decodes a value as forms encode it. What is not UTF-8 is replaced.
fn decoded(value: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(value.len()), value.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let code = after.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Encodes a value for a query.
pub(super) fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_says_what_is_asked() {
        let asked = |query: &str| parse(query).map(|(asked, _)| asked);
        assert_eq!(asked(""), Some(Asked::Page(View::InFlight)));
        assert_eq!(asked("view=places"), Some(Asked::Page(View::Places)));
        assert_eq!(asked("form=svg&x"), Some(Asked::Form(Form::Svg)));
        assert_eq!(asked("work=5cf400b2380cbd97"), Some(Asked::Work("5cf400b2380cbd97".to_owned())));
        for nonsense in ["view=x", "form=", "work=../etc/passwd", "work=5cf400b2380cbd9z", "sort=size"] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
        let (_, filter) = parse("events&sort=left&q=GET+%2Fa%zz%C3%84").unwrap();
        assert_eq!(filter, Filter { sort: Sort::Left, text: "get /a%zzä".to_owned() });
    }

    proptest! {
        /// Guards: nothing in a query makes it panic, and what is encoded is read as it was.
        #[test]
        fn any_query_is_read(query in any::<String>(), text in "[a-z0-9äß /%&=+#]{0,50}") {
            let _ = parse(&query);
            let (_, filter) = parse(&format!("q={}", encoded(&text))).unwrap();
            prop_assert_eq!(filter.text, text);
        }
    }
}
