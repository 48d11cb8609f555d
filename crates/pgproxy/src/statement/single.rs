//! Whether a text is surely one statement that writes nothing for good before its Sync.
//!
//! An INSERT, UPDATE, DELETE, MERGE, SELECT, WITH, VALUES or TABLE runs inside of the transaction that its Sync, or the
//! end of its Query, commits. Utility statements need not: some commit by themselves, so none of them is in here.
//!
//! Such a statement can also be told how the answer to a Query is made of what the extended protocol answers, unless an
//! app could see a difference. Texts, quoted names and comments are read over by PostgreSQL's rules. Where these depend
//! on a setting or on an encoding, the answer is that nothing is sure.

/// One statement that is committed with its Sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Single {
    /// `None`: must stay in the protocol that it came in.
    pub description: Option<Description>,
}

/// When a Query says what its rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Description {
    /// Before anything runs.
    First,
    /// After everything has run without an error: the rows were put aside.
    AfterAll,
}

/// With what a text begins. `None`: with another word, or nothing sure.
pub(super) fn verb(sql: &[u8]) -> Option<Verb> {
    Tokens { sql, at: 0 }.verb()
}

/// `None`: several statements, another kind, or nothing sure.
pub(crate) fn single(sql: &[u8]) -> Option<Single> {
    let mut tokens = Tokens { sql, at: 0 };
    let first = tokens.verb()?;
    let mut seen = Seen { is_description_clear: true, ..Seen::default() };
    let mut before = Before::Other;
    let mut has_ended = false;
    while let Some(token) = tokens.next()? {
        if token == Token::Byte(b';') {
            has_ended = true;
            continue;
        }
        if has_ended {
            return None;
        }
        before = match token {
            Token::Word(word) => seen.word(word, before),
            Token::Parameter => {
                seen.differs = true;
                Before::Other
            }
            Token::Byte(b'(' | b')') => Before::Parenthesis,
            Token::Byte(_) | Token::Quoted => Before::Other,
        };
    }
    let description = match first {
        Verb::Reads => Some(Description::First),
        Verb::Writes => Some(Description::AfterAll),
        Verb::With if !seen.is_description_clear => None,
        Verb::With if seen.writes => Some(Description::AfterAll),
        Verb::With => Some(Description::First),
    };
    Some(Single { description: description.filter(|_| !seen.differs) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// SELECT, VALUES, TABLE
    Reads,
    /// INSERT, UPDATE, DELETE, MERGE
    Writes,
    With,
}

impl Verb {
    fn of(word: &[u8]) -> Option<Verb> {
        let is = |verb: &&str| word.eq_ignore_ascii_case(verb.as_bytes());
        if ["select", "values", "table"].iter().any(is) {
            Some(Verb::Reads)
        } else if WRITES.iter().any(is) {
            Some(Verb::Writes)
        } else {
            is(&"with").then_some(Verb::With)
        }
    }
}

const WRITES: [&str; 4] = ["insert", "update", "delete", "merge"];
/// Words before one of [`WRITES`] that begins no statement: `FOR [NO KEY] UPDATE`, `DO UPDATE`, `THEN DELETE`.
const CLAUSES: [&str; 4] = ["for", "key", "do", "then"];
/// Their answers tell the protocols apart: the clock of a message, and a view whose rule answers a Query alone.
const DIFFERENT: [&str; 2] = ["statement_timestamp", "pg_settings"];

#[derive(Default)]
struct Seen {
    writes: bool,
    differs: bool,
    /// Of a WITH: every word of [`WRITES`] stands where it begins a statement, or where it surely does not.
    is_description_clear: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Parenthesis,
    Clause,
    Other,
}

impl Seen {
    fn word(&mut self, word: &[u8], before: Before) -> Before {
        let is = |words: &[&str]| words.iter().any(|other| word.eq_ignore_ascii_case(other.as_bytes()));
        self.differs |= is(&DIFFERENT);
        if is(&WRITES) {
            match before {
                Before::Parenthesis => self.writes = true,
                Before::Clause => {}
                Before::Other => self.is_description_clear = false,
            }
        }
        if is(&CLAUSES) { Before::Clause } else { Before::Other }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a [u8]),
    /// A text or a quoted name.
    Quoted,
    /// `$1`
    Parameter,
    Byte(u8),
}

struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn verb(&mut self) -> Option<Verb> {
        match self.next()?? {
            Token::Word(first) => Verb::of(first),
            _ => None,
        }
    }

    /// `Some(None)` at the end, `None` when what follows is not sure.
    fn next(&mut self) -> Option<Option<Token<'a>>> {
        self.skip_space()?;
        let rest = &self.sql[self.at..];
        let Some(&byte) = rest.first() else { return Some(None) };
        let (token, length) = match byte {
            b'\'' => (Token::Quoted, plain_text(rest)?),
            b'"' => (Token::Quoted, quoted(rest, b'"')?),
            b'e' | b'E' if rest.get(1) == Some(&b'\'') => (Token::Quoted, 1 + escaped_text(&rest[1..])?),
            b'$' if rest.get(1).is_some_and(u8::is_ascii_digit) => {
                (Token::Parameter, 1 + length_while(&rest[1..], u8::is_ascii_digit))
            }
            b'$' => (Token::Quoted, dollar_text(rest)?),
            byte if begins_word(byte) => {
                let length =
                    length_while(rest, |&byte| begins_word(byte) || byte.is_ascii_digit() || byte == b'$');
                (Token::Word(&rest[..length]), length)
            }
            byte => (Token::Byte(byte), 1),
        };
        self.at += length;
        Some(Some(token))
    }

    fn skip_space(&mut self) -> Option<()> {
        loop {
            let rest = &self.sql[self.at..];
            self.at += match rest {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => 1,
                [b'-', b'-', ..] => length_while(rest, |byte| !matches!(byte, b'\n' | b'\r')),
                [b'/', b'*', ..] => comment(rest)?,
                _ => return Some(()),
            };
        }
    }
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn length_while(bytes: &[u8], is: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| is(byte)).count()
}

/// They nest.
fn comment(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        match bytes.get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// A doubled quote stands for one.
fn quoted(bytes: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        at += 1 + bytes[at..].iter().position(|&byte| byte == quote)?;
        if bytes.get(at) != Some(&quote) {
            return Some(at);
        }
        at += 1;
    }
}

/// With a backslash before a quote it depends on `standard_conforming_strings` where the text ends.
fn plain_text(bytes: &[u8]) -> Option<usize> {
    let length = quoted(bytes, b'\'')?;
    let is_sure = !bytes[..length].windows(2).any(|pair| pair == b"\\'");
    is_sure.then_some(length)
}

/// In some encodings a backslash may be the second half of a character.
fn escaped_text(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' if bytes[at - 1] >= 0x80 => return None,
            b'\\' => at += 2,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// `$$text$$` or `$tag$text$tag$`.
fn dollar_text(bytes: &[u8]) -> Option<usize> {
    let tag = 2 + length_while(&bytes[1..], |&byte| begins_word(byte) || byte.is_ascii_digit());
    let (tag, text) = bytes.split_at_checked(tag).filter(|(tag, _)| tag.ends_with(b"$"))?;
    let end = text.windows(tag.len()).position(|window| window == tag)?;
    Some(tag.len() + end + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_query(description: Option<Description>, statements: &[&str]) {
        for sql in statements {
            assert_eq!(single(sql.as_bytes()), Some(Single { description }), "{sql}");
        }
    }

    #[test]
    fn one_statement_is_known_with_anything_in_its_texts() {
        as_query(
            Some(Description::AfterAll),
            &[
                "insert into t values (1)",
                "INSERT INTO t VALUES ('a;b', E'it\\'s; $1', $$;$2$$, $x$ ' ; $x$, \"a;\") ; ",
                "/* a /* nested; */ comment */ update t set a = '$2a$10$bcrypt' -- ; the end\n where b = 1;",
                "delete from t returning a$1",
                "with x as (delete from t returning *) select * from x",
                "with x as (select 1) insert into t select * from x on conflict (a) do update set a = 2",
            ],
        );
        as_query(
            Some(Description::First),
            &[
                "select f('it''s; fine')",
                "with x as (select 1) select f() from x for no key update",
                "values (f(1))",
                "table t; -- all",
            ],
        );
    }

    #[test]
    fn what_the_protocols_answer_differently_stays_in_its_own() {
        as_query(
            None,
            &[
                "insert into t values ($1)",
                "insert into t values (statement_timestamp())",
                "update pg_settings set setting = '1' where name = 'work_mem'",
                "with recursive x as (select 1 union select 2 from x) cycle a set b using c insert into t values (1)",
            ],
        );
    }

    #[test]
    fn what_is_not_surely_one_statement_is_none() {
        for sql in [
            "",
            ";",
            "insert into t values (1); select 1",
            "; insert into t values (1)",
            "insert into t values ('a\\'); select 1; --')",
            "insert into t values (E'\u{e9}\\'')",
            "insert into t values ('never ends",
            "insert into t values ($a$ never $b$)",
            "insert into t /* never ends",
            "(select f())",
            "create table t (a int)",
            "call p()",
            "do $$ begin commit; end $$",
            "copy t from stdin",
            "explain analyze insert into t values (1)",
            "begin",
            "vacuum",
            "inserts",
        ] {
            assert_eq!(single(sql.as_bytes()), None, "{sql}");
        }
    }
}
