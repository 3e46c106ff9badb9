//! Random queries, values and ids. Four thousand cases each. `HEELER_FUZZ` sets another number. A million take about
//! two minutes in a release build.

use http::Uri;
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::profile::id::Id;

fn config() -> Config {
    let cases = std::env::var("HEELER_FUZZ").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4_000);
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Parameters that look like the flag more often than others do.
fn parameter() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-zA-Z0-9_=%;+?/.:@!$'()*,~é-]{0,12}",
        1 => "_{0,3}geordi_{0,3}[=%;]{0,2}[a-z0-9,.]{0,5}",
        1 => Just("__geordi__".to_owned()),
        1 => "__geordi__=[a-z0-9,.%&=]{0,9}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    proptest::collection::vec(parameter(), 0..6).prop_map(|parameters| parameters.join("&"))
}

fn is_flag(parameter: &str, name: &str) -> bool {
    parameter == name || parameter.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

/// A plain split at `&`.
fn first_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let flag = query.split('&').find(|parameter| is_flag(parameter, name))?;
    Some(flag.split_once('=').map_or("", |(_, value)| value))
}

proptest! {
    #![proptest_config(config())]

    /// Guards: the flag is found and removed exactly as a plain split at `&` does it, and nothing else changes.
    #[test]
    fn finds_and_strips_the_flag_in_any_query(query in query(), front in prop_oneof![Just(""), Just("http://u@example.com:1")], path in "/[a-z_&=%é]{0,5}") {
        let Ok(uri) = format!("{front}{path}?{query}").parse::<Uri>() else { return Ok(()) };
        let (flag, value) = (Flag::default(), first_value(&query, DEFAULT_NAME));
        prop_assert_eq!(flag.find_in(&query), value);
        let left: Vec<_> = query.split('&').filter(|parameter| !is_flag(parameter, flag.name())).collect();
        let left = left.join("&");
        let expected = match (value, left.as_str()) {
            (None, _) => uri.to_string(),
            (Some(_), "") => format!("{front}{path}"),
            (Some(_), left) => format!("{front}{path}?{left}"),
        };
        let stripped = flag.strip(&uri);
        prop_assert_eq!(stripped.to_string(), expected);
        prop_assert_eq!(flag.find(&stripped), None);
    }

    /// Guards: a name that can overlap itself is found wherever it is.
    #[test]
    fn finds_names_that_overlap_themselves(name in "[ab~]{1,7}", query in "[ab~=&]{0,40}") {
        let flag = Flag::new(&name).unwrap();
        prop_assert_eq!(flag.find_in(&query), first_value(&query, &name));
    }

    /// Guards: any text at all is either a valid value or gets an error that is short and safe to print.
    #[test]
    fn any_value_is_a_question_or_an_error(value in prop_oneof![any::<String>(), "[0-9a-fxsvg,.%+ -]{0,70}", "[0-9a-f]{32}(\\.[a-z.0-9]{0,40})?"]) {
        for asked in [Ask::parse(&value).map(drop), Start::of_header(value.as_bytes()).map(drop)] {
            if let Err(nonsense) = asked {
                let sentence = nonsense.to_string();
                prop_assert!(sentence.len() < 1_500 && !sentence.contains(char::is_control), "{}", sentence);
            }
        }
        if let Ok(Ask::Start(Start { runs: Some(runs), .. })) = Ask::parse(&value) {
            prop_assert!((1..=MAX_RUNS).contains(&runs));
        }
    }

    /// Guards: header bytes that are not valid text cause no panic.
    #[test]
    fn any_header_bytes_are_handled_without_panic(value in any::<Vec<u8>>()) {
        let _ = Start::of_header(&value);
    }

    /// Guards: an id is its 32 digits, and nothing else is one.
    #[test]
    fn only_32_hex_digits_are_an_id(text in prop_oneof![any::<String>(), "[0-9a-fA-Fg+]{31,33}", "[0-9a-f]{32}"]) {
        let is_id = text.len() == 32 && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
        let id = text.parse::<Id>();
        prop_assert_eq!(id.is_ok(), is_id);
        if let Ok(id) = id {
            prop_assert_eq!(id.to_string(), &*text);
            prop_assert_eq!(Ask::parse(&text), Ok(Ask::Page(id)));
            prop_assert_eq!(Ask::parse(&format!("{text}.vs.{text}")), Ok(Ask::Compare(id, id)));
        }
    }
}
