//! What a text looks like: a token, a slug, prose, base64 of something readable.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::found::REDACTED;

/// The shortest value that may be a secret if something says so.
pub(super) const TOKEN: usize = 16;

/// Returns a decoder of base64 in either alphabet, with or without padding.
fn engine(url: bool) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(if url { &alphabet::URL_SAFE } else { &alphabet::STANDARD }, config)
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Returns whether the text ends in `sha256-` or similar, which a hash follows.
pub(super) fn is_hash(text: &str) -> bool {
    text.ends_with("sha256-") || text.ends_with("sha384-") || text.ends_with("sha512-")
}

/// Returns whether `text` has letters of both cases, and at most `percent` of it is in words.
pub(super) fn mixed(text: &str, percent: usize) -> bool {
    let bytes = text.as_bytes();
    let (upper, lower) = (bytes.iter().any(u8::is_ascii_uppercase), bytes.iter().any(u8::is_ascii_lowercase));
    upper && lower && in_words(bytes) * 100 <= percent * bytes.len()
}

/// Returns how many bytes are in runs of four or more lower-case letters. In base64 of random bytes, it is a
/// fourteenth.
fn in_words(bytes: &[u8]) -> usize {
    bytes.split(|byte| !byte.is_ascii_lowercase()).map(<[u8]>::len).filter(|&len| len >= 4).sum()
}

/// Decodes base64 of readable text, as far as it is complete.
pub(super) fn decoded(text: &str) -> Option<String> {
    let text = text.trim_end_matches('=');
    // No base64 has a length of 4 n + 1, so it was cut.
    let text = if text.len() % 4 == 1 { &text[..text.len() - 1] } else { text };
    let url = text.contains(['-', '_']);
    let bytes = engine(url).decode(text).ok()?;
    let odd = bytes.iter().filter(|byte| !matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t')).count();
    (!bytes.is_empty() && odd * 10 <= bytes.len()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns whether it looks like a token, if something says that it is one: long, letters and digits mixed, and not a
/// slug. Hashes and UUIDs do.
pub(super) fn is_token_like(text: &str) -> bool {
    let of = |byte: u8| is_token(byte) || matches!(byte, b'.' | b'~' | b'+' | b'=' | b':' | b'|' | b'$' | b'!' | b'*');
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let letters = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    text.len() >= TOKEN && text.bytes().all(of) && letters && (digits || mixed(text, 50)) && !is_slug(text)
}

/// Returns whether it is words and short numbers with separators between them: `2024-keynote-async-rust`,
/// `http2-server`.
pub(super) fn is_slug(text: &str) -> bool {
    let separators = text.bytes().filter(|byte| !byte.is_ascii_alphanumeric()).count();
    // Words of at least three letters on average.
    let of_words = (separators + 1) * 4 <= text.len() + 1;
    of_words
        && text.split(|c: char| !c.is_ascii_alphanumeric()).all(|part| {
            let word = part.trim_end_matches(|c: char| c.is_ascii_digit());
            let number = part.len() - word.len();
            let vowel = || word.bytes().any(|byte| b"aeiouyAEIOUY".contains(&byte));
            let one_case = || {
                let tail = word.get(1..).unwrap_or_default();
                tail.bytes().all(|byte| byte.is_ascii_lowercase()) || word.bytes().all(|byte| byte.is_ascii_uppercase())
            };
            let letters = || word.bytes().all(|byte| byte.is_ascii_alphabetic());
            if word.is_empty() {
                number <= 4
            } else {
                number <= 2 && word.len() <= 16 && letters() && (word.len() <= 3 || vowel()) && one_case()
            }
        })
}

/// Returns whether `text` is a word of plain prose, or a short number. After a colon these are more common than a
/// secret.
pub(super) fn is_prose(text: &str) -> bool {
    let text = text.trim_end_matches(['.', ',', ';', ':', '!', '?', ')']);
    let tail = text.get(1..).unwrap_or_default();
    let word = text.len() <= 24
        && text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-' || byte == b'\'')
        && tail.bytes().all(|byte| !byte.is_ascii_uppercase());
    let camel = text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_alphabetic())
        && in_words(text.as_bytes()) * 2 > text.len();
    word || camel || (text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns whether `word` begins a remark about a value, rather than being the value: "must not be empty".
pub(super) fn is_message(word: &str) -> bool {
    const WORDS: &[&str] = &[
        "authentication",
        "bad",
        "can",
        "cannot",
        "can't",
        "contains",
        "could",
        "denied",
        "did",
        "does",
        "doesn't",
        "empty",
        "error",
        "expected",
        "expired",
        "expires",
        "failed",
        "failure",
        "field",
        "forbidden",
        "has",
        "hash",
        "have",
        "illegal",
        "incorrect",
        "invalid",
        "is",
        "isn't",
        "length",
        "malformed",
        "mandatory",
        "may",
        "maximum",
        "minimum",
        "mismatch",
        "missing",
        "must",
        "needs",
        "not",
        "only",
        "permission",
        "required",
        "requires",
        "should",
        "string",
        "too",
        "type",
        "unable",
        "unauthorized",
        "unexpected",
        "unknown",
        "unsupported",
        "validation",
        "value",
        "verification",
        "was",
        "were",
        "will",
        "wrong",
        "you",
    ];
    let word = word.trim_end_matches(['.', ',', ';', ':', '!', '?', ')']);
    WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Returns whether all of `text` is words of plain prose, or lower-case names: `user name`, `created_at`.
pub(super) fn is_plain(text: &str) -> bool {
    let is_name = |word: &str| {
        word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-' | b'.'))
    };
    text.split_ascii_whitespace().all(|word| is_prose(word) || is_name(word) || word == REDACTED)
}

/// Returns whether `text` is prose of several words, like the text of an error.
pub(super) fn is_sentence(text: &str) -> bool {
    text.split_ascii_whitespace().nth(1).is_some() && is_plain(text)
}
