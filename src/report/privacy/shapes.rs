//! Finds secrets by their shape alone: keys with the prefix of their issuer, signed tokens, and long random strings.

use super::found::Found;
use super::looks::{TOKEN, decoded, is_hash, is_slug, is_token, mixed};
use super::scan::Scan;

/// The shortest random string that is taken for a secret although nothing says so: 30 bytes as base64. A shorter one is
/// more often the id of a video, an image, a document.
const RANDOM: usize = 40;

/// The characters of a key.
#[derive(Clone, Copy)]
enum Of {
    /// `[A-Z0-9]`
    Upper,
    /// `[A-Za-z0-9]`
    Letters,
    /// `[A-Za-z0-9_-]`
    Token,
    /// `[A-Za-z0-9_.-]`
    Dotted,
}

impl Of {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Letters => byte.is_ascii_alphanumeric(),
            Self::Token => is_token(byte),
            Self::Dotted => is_token(byte) || byte == b'.',
        }
    }
}

/// How keys begin, how many characters follow at least, and which characters.
const PREFIXES: [(&str, usize, Of); 68] = [
    ("ABIA", 16, Of::Upper),
    ("ACCA", 16, Of::Upper),
    ("AGE-SECRET-KEY-", 16, Of::Token),
    ("AIza", 30, Of::Token),
    ("AKIA", 16, Of::Upper),
    ("ASIA", 16, Of::Upper),
    ("GOCSPX-", 16, Of::Token),
    ("NRAK-", 20, Of::Letters),
    ("PMAK-", 20, Of::Token),
    ("SG.", 30, Of::Dotted),
    ("dapi", 32, Of::Letters),
    ("dckr_pat_", 16, Of::Token),
    ("dop_v1_", 32, Of::Letters),
    ("figd_", 20, Of::Token),
    ("ghp_", 20, Of::Letters),
    ("gho_", 20, Of::Letters),
    ("ghu_", 20, Of::Letters),
    ("ghs_", 20, Of::Letters),
    ("ghr_", 20, Of::Letters),
    ("github_pat_", 20, Of::Token),
    ("glc_", 20, Of::Token),
    ("glcbt-", 16, Of::Token),
    ("gldt-", 16, Of::Token),
    ("glft-", 16, Of::Token),
    ("glpat-", 16, Of::Dotted),
    ("glptt-", 16, Of::Token),
    ("glrt-", 16, Of::Token),
    ("glsa_", 20, Of::Token),
    ("glsoat-", 16, Of::Token),
    ("hf_", 30, Of::Letters),
    ("hvb.", 20, Of::Token),
    ("hvs.", 20, Of::Token),
    ("lin_api_", 20, Of::Letters),
    ("npm_", 30, Of::Letters),
    ("ntn_", 30, Of::Letters),
    ("pscale_oauth_", 16, Of::Dotted),
    ("pscale_pw_", 16, Of::Dotted),
    ("pscale_tkn_", 16, Of::Dotted),
    ("pypi-AgE", 16, Of::Token),
    ("rk_live_", 8, Of::Letters),
    ("rk_test_", 8, Of::Letters),
    ("rubygems_", 30, Of::Letters),
    ("sbp_", 30, Of::Letters),
    ("shpat_", 20, Of::Letters),
    ("shpca_", 20, Of::Letters),
    ("shppa_", 20, Of::Letters),
    ("shpss_", 20, Of::Letters),
    ("sk-", 32, Of::Letters),
    ("sk-ant-", 16, Of::Token),
    ("sk-proj-", 16, Of::Token),
    ("sk-svcacct-", 16, Of::Token),
    ("sk_live_", 8, Of::Letters),
    ("sk_test_", 8, Of::Letters),
    ("sq0atp-", 16, Of::Token),
    ("sq0csp-", 16, Of::Token),
    ("tskey-", 16, Of::Token),
    ("whsec_", 8, Of::Token),
    ("xapp-", 10, Of::Token),
    ("xoxa-", 10, Of::Token),
    ("xoxb-", 10, Of::Token),
    ("xoxc-", 10, Of::Token),
    ("xoxd-", 10, Of::Token),
    ("xoxe-", 10, Of::Token),
    ("xoxe.xox", 10, Of::Token),
    ("xoxp-", 10, Of::Token),
    ("xoxr-", 10, Of::Token),
    ("xoxs-", 10, Of::Token),
    ("ya29.", 16, Of::Token),
];

/// File extensions that anybody may have. Text before one of them is a name, however random.
const FILES: [&str; 20] = [
    ".avif", ".css", ".eot", ".gif", ".ico", ".jpeg", ".jpg", ".js", ".map", ".mjs", ".mp4", ".otf", ".png", ".svg",
    ".ttf", ".wasm", ".webm", ".webp", ".woff", ".woff2",
];

/// Returns whether the byte occurs in base64 with the standard alphabet.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

fn run(bytes: &[u8], from: usize, of: impl Fn(u8) -> bool) -> usize {
    from + bytes[from..].iter().take_while(|&&byte| of(byte)).count()
}

/// Finds secrets in `word`, which has no blanks and begins at `base`. `cut` says that the word may continue, unseen.
pub(super) fn find(scan: &Scan<'_>, word: &str, base: usize, cut: bool, found: &mut Found) {
    let bytes = word.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !is_token(bytes[at]) {
            at += 1;
            continue;
        }
        let end = run(bytes, at, is_token);
        let mut next = end;
        let mut goes_on = None;
        // Within a run, a key may begin after a separator: `key-ghp_..`.
        let mut start = at;
        while start < end {
            let length =
                prefixed(bytes, start, cut).or_else(|| signed(scan, word, (at, start, end), &mut goes_on, cut));
            if let Some(length) = length {
                found.hide(base + start, base + start + length);
                next = next.max(start + length);
                break;
            }
            start = run(bytes, start, |byte| byte.is_ascii_alphanumeric());
            start = run(bytes, start, |byte| byte == b'_' || byte == b'-').max(start);
        }
        if start >= end && scan.random && is_secret_run(scan, word, at, end, cut) {
            let end = run(bytes, end, |byte| byte == b'=');
            found.hide(base + at, base + end);
        }
        at = next.max(at + 1);
    }
    elsewhere(bytes, base, cut, found);
    if scan.random {
        with_slashes(scan, word, base, cut, found);
    }
}

/// Returns the length of a key that begins with a known prefix.
fn prefixed(bytes: &[u8], at: usize, cut: bool) -> Option<usize> {
    if !matches!(bytes[at], b'A' | b'G' | b'N' | b'P' | b'S' | b'd' | b'f'..=b'h' | b'l' | b'n' | b'p' | b'r'..=b't' | b'w'..=b'y')
    {
        return None;
    }
    PREFIXES.iter().find_map(|&(prefix, least, of)| {
        if !bytes[at..].starts_with(prefix.as_bytes()) {
            return None;
        }
        let start = at + prefix.len();
        let end = run(bytes, start, |byte| of.has(byte));
        // Right before a cut, a part of it is enough.
        let enough = end - start >= least || (cut && end == bytes.len() && end - start >= 4);
        let whole = end == bytes.len() || !bytes[end].is_ascii_alphanumeric();
        (enough && whole).then(|| run(bytes, end, is_token) - at)
    })
}

/// Returns the length of a signed or encrypted token: JWT, PASETO.
fn signed(
    scan: &Scan<'_>,
    word: &str,
    (run_start, at, head): (usize, usize, usize),
    goes_on: &mut Option<bool>,
    cut: bool,
) -> Option<usize> {
    let bytes = word.as_bytes();
    let rest = &bytes[at..];
    let all = || run(bytes, at, |byte| is_token(byte) || byte == b'.' || byte == b'=') - at;
    if rest.starts_with(b"eyJ") || rest.starts_with(b"ewo") {
        let dotted = bytes.get(head) == Some(&b'.') && head - at >= 8;
        // This is the same for the whole run, so it is computed once.
        let goes_on = *goes_on.get_or_insert_with(|| {
            let second = (head + 1).min(bytes.len());
            let end = run(bytes, second, is_token);
            bytes[second..].starts_with(b"eyJ") || bytes.get(end) == Some(&b'.') || end - second >= TOKEN
        });
        if dotted && goes_on {
            return Some(all());
        }
        if at > run_start {
            return (cut && dotted).then(all);
        }
        // In either alphabet. Only the first in a run, because otherwise many short runs would each decode all that
        // follows.
        let of_either = |byte| is_base64(byte) || byte == b'=' || is_token(byte);
        let begins = at == 0 || !of_either(bytes[at - 1]);
        let whole = if begins { run(bytes, head, of_either) } else { head };
        for end in [whole, head] {
            let says = decoded(&word[at..end]);
            let is_header =
                says.as_deref().is_some_and(|says| says.contains("\"alg\"") || says.starts_with("{\"typ\""));
            let hidden = |says: &str| scan.inner().is_some_and(|inner| inner.has_any(says));
            if is_header || (end - at >= TOKEN && says.as_deref().is_some_and(hidden)) || (cut && dotted) {
                return Some(all().max(end - at));
            }
        }
    }
    let paseto = rest.first() == Some(&b'v')
        && rest.get(1).is_some_and(u8::is_ascii_digit)
        && (rest[2..].starts_with(b".local.") || rest[2..].starts_with(b".public."));
    (paseto && (all() >= 24 || (cut && at + all() == bytes.len()))).then(all)
}

/// Finds keys without a prefix, which have a known part in their middle.
fn elsewhere(bytes: &[u8], base: usize, cut: bool, found: &mut Found) {
    let at_cut = |end: usize| cut && end == bytes.len();
    // A Telegram bot: `123456789:AA..`.
    for colon in memchr::memchr_iter(b':', bytes) {
        let digits = bytes[..colon].iter().rev().take(12).take_while(|byte| byte.is_ascii_digit()).count();
        if (8..=11).contains(&digits) {
            let end = run(bytes, colon + 1, is_token);
            if end - colon > 34 || (at_cut(end) && end - colon > 4) {
                found.hide(base + colon - digits, base + end);
            }
        }
    }
    // An Azure client secret: `abc8Q~..`.
    for tilde in memchr::memchr_iter(b'~', bytes).filter(|&at| at >= 5 && bytes[at - 1] == b'Q') {
        let of = |byte: u8| is_token(byte) || byte == b'.' || byte == b'~';
        let end = run(&bytes[..bytes.len().min(tilde + 64)], tilde, of);
        if bytes[tilde - 2].is_ascii_digit() && (end - tilde >= 24 || at_cut(end)) {
            found.hide(base + tilde - 5, base + end);
        }
    }
}

/// Finds base64 of the standard alphabet, which has slashes. A path has words between them.
fn with_slashes(scan: &Scan<'_>, word: &str, base: usize, cut: bool, found: &mut Found) {
    let bytes = word.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = run(bytes, at, is_base64);
        if end == at {
            at += 1;
            continue;
        }
        let text = &word[at..end];
        let least = if cut && end == bytes.len() { TOKEN } else { RANDOM };
        // Too little is left of a cut text to be sure.
        let percent = match text.contains('/') {
            true => 35,
            false if least == TOKEN => 75,
            false => 50,
        };
        let separators = || text.bytes().filter(|byte| !byte.is_ascii_alphanumeric()).count();
        // In a path, the meaning of a slash isn't known.
        let in_path = || text.starts_with('/') || (text.contains('/') && word[..at].contains('/'));
        if text.len() >= least
            && (1..=text.len() / 6).contains(&separators())
            && !in_path()
            && !is_hash(&word[..at])
            && mixed(text, percent)
            && !is_public(scan, text)
        {
            found.hide(base + at, base + run(bytes, end, |byte| byte == b'='));
        }
        at = end + 1;
    }
}

/// Returns whether the run from `start` to `end` is a long random string, but not a file's name, a hash or a symbol.
fn is_secret_run(scan: &Scan<'_>, word: &str, start: usize, end: usize, cut: bool) -> bool {
    let text = &word[start..end];
    let least = if cut && end == word.len() { TOKEN } else { RANDOM };
    // Too little is left of a cut text to be sure.
    let percent = if least == TOKEN { 75 } else { 50 };
    if text.len() < least || !mixed(text, percent) || is_slug(text) {
        return false;
    }
    // Symbols, and hashes that are marked as such.
    let bytes = text.as_bytes();
    let legacy = text.starts_with("_ZN") && bytes[3].is_ascii_digit();
    let mangled = text.starts_with("_R") && matches!(bytes[2], b'I' | b'N' | b'X' | b'Y') && !text.contains('-');
    let known = legacy || mangled || text.get(..7).is_some_and(is_hash);
    let file = word.as_bytes().get(end) == Some(&b'.') && {
        let length = run(word.as_bytes(), end + 1, |byte| byte.is_ascii_alphanumeric()) - end;
        FILES.contains(&&word[end..end + length])
    };
    !known && !file && !is_public(scan, text)
}

/// Returns whether it is base64 of readable text without a secret, such as the cursor of a list.
fn is_public(scan: &Scan<'_>, text: &str) -> bool {
    decoded(text).is_some_and(|text| scan.inner().is_some_and(|inner| !inner.has_any(&text)))
}
