//! Finds values in SQL whose columns have the names of secrets.

use memchr::{memchr_iter, memchr2, memchr2_iter};

use super::constraints;
use super::found::Found;
use super::looks::is_token_like;
use super::names::{MAX_NAME, Secrecy};
use super::pairs::is_name;
use super::scan::Scan;
use super::values::{is_nothing, quoted};

/// The longest list of columns, in bytes.
const MAX_COLUMNS: usize = 4096;

/// How far apart the parts of a statement may be, in bytes: the table's name, and words of a dialect.
const MAX_APART: usize = 160;

pub(super) fn find(scan: Scan<'_>, text: &str, found: &mut Found) {
    if memchr2(b'\'', b'(', text.as_bytes()).is_none() {
        return;
    }
    literals(scan, text, found);
    rows(scan, text, found);
    inserts(scan, text, found);
}

/// Operators between a column and a string: `token LIKE 'value'`. Values after `=` are found like any pair.
const OPERATORS: [&str; 7] = ["in", "like", "ilike", "is", "<>", "!=", "password"];

/// Finds `PASSWORD 'value'`, `IDENTIFIED BY 'value'`, `token IN ('value', 'value')`.
fn literals(scan: Scan<'_>, text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    let mut until = 0;
    for quote in memchr2_iter(b'\'', b'"', bytes) {
        if quote < until || quote < 3 {
            continue;
        }
        let blanks = |end: usize| end - bytes[..end].iter().rev().take(4).take_while(|&&byte| byte == b' ').count();
        let head = blanks(quote);
        let bracket = head > 0 && bytes[head - 1] == b'(';
        let head = if bracket { blanks(head - 1) } else { head };
        let before = &bytes[..head];
        let direct = !bracket
            && head < quote
            && bytes[quote] == b'\''
            && ["password", "passwd", "secret", "identified by"].iter().any(|word| ends_with(before, word));
        if !direct && !compared(scan, text, head, bracket) {
            continue;
        }
        let end = if bracket {
            let (values, close) = items(bytes, quote);
            values.iter().for_each(|&item| hide(text, item, Secrecy::Usual, found));
            close
        } else {
            let Some((start, end)) = quoted(bytes, quote) else { continue };
            hide_string(text, (start, end), Secrecy::Usual, found);
            end + 1
        };
        until = end;
    }
}

/// Returns whether an operator ends at `end`, after the name of a secret's column.
fn compared(scan: Scan<'_>, text: &str, end: usize, bracket: bool) -> bool {
    let bytes = text.as_bytes();
    let Some(operator) = OPERATORS.iter().find(|word| ends_with(&bytes[..end], word)) else { return false };
    // "there is no such token in 'x'" is prose.
    if (*operator == "in") != bracket {
        return false;
    }
    let mut end = end - operator.len();
    let is_word = operator.bytes().all(|byte| byte.is_ascii_lowercase());
    if is_word && (end == 0 || bytes[end - 1] != b' ') {
        return false;
    }
    while end > 0 && bytes[end - 1] == b' ' {
        end -= 1;
    }
    if ends_with(&bytes[..end], " not") {
        end -= 4;
    }
    let quote = |byte: u8| matches!(byte, b'"' | b'`' | b'\\');
    end -= bytes[..end].iter().rev().take(2).take_while(|&&byte| quote(byte)).count();
    let mut start = end - bytes[..end].iter().rev().take(MAX_NAME).take_while(|&&byte| is_name(byte)).count();
    while !text.is_char_boundary(start) {
        start += 1;
    }
    scan.names.secrecy(&text[start..end]).is_some_and(|secrecy| secrecy > Secrecy::Alone)
}

pub(super) fn ends_with(bytes: &[u8], word: &str) -> bool {
    bytes.len() >= word.len() && bytes[bytes.len() - word.len()..].eq_ignore_ascii_case(word.as_bytes())
}

/// Finds `(name, token) = ('value', 'value')`, `Key (token)=(value) already exists`.
fn rows(scan: Scan<'_>, text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    let mut until = 0;
    for equals in memchr_iter(b'=', bytes) {
        let before = equals - bytes[..equals].iter().rev().take(4).take_while(|&&byte| byte == b' ').count();
        let open = equals + 1 + bytes[equals + 1..].iter().take(4).take_while(|&&byte| byte == b' ').count();
        if equals < until || before == 0 || bytes[before - 1] != b')' || bytes.get(open) != Some(&b'(') {
            continue;
        }
        if let Some(columns) = opened(bytes, before - 1) {
            let close = open - equals == 1 && equals == before;
            let names = secrets(scan, text, columns + 1);
            let is_key = close && is_sure(&names) && constraints::is_key(bytes, columns);
            until = if is_key { constraints::key(text, open, &names, found) } else { row(text, open, &names, found) };
        }
    }
}

/// Returns where the brackets that close at `close` open.
fn opened(bytes: &[u8], close: usize) -> Option<usize> {
    let mut depth = 0;
    for (back, byte) in bytes[..=close].iter().rev().take(MAX_COLUMNS / 8).enumerate() {
        match byte {
            b')' => depth += 1,
            b'(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(close - back);
        }
    }
    None
}

/// Finds `INSERT INTO users (name, password) VALUES ('value', 'value'), ..`
fn inserts(scan: Scan<'_>, text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(next) = memchr2(b'i', b'I', &bytes[at..]) {
        let into = at + next;
        at = into + 1;
        if bytes.get(into..into + 5).is_some_and(|word| word.eq_ignore_ascii_case(b"into ")) {
            at = insert(scan, text, into + 5, found).unwrap_or(at);
        }
    }
}

/// Finds the values inserted into the table whose name begins at `at`. Returns where to continue.
fn insert(scan: Scan<'_>, text: &str, at: usize, found: &mut Found) -> Option<usize> {
    let bytes = text.as_bytes();
    let open = at + memchr::memchr(b'(', near(bytes, at))?;
    let table = text[at..open].trim();
    let end = table.find(|c: char| c.is_whitespace() || c == '\\').unwrap_or(table.len());
    let is_secret = scan.names.secrecy(&table[..end]).is_some_and(|secrecy| secrecy > Secrecy::Alone);
    let mut columns = Vec::new();
    let mut values = open;
    let no_columns = ends_with(table.as_bytes(), "values") && is_word(table.as_bytes(), table.len() - 6, table.len());
    if !no_columns {
        columns = secrets(scan, text, open + 1);
        let list = &bytes[..bytes.len().min(open + MAX_COLUMNS)];
        let close = items(list, open + 1).1;
        let rest = near(bytes, close);
        let word = |word: &str| {
            (0..rest.len().saturating_sub(word.len() - 1)).find(|&at| {
                let end = at + word.len();
                rest[at..end].eq_ignore_ascii_case(word.as_bytes()) && is_word(rest, at, end)
            })
        };
        match (word("values"), word("select")) {
            (Some(found), select) if select.is_none_or(|select| found < select) => {
                values = close + found + "values".len();
            }
            (_, Some(select)) => values = close + select,
            _ => return None,
        }
    }
    if is_secret {
        // Whatever the names of the columns.
        columns = vec![Some(Secrecy::Usual); columns.len().max(1)];
    }
    if columns.iter().all(Option::is_none) {
        return None;
    }
    let blank = |at: usize| at + bytes[at..].iter().take(64).take_while(|byte| byte.is_ascii_whitespace()).count();
    loop {
        values = blank(values);
        if bytes.get(values) != Some(&b'(') {
            break;
        }
        values = blank(row(text, values, &columns, found));
        if bytes.get(values) != Some(&b',') {
            return Some(values);
        }
        values += 1;
    }
    // In a query, all strings.
    let end = text[values..].find(';').map_or(text.len(), |end| values + end);
    let mut at = values;
    while let Some(quote) = memchr::memchr(b'\'', &bytes[at..end]).map(|next| at + next) {
        let Some((start, stop)) = quoted(bytes, quote) else { break };
        hide_string(text, (start, stop.min(end)), Secrecy::Usual, found);
        at = (stop + 1).min(end);
    }
    Some(end)
}

/// Returns whether a word begins at `start` and ends at `end`. An escaped line end may be right before it.
fn is_word(bytes: &[u8], start: usize, end: usize) -> bool {
    let of = |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let escaped = start >= 2 && bytes[start - 2] == b'\\';
    (start == 0 || escaped || !of(start - 1)) && !of(end)
}

fn near(bytes: &[u8], from: usize) -> &[u8] {
    &bytes[from.min(bytes.len())..bytes.len().min(from + MAX_APART)]
}

/// Returns which of the columns listed from `start` on have the names of secrets.
fn secrets(scan: Scan<'_>, text: &str, start: usize) -> Vec<Option<Secrecy>> {
    let list = &text.as_bytes()[..text.len().min(start + MAX_COLUMNS)];
    let secrecy = |(start, end): (usize, usize)| text.get(start..end).and_then(|name| scan.names.secrecy(name));
    items(list, start).0.into_iter().map(secrecy).collect()
}

/// Hides the values of secret columns in a row whose bracket opens at `open`. Hides the whole row if the numbers of
/// values and columns differ. Returns where it ends.
fn row(text: &str, open: usize, columns: &[Option<Secrecy>], found: &mut Found) -> usize {
    let bytes = text.as_bytes();
    let (values, end) = items(bytes, open + 1);
    let closed = bytes[..end].last() == Some(&b')') && end > open + 1;
    if values.len() == columns.len() || (!closed && values.len() < columns.len()) {
        for (&item, secrecy) in values.iter().zip(columns) {
            if let Some(secrecy) = *secrecy {
                hide(text, item, secrecy, found);
            }
        }
    } else if is_sure(columns) {
        hide(text, (open + 1, end - usize::from(closed)), Secrecy::Usual, found);
    }
    end
}

fn is_sure(columns: &[Option<Secrecy>]) -> bool {
    columns.iter().flatten().any(|secrecy| *secrecy > Secrecy::Alone)
}

/// Hides one value of a statement, unless it isn't a value: `$12`, `:name`, `DEFAULT`.
fn hide(text: &str, (start, end): (usize, usize), secrecy: Secrecy, found: &mut Found) {
    let Some(value) = text.get(start..end).map(str::trim) else { return };
    let name = value.strip_prefix(['$', ':', '@', '?']);
    let placeholder = name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    let word = ["default", "null", "now()", "current_timestamp"].iter().any(|word| word.eq_ignore_ascii_case(value));
    if !placeholder && !word {
        hide_string(text, (start, end), secrecy, found);
    }
}

/// Hides what is in quotes, or a whole expression: `md5('value')`. Nothing in quotes is a placeholder.
pub(super) fn hide_string(text: &str, (start, end): (usize, usize), secrecy: Secrecy, found: &mut Found) {
    let Some(raw) = text.get(start..end) else { return };
    let value = raw.trim();
    let quote = |c: char| matches!(c, '\'' | '"' | '\\');
    let bare = if value.starts_with(quote) { value.trim_matches(quote) } else { value };
    if is_nothing(bare) || (secrecy == Secrecy::Alone && !is_token_like(bare)) {
        return;
    }
    let blanks = raw.len() - raw.trim_start().len();
    let start = start + blanks + value.len() - value.trim_start_matches(quote).len();
    found.hide(start, start + bare.len());
}

/// Returns the items between commas from `start` on, until a bracket closes, and the position behind that bracket.
fn items(bytes: &[u8], start: usize) -> (Vec<(usize, usize)>, usize) {
    let mut items = Vec::new();
    let (mut begin, mut at, mut depth) = (start.min(bytes.len()), start, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => at = quoted(bytes, at).map_or(at, |(_, end)| end),
            b'\\' if bytes.get(at + 1) == Some(&b'"') => at = quoted(bytes, at).map_or(at, |(_, end)| end + 1),
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b')' => {
                items.push((begin, at));
                return (items, at + 1);
            }
            b',' if depth == 0 => {
                items.push((begin, at));
                begin = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    items.push((begin, bytes.len()));
    (items, bytes.len())
}
