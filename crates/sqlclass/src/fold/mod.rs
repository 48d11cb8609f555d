//! One key for all texts of a statement that differ in their literals only.
//!
//! The text is read once, by the rules of PostgreSQL's scanner (`standard_conforming_strings` on, an encoding whose
//! bytes below 0x80 are ASCII): numbers become `0`, strings become `'`, white space and comments become one space, words
//! become lower case. Quoted identifiers, operators and parameters stay as they are. What comes out is hashed together
//! with the [`Scope`] it is to be judged in.
//!
//! A wrong fold would give a statement the class of another one. So where the text could be read in two ways, it is not
//! folded at all: its key is that of its bytes. Folding loses nothing that a class depends on: a literal decides a class
//! only as the argument of a function or an option, and the judge says so where that is the case
//! ([`Flag::ByLiteral`](crate::Flag::ByLiteral)).

mod bytes;
mod hint;
mod literals;

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use bytes::{Kind, in_word, kind};
pub use hint::Hint;

/// Longer texts are neither folded nor parsed: they go to the primary.
pub const MAX_TEXT: usize = 16 * 1024;

/// What stands behind the folded text in the buffer: the scope, the hint, and whether the text was folded.
const SUFFIX: usize = 8 + 8 + 1 + 1;

/// What a text is judged in. The same text in another scope has another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Of the catalog, raised whenever it is read anew.
    pub epoch: u64,
    /// Names a search path; the caller numbers the paths that it meets.
    pub search_path: u64,
}

/// 96 bits of two hashes with different secrets. Two texts of one key would be one statement, so whoever cannot read
/// our memory must not be able to make them: see [`Folder::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub hash: u64,
    pub check: u32,
}

/// A text, folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    pub key: Key,
    pub hint: Option<Hint>,
}

/// Folds one text after another, in one buffer.
pub struct Folder {
    buffer: Box<[u8; MAX_TEXT + SUFFIX]>,
    hash: RapidSecrets,
    check: RapidSecrets,
}

impl Folder {
    /// `seed` should be a new random number in each process, so that nobody can prepare texts that share a key.
    pub fn new(seed: u64) -> Folder {
        let hash = RapidSecrets::seed(seed);
        // Never the same secrets twice, whatever the seed.
        let check = RapidSecrets::seed(seed ^ 0x9e37_79b9_7f4a_7c15).reseed();
        Folder { buffer: Box::new([0; MAX_TEXT + SUFFIX]), hash, check }
    }

    /// The key of `sql`, or `None` where it is longer than [`MAX_TEXT`].
    pub fn fold(&mut self, sql: &[u8], scope: Scope) -> Option<Folded> {
        if sql.len() > MAX_TEXT {
            return None;
        }
        let mut writer = Writer { sql, out: &mut self.buffer[..], length: 0, gap: false, hint: None };
        let folded = writer.text();
        let (mut length, hint) = (writer.length, writer.hint);
        if folded.is_none() {
            self.buffer[..sql.len()].copy_from_slice(sql);
            length = sql.len();
        }
        let suffix = &mut self.buffer[length..length + SUFFIX];
        suffix[..8].copy_from_slice(&scope.epoch.to_le_bytes());
        suffix[8..16].copy_from_slice(&scope.search_path.to_le_bytes());
        suffix[16] = hint.map_or(0, |hint| 1 + hint as u8);
        suffix[17] = u8::from(folded.is_some());
        let text = &self.buffer[..length + SUFFIX];
        let hash = rapidhash_v3_seeded(text, &self.hash);
        let check = rapidhash_v3_seeded(text, &self.check) as u32;
        Some(Folded { key: Key { hash, check }, hint })
    }
}

/// What is hashed of `sql`, but for the suffix: its tokens, with `'` and `0` for literals. `None` where it cannot be told how
/// the server reads it.
pub fn folded_text(sql: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; sql.len()];
    let mut writer = Writer { sql, out: &mut out, length: 0, gap: false, hint: None };
    writer.text()?;
    let length = writer.length;
    out.truncate(length);
    Some(out)
}

/// The token before, as far as it decides how a quote is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The `E` of `E'...'`, with nothing between. A word that only ends in `e` is a type before its literal.
    EscapePrefix,
    /// A string, whatever white space follows it. Another one behind it is an error, or, on the next line, goes on the
    /// first with the escapes of that.
    String,
    Other,
}

struct Writer<'a> {
    sql: &'a [u8],
    /// At least as long as `sql`: no token grows, and a space takes the place of at least one byte.
    out: &'a mut [u8],
    length: usize,
    /// Was there white space, or a comment, since the last token?
    gap: bool,
    hint: Option<Hint>,
}

impl Writer<'_> {
    /// Writes the folded text. `None` where it cannot be told how the server reads it.
    fn text(&mut self) -> Option<()> {
        let (mut at, mut before) = (0, Before::Other);
        while let Some(&byte) = self.sql.get(at) {
            if let Some(end) = self.gap(at, byte)? {
                at = end;
                self.gap = true;
                if before == Before::EscapePrefix {
                    before = Before::Other;
                }
                continue;
            }
            if self.gap && self.length > 0 {
                self.push(b' ');
            }
            self.gap = false;
            (at, before) = self.token(at, byte, before)?;
        }
        Some(())
    }

    /// The end of white space or a comment at `at`, where there is one.
    #[inline]
    fn gap(&mut self, at: usize, byte: u8) -> Option<Option<usize>> {
        Some(match kind(byte) {
            Kind::Space => Some(at + 1),
            Kind::Dash if self.next(at) == b'-' => Some(literals::line_comment(self.sql, at)),
            Kind::Slash if self.next(at) == b'*' => Some(self.comment(at)?),
            _ => None,
        })
    }

    /// Writes the token at `at`; gives its end, and what it means for a quote behind it.
    #[inline]
    fn token(&mut self, at: usize, byte: u8, before: Before) -> Option<(usize, Before)> {
        let end = match kind(byte) {
            Kind::Word => {
                let end = self.word(at)?;
                let is_prefix = end == at + 1 && byte.eq_ignore_ascii_case(&b'e');
                return Some((end, if is_prefix { Before::EscapePrefix } else { Before::Other }));
            }
            Kind::Quote => {
                let end = match before {
                    Before::EscapePrefix => literals::escape_string(self.sql, at)?,
                    Before::Other => literals::string(self.sql, at)?,
                    Before::String => return None,
                };
                return Some((self.mark(b'\'', end), Before::String));
            }
            Kind::Dollar if !self.next(at).is_ascii_digit() => {
                if before == Before::String {
                    return None;
                }
                let end = literals::dollar_string(self.sql, at)?;
                return Some((self.mark(b'\'', end), Before::String));
            }
            Kind::Dollar => self.copy(at, literals::parameter(self.sql, at)?),
            Kind::Digit => self.mark(b'0', literals::number(self.sql, at)?),
            // Its point stays, or `t.5` would be `t0`.
            Kind::Dot if self.next(at).is_ascii_digit() => {
                self.push(b'.');
                self.mark(b'0', literals::number(self.sql, at)?)
            }
            Kind::Identifier => self.copy(at, literals::identifier(self.sql, at)?),
            Kind::Nul => return None,
            Kind::Space | Kind::Dash | Kind::Slash | Kind::Dot | Kind::Other => {
                self.push(byte);
                at + 1
            }
        };
        Some((end, Before::Other))
    }

    #[inline]
    fn word(&mut self, at: usize) -> Option<usize> {
        let bytes = self.sql[at..].iter().zip(&mut self.out[self.length..]);
        let mut length = 0;
        for (byte, out) in bytes {
            let folded = in_word(*byte);
            if folded == 0 {
                break;
            }
            *out = folded;
            length += 1;
        }
        self.length += length;
        let end = at + length;
        // The literal behind UESCAPE decides what the identifier is.
        let is_unicode_identifier =
            length == 1 && self.sql[at].eq_ignore_ascii_case(&b'u') && self.sql[end..].starts_with(b"&\"");
        (!is_unicode_identifier).then_some(end)
    }

    #[inline]
    fn next(&self, at: usize) -> u8 {
        self.sql.get(at + 1).copied().unwrap_or_default()
    }

    fn comment(&mut self, at: usize) -> Option<usize> {
        let end = literals::block_comment(self.sql, at)?;
        if let Some(hint) = Hint::of_comment(&self.sql[at + 2..end - 2]) {
            self.hint = Some(self.hint.map_or(hint, |before| before.and(hint)));
        }
        Some(end)
    }

    fn mark(&mut self, mark: u8, end: usize) -> usize {
        self.push(mark);
        end
    }

    fn copy(&mut self, at: usize, end: usize) -> usize {
        let length = end - at;
        self.out[self.length..self.length + length].copy_from_slice(&self.sql[at..end]);
        self.length += length;
        end
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.out[self.length] = byte;
        self.length += 1;
    }
}

#[cfg(test)]
mod tests;
