//! A report as a message for Slack, and for services that accept Slack's messages.
//!
//! Text from a request is put in code. There it can't mention anybody, link or format, in Slack as in Mattermost and
//! Discord. It cannot leave the code, because it has no backtick and no line end.

use serde_json::{Value, json};

use crate::capture::Frame;
use crate::report::{Digest, Report, Stack, StackKind};
use crate::text::escape::push_escaped;
use crate::text::time::timestamp;
use crate::text::units::{at, count, duration};

/// The longest text of a section, as Slack counts: it refuses 3,000 and more.
const MAX_SECTION: usize = 2_900;

/// The longest message without blocks: Discord refuses 2,000 and more.
const MAX_TEXT: usize = 1_900;

/// How much of that the sentence may take. The rest is left to the frames.
const MAX_SENTENCE: usize = 700;

/// The longest that each line around the code may be.
const MAX_LINE: usize = 300;

/// How many stacks, how many frames of each, and how many lines of a digest are shown.
const MAX_STACKS: usize = 4;
const MAX_FRAMES: usize = 4;
const MAX_ENTRIES: usize = 10;

pub(super) fn report(report: &Report) -> Value {
    let process = &report.process;
    let mut head = Text::new(MAX_LINE);
    head.raw("*").raw(report.kind.title()).raw("* on ").plain(&process.hostname).raw(": ");
    head.plain(&report.verdict.as_str().replace('_', " ")).raw(", ").plain(&duration(report.elapsed));

    let mut sentence = Text::new(MAX_SENTENCE);
    sentence.code(&report.sentence());

    let mut about = Text::new(MAX_LINE);
    if let Some(service) = &process.service {
        about.plain(service).raw(" ").plain(process.version.as_deref().unwrap_or_default()).raw(" · ");
    }
    for part in [&process.instance, &process.zone].into_iter().flatten() {
        about.plain(part).raw(" · ");
    }
    if let Some(fleet) = &report.fleet {
        about.plain(&fleet.words()).raw(" · ");
    }
    if report.suppressed > 0 {
        about.plain(&count(report.suppressed, "more report")).raw(" like this held back · ");
    }
    about.raw("report ").plain(&report.id);
    if report.update > 0 {
        about.raw(", update ").plain(&report.update.to_string());
    }
    about.raw(" · ").plain(&timestamp(report.told_at()));
    if let Some(trace) = &report.trace_id {
        about.raw(" · ");
        match &report.trace_url {
            Some(url) => about.link(url, "trace"),
            None => about.raw("trace ").plain(trace),
        };
    }

    message(&head, Some(&sentence), &lines(report), &about)
}

pub(super) fn digest(digest: &Digest) -> Value {
    let entries = digest.entries();
    let mut head = Text::new(MAX_LINE);
    head.raw("*").plain(&count(digest.reports, "more slow report")).raw("* on ").plain(&digest.hostname);
    head.raw(" since ").plain(&timestamp(digest.since)).raw(", beyond the hourly limit");
    if digest.held_back > 0 {
        head.raw("; ").plain(&digest.held_back.to_string()).raw(" like them held back");
    }
    if digest.lost > 0 {
        head.raw("; ").plain(&digest.lost.to_string()).raw(" lost on the way here");
    }
    let lines: Vec<String> = entries
        .iter()
        .take(MAX_ENTRIES)
        .map(|entry| {
            let place = entry.place.as_ref().map(|place| format!(" in {place}")).unwrap_or_default();
            let worst = duration(entry.worst);
            format!("{:>5} ×  {}: {}{place}, up to {worst}", entry.count, entry.what, entry.verdict)
        })
        .collect();
    let rest: u64 = entries.iter().skip(MAX_ENTRIES).map(|entry| entry.count).sum::<u64>() + digest.others;
    let mut about = Text::new(MAX_LINE);
    if let Some(service) = &digest.service {
        about.plain(service).raw(" · ");
    }
    if rest > 0 {
        about.plain(&rest.to_string()).raw(" at other places · ");
    }
    about.raw("until ").plain(&timestamp(digest.until));
    message(&head, None, &lines, &about)
}

/// Creates the message: `text` for notifications and for services that don't know blocks, blocks for those that do.
fn message(head: &Text, sentence: Option<&Text>, lines: &[String], about: &Text) -> Value {
    // `verbatim`: Slack doesn't turn text that looks like links and mentions into them.
    let section = |text: &str| json!({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": true}});
    let intro = match sentence {
        Some(sentence) => format!("{}\n`{}`", head.out, sentence.out),
        None => head.out.clone(),
    };
    let mut blocks = vec![section(&intro)];
    let mut text = intro;
    if !lines.is_empty() {
        blocks.push(section(&fenced(lines, MAX_SECTION)));
        text.push('\n');
        text.push_str(&fenced(lines, MAX_TEXT.saturating_sub(units(&text) + units(&about.out) + 2)));
    }
    blocks.push(json!({
        "type": "context", "elements": [{"type": "mrkdwn", "text": about.out, "verbatim": true}],
    }));
    text.push('\n');
    text.push_str(&about.out);
    // No previews: a client of the service could otherwise make Slack visit any page.
    json!({"text": text, "unfurl_links": false, "unfurl_media": false, "blocks": blocks})
}

/// Puts lines into a block of code.
fn fenced(lines: &[String], max: usize) -> String {
    let mut code = Text::new(max.saturating_sub(8));
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            code.raw("\n");
        }
        code.code(line);
    }
    format!("```\n{}\n```", code.out)
}

/// Returns the stacks of the capture, reduced to the application's own frames.
fn lines(report: &Report) -> Vec<String> {
    let mut stacks: Vec<Vec<String>> = Vec::new();
    for stack in &report.stacks {
        let lines = own_lines(stack);
        if (stack.current || stacks.is_empty()) && !lines.is_empty() && !stacks.contains(&lines) {
            stacks.push(lines);
        }
    }
    let more = stacks.len().saturating_sub(MAX_STACKS);
    let mut out: Vec<String> = stacks.into_iter().take(MAX_STACKS).flatten().collect();
    if more > 0 {
        out.push(format!("and {}", count(more as u64, "more stack")));
    }
    out
}

/// Returns `photos::load  src/photos.rs:41` and its source line, innermost first, below what the stack is of.
fn own_lines(stack: &Stack) -> Vec<String> {
    let own: Vec<&Frame> = stack.frames.iter().filter(|frame| frame.own).collect();
    if own.is_empty() {
        return Vec::new();
    }
    let child = stack.child.as_ref().map(|child| format!(" in its child work {child}")).unwrap_or_default();
    let mut lines = vec![match (stack.kind, &stack.work) {
        (StackKind::Await, _) => format!("waits{child}"),
        (StackKind::Thread, _) => format!("runs{child}"),
        (StackKind::Culprit, Some(work)) => format!("a worker is held by {work}"),
        (StackKind::Culprit, None) => "a worker is held".to_owned(),
    }];
    for frame in own.iter().take(MAX_FRAMES) {
        let place = at(frame.file.as_deref(), frame.line).unwrap_or_default();
        let function = frame.function.as_deref().unwrap_or(if place.is_empty() { &frame.address } else { "" });
        lines.push(format!("  {function}  {place}").trim_end().to_owned());
        lines.extend(frame.source.as_ref().map(|source| format!("      | {source}")));
    }
    if own.len() > MAX_FRAMES {
        lines.push(format!("  and {}", count((own.len() - MAX_FRAMES) as u64, "more own frame")));
    }
    lines
}

/// Returns the length as Slack counts it.
fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Text of a bounded length, escaped for Slack: cut between two characters, never within `&amp;`.
struct Text {
    out: String,
    left: usize,
}

impl Text {
    /// Creates a text with room for `max`, including the `…` that says it was cut.
    const fn new(max: usize) -> Self {
        Self { out: String::new(), left: max.saturating_sub(1) }
    }

    /// Appends markup of our own.
    fn raw(&mut self, markup: &str) -> &mut Self {
        self.push(markup);
        self
    }

    /// Appends a name in running text. It cannot mention anybody: not by `<!here>`, as in Slack, nor by `@here`, as
    /// elsewhere.
    fn plain(&mut self, text: &str) -> &mut Self {
        self.escaped(text, |c| match c {
            '@' => Some("＠"),
            '`' => Some("'"),
            '*' => Some("∗"),
            '~' => Some("∼"),
            _ => None,
        })
    }

    /// Appends a link to a URL of the settings, which was checked when the report was made.
    fn link(&mut self, url: &str, text: &str) -> &mut Self {
        self.push(&format!("<{}|{text}>", url.replace('&', "&amp;")));
        self
    }

    /// Appends one line of code.
    fn code(&mut self, text: &str) -> &mut Self {
        self.escaped(text, |c| (c == '`').then_some("'"))
    }

    fn escaped(&mut self, text: &str, replace: impl Fn(char) -> Option<&'static str>) -> &mut Self {
        let mut piece = String::new();
        for c in text.chars() {
            if self.left == 0 {
                break;
            }
            piece.clear();
            match (c, replace(c)) {
                (_, Some(instead)) => piece.push_str(instead),
                ('&', _) => piece.push_str("&amp;"),
                ('<', _) => piece.push_str("&lt;"),
                ('>', _) => piece.push_str("&gt;"),
                (c, _) => push_escaped(&mut piece, c),
            }
            self.push(&piece);
        }
        self
    }

    /// Appends the piece as a whole. If it doesn't fit, appends `…` instead, and nothing afterwards.
    fn push(&mut self, piece: &str) {
        if self.left == 0 {
            return;
        }
        match self.left.checked_sub(units(piece)) {
            Some(left) if left > 0 => {
                self.left = left;
                self.out.push_str(piece);
            }
            _ => {
                self.left = 0;
                self.out.push('…');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::assemble::location::locate;
    use crate::report::testing::{await_stack, culprit, own, report as example, thread_stack, traced};

    fn text_of(value: &Value, pointer: &str) -> String {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value:#}")).to_owned()
    }

    /// Guards: the whole message reads as people see it.
    #[test]
    fn a_message_reads_as_expected() {
        let mut slow = example();
        slow.location = locate(&slow);
        slow.process.service = Some("photos".to_owned());
        slow.process.version = Some("1.2.0".to_owned());
        slow.suppressed = 2;
        slow.update = 1;
        slow.trace_id = traced().trace_id;
        slow.trace_url = Some("https://tracing.example/trace?id=4bf9&tab=1".to_owned());
        let message = report(&slow);
        let intro = "*Slow request* on web1: waiting, 2.51 s\n`GET /slow/lock is waiting: 2.51 s so far (threshold 2.50 s), \
                     in photos::wait_for_import at examples/photos/slow.rs:88`";
        let code = "```\nwaits\n  photos::wait_for_import  examples/photos/slow.rs:88\n      | let _import = \
                    self.import.lock().await;\n  photos::lock_page  src/app.rs:40\n```";
        let about = "photos 1.2.0 · 2 more reports like this held back · report 8f14e45fceea167a-17, update 1 · \
                     2025-01-01T00:00:02.510Z · <https://tracing.example/trace?id=4bf9&amp;tab=1|trace>";
        assert_eq!(text_of(&message, "/blocks/0/text/text"), intro);
        assert_eq!(text_of(&message, "/blocks/1/text/text"), code);
        assert_eq!(text_of(&message, "/blocks/2/elements/0/text"), about);
        assert_eq!(text_of(&message, "/text"), format!("{intro}\n{code}\n{about}"));
        slow.trace_url = None;
        assert!(text_of(&report(&slow), "/text").ends_with(" · trace 4bf92f3577b34da6a3ce929d0e0e4736"));
    }

    #[test]
    fn each_stack_says_whose_it_is() {
        let mut slow = example();
        let many: Vec<_> = (1..=6).map(|line| own("photos::deep", line)).collect();
        slow.stacks = vec![culprit(&[own("photos::tags", 1)]), thread_stack(&many), await_stack(&[])];
        slow.stacks[1].child = Some("thumbnails".to_owned());
        let expected = [
            "a worker is held by POST /tags",
            "  photos::tags  src/app.rs:1",
            "runs in its child work thumbnails",
            "  photos::deep  src/app.rs:1",
            "  photos::deep  src/app.rs:2",
            "  photos::deep  src/app.rs:3",
            "  photos::deep  src/app.rs:4",
            "  and 2 more own frames",
        ];
        assert_eq!(lines(&slow), expected);
        // An older stack is better than none. With none at all, the block is left out.
        slow.stacks = vec![await_stack(&[own("photos::then", 3)])];
        slow.stacks[0].current = false;
        assert_eq!(lines(&slow), ["waits", "  photos::then  src/app.rs:3"]);
        slow.stacks.clear();
        assert_eq!(report(&slow)["blocks"].as_array().unwrap().len(), 2);
        slow.stacks = (1..9).map(|line| await_stack(&[own("photos::branch", line)])).collect();
        assert_eq!(lines(&slow).last().unwrap(), "and 4 more stacks");
    }

    #[test]
    fn a_digest_lists_the_most_frequent_places() {
        let mut gathered = Digest::of(&example());
        for number in 0..20_u32 {
            let fingerprint = number.to_string();
            gathered.add(&Report { fingerprint, suppressed: u64::from(20 - number), ..example() });
        }
        let message = digest(&gathered);
        assert!(
            text_of(&message, "/text").starts_with("*21 more slow reports* on web1 since 2025-01-01T00:00:02.510Z")
        );
        let code = text_of(&message, "/blocks/1/text/text");
        assert_eq!(code.lines().count(), MAX_ENTRIES + 2);
        assert_eq!(code.lines().nth(1), Some("   21 ×  GET /slow/{what}: waiting, up to 2.51 s"));
        let rest: u64 = 21 + 20 * 21 / 2 - (12..=21).sum::<u64>();
        assert!(text_of(&message, "/blocks/2/elements/0/text").starts_with(&format!("{rest} at other places")));
    }

    /// Returns the text outside of code, which is only what we wrote.
    fn outside_of_code(text: &str) -> String {
        let without_blocks: String = text.split("```").step_by(2).collect();
        without_blocks.split('`').step_by(2).collect()
    }

    fn check(message: &Value) {
        let text = text_of(message, "/text");
        assert!(units(&text) < 2_000, "{}", units(&text));
        let mut texts = vec![text];
        for block in message["blocks"].as_array().unwrap() {
            for pointer in ["/text/text", "/elements/0/text"] {
                texts.extend(block.pointer(pointer).and_then(Value::as_str).map(str::to_owned));
            }
        }
        for text in &texts {
            assert!(units(text) < 3_000 && !text.is_empty());
            assert!(!text.contains(['<', '>']), "{text}");
            let entities = ["&amp;", "&lt;", "&gt;"];
            for (at, _) in text.match_indices('&') {
                assert!(entities.iter().any(|entity| text[at..].starts_with(entity)), "a bare & in {text}");
            }
            let outside = outside_of_code(text);
            assert!(!outside.contains('@') && outside.matches('*').count().is_multiple_of(2), "{outside}");
            assert_eq!(text.matches("```").count() % 2, 0);
            let inline: String = text.split("```").step_by(2).collect();
            assert_eq!(inline.matches('`').count() % 2, 0, "{text}");
        }
    }

    /// Guards: a request mentions nobody, links nowhere, cannot leave its code block, and is not refused for its length.
    #[test]
    fn hostile_requests_mention_and_link_nothing() {
        let hostile = [
            "/<!channel> <!here|x> <@U024BE7LH> @everyone @channel",
            "/`` ` ```\n<http://evil.example|click here>\n```",
            "http://evil.example/[x](http://evil.example) *bold* _x_ ~y~",
            "/&amp;&lt;&&&&\u{202e}\u{200b}\u{0}\u{1b}[31m",
        ];
        for uri in hostile {
            for long in [1, 10_000] {
                let mut slow = example();
                slow.request.as_mut().unwrap().uri = uri.repeat(long);
                slow.request.as_mut().unwrap().route = Some(uri.repeat(long));
                slow.request.as_mut().unwrap().method = uri.repeat(long);
                for name in [&mut slow.process.hostname, &mut slow.id, slow.process.service.insert(String::new())] {
                    *name = uri.repeat(long);
                }
                let stack = &mut slow.stacks[0];
                stack.work = Some(uri.repeat(long));
                stack.child = Some(uri.repeat(long));
                stack.frames.iter_mut().for_each(|frame| frame.source = Some(uri.repeat(long)));
                stack.frames[3].function = Some(uri.repeat(long));
                slow.location = locate(&slow);
                check(&report(&slow));
                check(&digest(&Digest::of(&slow)));
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_makes_a_valid_message(uri in "[`<>&@*~a-z\\PC\n]{0,80}", name in any::<String>(), repeat in 1_usize..200) {
            let mut slow = example();
            slow.request.as_mut().unwrap().uri = uri.repeat(repeat);
            slow.process.hostname.clone_from(&name);
            slow.stacks[0].child = Some(uri.repeat(repeat));
            slow.stacks[0].frames[3].source = Some(name);
            check(&report(&slow));
        }
    }
}
