//! What a byte can begin, as PostgreSQL's scanner sees it.

/// The kinds of bytes that decide what to do next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Begins a word: a letter, an underscore, or any byte of a character beyond ASCII.
    Word,
    Digit,
    Space,
    /// `'`
    Quote,
    /// `"`
    Identifier,
    /// `$`: a parameter or a dollar-quoted string.
    Dollar,
    /// `-`: perhaps a comment.
    Dash,
    /// `/`: perhaps a comment.
    Slash,
    /// `.`: perhaps a number.
    Dot,
    /// The protocol ends a text here, so it cannot be part of one.
    Nul,
    /// Stands for itself.
    Other,
}

const fn kind_of(byte: u8) -> Kind {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Kind::Word,
        b'0'..=b'9' => Kind::Digit,
        // The vertical tab is a space since PostgreSQL 16 only; it stands for itself, and then for an error.
        b' ' | b'\t' | b'\n' | b'\r' | 0x0c => Kind::Space,
        b'\'' => Kind::Quote,
        b'"' => Kind::Identifier,
        b'$' => Kind::Dollar,
        b'-' => Kind::Dash,
        b'/' => Kind::Slash,
        b'.' => Kind::Dot,
        0 => Kind::Nul,
        _ => Kind::Other,
    }
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = kind_of(byte as u8);
        byte += 1;
    }
    kinds
};

#[inline]
pub fn kind(byte: u8) -> Kind {
    KINDS[byte as usize]
}

/// Goes on a word that has begun.
#[inline]
pub fn continues_word(byte: u8) -> bool {
    in_word(byte) != 0
}

/// What a byte becomes inside a word, and 0 where it ends the word. Only ASCII is folded, as the server does in UTF-8.
#[inline]
pub fn in_word(byte: u8) -> u8 {
    WORD[byte as usize]
}

const WORD: [u8; 256] = {
    let mut word = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if matches!(KINDS[byte], Kind::Word | Kind::Digit | Kind::Dollar) {
            word[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    word
};
