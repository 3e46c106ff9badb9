//! What the flag's value asks for.

use std::fmt;

use crate::flag::decode;
use crate::profile::form::Form;
use crate::profile::id::Id;
use crate::text::escape;

/// How often one call can have a request run.
pub(crate) const MAX_RUNS: u32 = 1_000;

/// How much of an invalid value is quoted, in characters.
const MAX_QUOTE: usize = 40;

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Profile this request.
    Start(Start),
    /// Show the page of a profile. Clients other than browsers get the profile in its default form.
    Page(Id),
    /// Return the profile in a form.
    Download(Id, Form),
    /// Return how far it is, as JSON.
    Status(Id),
    /// Stop it.
    Cancel(Id),
    /// Confirm what a page has asked, with that question's token.
    Confirm(Id),
    /// Start what was confirmed, with the token of the answer.
    Go(Id),
    /// Return what was kept of the response's body.
    Response(Id),
    /// Compare a profile with an earlier one.
    Compare(Id, Id),
    /// List all stored profiles.
    Index,
}

/// How a request is to be profiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// The form of the answer; the default one if `None`.
    pub(crate) form: Option<Form>,
    /// How often it is to run, 1 to [`MAX_RUNS`]. `None` if that was not given.
    pub(crate) runs: Option<u32>,
    /// Whether to profile what the rest of the process does meanwhile.
    pub(crate) process: bool,
    /// Whether to run it on the application's own runtime.
    pub(crate) inline: bool,
}

/// A value that asks for nothing. Displays as a sentence for the caller. What it quotes is escaped for a terminal, not
/// for HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nonsense(String);

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ask {
    /// Parses the flag's value as it is in the query.
    pub(crate) fn parse(value: &str) -> Result<Self, Nonsense> {
        let value = decode(value);
        let value = value.trim_matches(' ');
        if value == "index" {
            return Ok(Self::Index);
        }
        let (first, rest) = value.split_once('.').map_or((value, None), |(first, rest)| (first, Some(rest)));
        let Ok(id) = first.parse::<Id>() else {
            return Start::words(value).map(Self::Start);
        };
        Ok(match rest {
            None => Self::Page(id),
            Some("status") => Self::Status(id),
            Some("cancel") => Self::Cancel(id),
            Some("confirm") => Self::Confirm(id),
            Some("go") => Self::Go(id),
            Some("response") => Self::Response(id),
            Some(rest) => match (rest.parse::<Form>(), rest.strip_prefix("vs.").map(str::parse::<Id>)) {
                (Ok(form), _) => Self::Download(id, form),
                (_, Some(Ok(other))) => Self::Compare(id, other),
                (_, Some(Err(()))) => {
                    return Err(Nonsense("what comes after `.vs.` is not the id of a profile".into()));
                }
                (_, None) => {
                    let what = escape(rest, MAX_QUOTE);
                    return Err(Nonsense(format!(
                        "a profile has no `{what}`: it can be had as {}, and has a `status`, a `response`, `cancel` and `vs`",
                        forms()
                    )));
                }
            },
        })
    }
}

impl Start {
    /// Parses the header's value. Returns `None` if it declines: `0`, `off`, `false`.
    pub(crate) fn of_header(value: &[u8]) -> Result<Option<Self>, Nonsense> {
        let value = std::str::from_utf8(value).map_err(|_| Nonsense("the header is not ASCII".into()))?;
        match value.trim() {
            "0" | "off" | "false" => Ok(None),
            words => Self::words(words).map(Some),
        }
    }

    /// Parses words separated by commas. Empty ones, `1`, `on` and `true` only say yes.
    fn words(words: &str) -> Result<Self, Nonsense> {
        let mut start = Self::default();
        for word in words.split(',').map(|word| word.trim_matches(' ')) {
            match word {
                "" | "1" | "on" | "true" => {}
                "process" => start.process = true,
                "inline" => start.inline = true,
                word => match (word.parse::<Form>(), runs(word)) {
                    (Ok(form), _) => set(&mut start.form, form, "form")?,
                    (_, Some(runs)) => set(&mut start.runs, runs?, "number of runs")?,
                    (_, None) => return Err(unknown(word)),
                },
            }
        }
        Ok(start)
    }
}

fn set<T: PartialEq>(into: &mut Option<T>, value: T, what: &str) -> Result<(), Nonsense> {
    if into.as_ref().is_some_and(|already| *already != value) {
        return Err(Nonsense(format!("more than one {what}: one profile has one")));
    }
    *into = Some(value);
    Ok(())
}

/// Returns the number of `20x`, or `None` if the word isn't of that form.
fn runs(word: &str) -> Option<Result<u32, Nonsense>> {
    let digits = word.strip_suffix('x').filter(|digits| !digits.is_empty())?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let runs = digits.parse().ok().filter(|runs| (1..=MAX_RUNS).contains(runs));
    Some(runs.ok_or_else(|| Nonsense(format!("a request can be run 1 to {MAX_RUNS} times (`20x`)"))))
}

#[cold]
fn unknown(word: &str) -> Nonsense {
    let word = escape(word, MAX_QUOTE);
    Nonsense(format!(
        "`{word}` is not known: say nothing, or one of {}, a number of runs (`20x`), `process`, `inline`, with commas in \
         between, or `index`, or the id of a profile",
        forms()
    ))
}

fn forms() -> String {
    let names: Vec<_> = Form::ALL.iter().map(|form| format!("`{form}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0000000000000001";
    const TWO: &str = "0123456789abcdef0000000000000002";

    fn start(form: Option<Form>, runs: Option<u32>, process: bool, inline: bool) -> Ask {
        Ask::Start(Start { form, runs, process, inline })
    }

    #[test]
    fn reads_the_whole_grammar() {
        let (one, two): (Id, Id) = (ONE.parse().unwrap(), TWO.parse().unwrap());
        for form in Form::ALL {
            assert_eq!(Ask::parse(form.name()), Ok(start(Some(form), None, false, false)));
            assert_eq!(Ask::parse(&format!("{ONE}.{form}")), Ok(Ask::Download(one, form)));
        }
        for (value, ask) in [
            ("".to_owned(), start(None, None, false, false)),
            ("1".into(), start(None, None, false, false)),
            ("20x".into(), start(None, Some(20), false, false)),
            ("1000x,svg,inline,process".into(), start(Some(Form::Svg), Some(1_000), true, true)),
            ("svg%2C20x".into(), start(Some(Form::Svg), Some(20), false, false)),
            ("+svg+,,svg".into(), start(Some(Form::Svg), None, false, false)),
            ("index".into(), Ask::Index),
            (ONE.into(), Ask::Page(one)),
            (format!("{ONE}.status"), Ask::Status(one)),
            (format!("{ONE}.cancel"), Ask::Cancel(one)),
            (format!("{ONE}.confirm"), Ask::Confirm(one)),
            (format!("{ONE}.go"), Ask::Go(one)),
            (format!("{ONE}.response"), Ask::Response(one)),
            (format!("{ONE}.vs.{TWO}"), Ask::Compare(one, two)),
        ] {
            assert_eq!(Ask::parse(&value), Ok(ask), "{value}");
        }
    }

    /// Guards: an invalid value gets an error, in a sentence that fits it.
    #[test]
    fn explains_what_is_wrong_with_a_value() {
        for (value, why) in [
            ("jpeg".to_owned(), "`jpeg` is not known"),
            ("0x".into(), "1 to 1000 times"),
            ("1001x".into(), "1 to 1000 times"),
            ("99999999999999999999x".into(), "1 to 1000 times"),
            ("-1x".into(), "`-1x` is not known"),
            ("x".into(), "`x` is not known"),
            ("svg,html".into(), "more than one form"),
            ("2x,3x".into(), "more than one number of runs"),
            ("index,svg".into(), "`index` is not known"),
            (ONE[1..].into(), "is not known"),
            (ONE.to_uppercase(), "is not known"),
            (format!("{ONE}."), "a profile has no ``"),
            (format!("{ONE}.jpeg"), "a profile has no `jpeg`"),
            (format!("{ONE}.svg.gz"), "a profile has no `svg.gz`"),
            (format!("{ONE}.vs."), ".vs."),
            (format!("{ONE}.vs.{}", &TWO[1..]), ".vs."),
            (format!("{ONE},svg"), "is not known"),
            ("%00%1b[2J".into(), "\\u{0}"),
            ("%ff".into(), "`%ff` is not known"),
            ("x".repeat(100_000), "(100000 bytes)"),
        ] {
            let nonsense = Ask::parse(&value).unwrap_err().to_string();
            assert!(nonsense.contains(why) && nonsense.len() < 1_000, "{value:.99}: {nonsense}");
        }
    }

    /// Guards: the header can start a profile, with the same words as the parameter, and can decline one.
    #[test]
    fn the_header_starts_or_declines_a_profile() {
        for yes in ["", "1", "on", "true", " on "] {
            assert_eq!(Start::of_header(yes.as_bytes()), Ok(Some(Start::default())), "{yes:?}");
        }
        for no in ["0", "off", "false"] {
            assert_eq!(Start::of_header(no.as_bytes()), Ok(None), "{no:?}");
        }
        let both = Start { form: Some(Form::Json), runs: Some(5), ..Start::default() };
        assert_eq!(Start::of_header(b"json, 5x"), Ok(Some(both)));
        for nonsense in [&b"\xff"[..], b"index", ONE.as_bytes(), b"yes"] {
            assert!(Start::of_header(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
