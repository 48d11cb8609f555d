//! The words of a text, read once from front to back.

/// Words that mean something to us. All others are [`Word::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Word {
    Other,
    Abort,
    Begin,
    Commit,
    Constraints,
    /// DISCARD or DEALLOCATE.
    Discard,
    End,
    Local,
    Prepare,
    Reset,
    Rollback,
    Savepoint,
    Select,
    Set,
    Show,
    Start,
    To,
    Transaction,
    Work,
    /// Writes or locks when it stands in a SELECT.
    Writes,
    /// Leaves something in the session.
    SessionState,
    /// May stand before a parenthesis in a statement that reads: a keyword, or a function that does nothing else.
    Harmless,
}

/// Longer words are none of ours.
const MAX_WORD_BYTES: usize = 32;

pub(super) struct Words {
    seen: u32,
    opening: [Option<Word>; 2],
    /// A semicolon with something behind it.
    pub has_inner_semicolon: bool,
    /// Something like a call of a function that is not known to only read.
    has_call: bool,
    has_session_state: bool,
    /// A name written with escapes, which could be any.
    has_escaped_name: bool,
}

impl Words {
    pub fn of(sql: &[u8]) -> Words {
        let mut words = Words {
            seen: 0,
            opening: [None; 2],
            has_inner_semicolon: false,
            has_call: false,
            has_session_state: false,
            has_escaped_name: false,
        };
        let mut at = after_comments(sql);
        let mut semicolon = false;
        // What stands before a parenthesis decides whether it is a call.
        let mut before = Before::Nothing;
        while let Some(&byte) = sql.get(at) {
            if is_word(byte) {
                let end = end_of_word(sql, at);
                let word = word(&sql[at..end]);
                words.add(word);
                words.has_escaped_name |= matches!(&sql[at..end], b"u" | b"U") && sql.get(end) == Some(&b'&');
                words.has_inner_semicolon |= semicolon;
                before = Before::Word(word);
                at = end;
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {}
                b';' => {
                    semicolon = true;
                    before = Before::Nothing;
                }
                b'(' => {
                    words.has_call |= match before {
                        Before::Word(word) => !word.may_stand_before_a_parenthesis(),
                        // The end of a quoted name, or of a comment behind a name.
                        Before::Doubt => true,
                        Before::Nothing => false,
                    };
                    before = Before::Nothing;
                }
                b'"' | b'/' => before = Before::Doubt,
                _ => before = Before::Nothing,
            }
            words.has_inner_semicolon |= semicolon && !byte.is_ascii_whitespace() && byte != b';';
            // A qualified name: `s.count(...)` is not `count(...)`.
            if byte == b'.' && sql.get(at + 1).is_some_and(|&next| is_word(next) && !next.is_ascii_digit()) {
                let end = end_of_word(sql, at + 1);
                let word = word(&sql[at + 1..end]);
                words.add(word);
                before = Before::Doubt;
                at = end;
                continue;
            }
            at += 1;
        }
        words
    }

    fn add(&mut self, word: Word) {
        self.seen |= 1 << word as u8;
        self.has_session_state |= matches!(word, Word::SessionState | Word::Prepare | Word::Discard);
        if let Some(place) = self.opening.iter_mut().find(|place| place.is_none()) {
            *place = Some(word);
        }
    }

    pub fn first(&self) -> Option<Word> {
        self.opening[0]
    }

    pub fn second(&self) -> Option<Word> {
        self.opening[1]
    }

    pub fn has(&self, word: Word) -> bool {
        self.seen & (1 << word as u8) != 0
    }

    pub fn all_in(&self, allowed: &[Word]) -> bool {
        let allowed = allowed.iter().fold(0, |set, &word| set | 1 << word as u8);
        self.seen & !allowed == 0
    }

    pub fn has_transaction_control(&self) -> bool {
        use Word::{Abort, Begin, Commit, End, Prepare, Rollback, Start};
        [Abort, Begin, Commit, End, Prepare, Rollback, Start].into_iter().any(|word| self.has(word))
    }

    pub fn names_state(&self) -> bool {
        self.has_session_state || self.has_escaped_name
    }

    /// Of a SELECT: one statement that writes, locks and calls nothing.
    pub fn reads_only(&self) -> bool {
        !(self.has_inner_semicolon
            || self.has_call
            || self.has_session_state
            || self.has_escaped_name
            || self.has(Word::Writes))
    }
}

enum Before {
    Nothing,
    Word(Word),
    Doubt,
}

/// Every byte of every text is looked up here.
const IS_WORD: [bool; 256] = {
    let mut is_word = [false; 256];
    let mut byte = 0;
    while byte < is_word.len() {
        let ascii = byte as u8;
        is_word[byte] = ascii.is_ascii_alphanumeric() || ascii == b'_' || ascii == b'$' || ascii >= 0x80;
        byte += 1;
    }
    is_word
};

fn is_word(byte: u8) -> bool {
    IS_WORD[usize::from(byte)]
}

/// Where the word ends that begins at `at`.
fn end_of_word(sql: &[u8], at: usize) -> usize {
    sql[at..].iter().position(|&byte| !is_word(byte)).map_or(sql.len(), |length| at + length)
}

/// Where the first statement begins. A comment in a comment is not understood; then what follows has odd first words,
/// which is judged with caution.
fn after_comments(sql: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += sql[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let rest = &sql[at..];
        let end = if rest.starts_with(b"/*") {
            rest.windows(2).position(|pair| pair == b"*/").map(|n| n + 2)
        } else if rest.starts_with(b"--") {
            rest.iter().position(|&byte| byte == b'\n').map(|n| n + 1)
        } else {
            None
        };
        match end {
            Some(end) => at += end,
            None => return at,
        }
    }
}

impl Word {
    fn may_stand_before_a_parenthesis(self) -> bool {
        matches!(self, Word::Harmless | Word::Select)
    }
}

fn word(text: &[u8]) -> Word {
    if text.first().is_some_and(u8::is_ascii_digit) {
        return Word::Other;
    }
    let mut buffer = [0; MAX_WORD_BYTES];
    let Some(lower) = buffer.get_mut(..text.len()) else { return Word::Other };
    lower.copy_from_slice(text);
    lower.make_ascii_lowercase();
    match &*lower {
        b"abort" => Word::Abort,
        b"begin" => Word::Begin,
        b"commit" => Word::Commit,
        b"constraints" => Word::Constraints,
        b"end" => Word::End,
        b"local" => Word::Local,
        b"discard" | b"deallocate" => Word::Discard,
        b"prepare" => Word::Prepare,
        b"reset" => Word::Reset,
        b"rollback" => Word::Rollback,
        b"savepoint" => Word::Savepoint,
        b"select" => Word::Select,
        b"set" => Word::Set,
        b"show" => Word::Show,
        b"start" => Word::Start,
        b"to" => Word::To,
        b"transaction" => Word::Transaction,
        b"work" => Word::Work,
        b"into" | b"for" | b"insert" | b"update" | b"delete" | b"merge" | b"call" | b"do" => Word::Writes,
        b"temp" | b"temporary" | b"pg_temp" | b"listen" | b"unlisten" | b"load" | b"execute"
        | b"set_config" | b"setseed" | b"currval" | b"lastval" | b"hold" | b"dblink_connect" => {
            Word::SessionState
        }
        b"all" | b"and" | b"any" | b"as" | b"avg" | b"between" | b"bigint" | b"by" | b"case" | b"cast"
        | b"char" | b"coalesce" | b"count" | b"date" | b"distinct" | b"else" | b"except" | b"exists"
        | b"extract" | b"filter" | b"from" | b"greatest" | b"having" | b"in" | b"int" | b"intersect"
        | b"is" | b"join" | b"lateral" | b"least" | b"length" | b"like" | b"limit" | b"lower" | b"max"
        | b"min" | b"not" | b"now" | b"nullif" | b"numeric" | b"offset" | b"on" | b"or" | b"order"
        | b"over" | b"round" | b"row_number" | b"some" | b"sum" | b"text" | b"then" | b"union" | b"upper"
        | b"using" | b"values" | b"varchar" | b"when" | b"where" => Word::Harmless,
        advisory if is_session_lock(advisory) => Word::SessionState,
        temporary if temporary.starts_with(b"pg_temp_") => Word::SessionState,
        _ => Word::Other,
    }
}

/// `pg_advisory_lock` and its kin, but not those that end with the transaction.
fn is_session_lock(word: &[u8]) -> bool {
    (word.starts_with(b"pg_advisory_") || word.starts_with(b"pg_try_advisory_"))
        && !word.windows(5).any(|w| w == b"_xact")
}
