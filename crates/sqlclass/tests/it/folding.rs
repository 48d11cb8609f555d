//! Two texts have one key when they differ in literals, white space, comments and the case of words, and only then.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sqlclass::{Folder, Hint, Key, MAX_TEXT, Scope};

const SCOPE: Scope = Scope { epoch: 1, search_path: 1 };

fn key(sql: &str) -> Key {
    Folder::new(5).fold(sql.as_bytes(), SCOPE).expect("short enough").key
}

#[track_caller]
fn same(one: &str, other: &str) {
    assert_eq!(key(one), key(other), "{one} and {other}");
}

#[track_caller]
fn different(one: &str, other: &str) {
    assert_ne!(key(one), key(other), "{one} and {other}");
}

#[test]
fn literals_do_not_count() {
    same("SELECT 1", "SELECT 234");
    same("SELECT 1.5, .5, 5., 1e10, 1.5E-3", "SELECT 2, .25e1, 4, 5, 6");
    same("SELECT 'a'", "SELECT 'it''s -- /* \" $$'");
    same(r"SELECT E'a'", r"SELECT e'it\'s \\'");
    same("SELECT 'a'", "SELECT $$it's$$");
    same("SELECT $a$ $$ ' $b$ $a$", "SELECT ''");
    same("SELECT B'0', X'1f', N'a', U&'a'", "SELECT b'1', x'', n'bc', u&'it''s'");
    same("SELECT date '2024-01-01'", "SELECT DATE '2025-01-01'");
}

#[test]
fn layout_does_not_count() {
    same("SELECT a FROM b", "  select\n\tA\r\n from/* c /* d */ */B -- e");
    same("SELECT a -- b", "SELECT a");
    same("SELECT a -- b\n, c", "SELECT a , c");
    same("SELECT 'a'", " select /**/ 'b' ");
}

#[test]
fn everything_else_counts() {
    different("SELECT a", "SELECT b");
    different("SELECT \"a\"", "SELECT a");
    different("SELECT \"a\"", "SELECT \"A\"");
    different("SELECT \"a  b\"", "SELECT \"a b\"");
    different("SELECT a.b", "SELECT ab");
    different("SELECT 1", "SELECT '1'");
    different("SELECT 'a'", "SELECT a");
    different("SELECT E'a'", "SELECT e 'a'");
    different("SELECT B'1'", "SELECT '1'");
    different("SELECT $1", "SELECT $2");
    different("SELECT a - -1", "SELECT a --1");
    different("SELECT a < = b", "SELECT a <= b");
    different("SELECT t.5", "SELECT t0");
    different("SELECT a..3", "SELECT a.3");
    different("SELECT 1", "SELECT 1, 1");
    different("SELECT 1", "SELECT 1;");
    different("SELECT 'a' 'b'", "SELECT 'a'");
    different("SELECT f('a')", "SELECT g('a')");
    different("SELECT 'a', 'b'", "SELECT 'a'', ''b'");
    different("SELECT é", "SELECT É");
    different("SELECT '1", "SELECT '2");
}

#[test]
fn where_servers_may_disagree_the_whole_text_counts() {
    // `0x1f` is a number since PostgreSQL 16, and before it was a zero with an alias.
    different("SELECT 0x1f", "SELECT 0x2f");
    different("SELECT 1_000", "SELECT 1_001");
    different("SELECT 1a", "SELECT 2a");
    different("SELECT 1e", "SELECT 2e");
    different("SELECT 1..2", "SELECT 1..3");
    different("SELECT $1a", "SELECT $1b");
    different(r#"SELECT U&"d!0061t" UESCAPE '!'"#, r#"SELECT U&"d!0061t" UESCAPE '?'"#);
    // The second line goes on with the escapes of the first.
    different("SELECT E'a'\n'b\\', c, '", "SELECT E'a'\n'b\\', d, '");
    different("SELECT 'a'\n'b'", "SELECT 'a'\n'c'");
    different("SELECT 'a", "SELECT 'b");
    different("SELECT $a$ b", "SELECT $a$ c");
    different("SELECT /* a", "SELECT /* b");
    different("SELECT \"a", "SELECT \"b");
    different("SELECT 1\0", "SELECT 2\0");
}

#[test]
fn a_word_that_ends_in_e_is_not_the_prefix_of_an_escape_string() {
    // In `date'\'` the backslash is a backslash, and the string ends.
    different(r"SELECT date'\', a, b'c'", r"SELECT date'\', a, d'c'");
    // Behind the end of a string the prefix is one.
    same(r"SELECT $x$y$x$e'\', a, '", r"SELECT $x$y$x$e'\', b, '");
    same(r"SELECT E'\', a, '", r"SELECT E'\', b, '");
}

#[test]
fn hints_are_found_where_comments_are_and_count() {
    let hint = |sql: &str| Folder::new(5).fold(sql.as_bytes(), SCOPE).unwrap().hint;
    assert_eq!(hint("/* switchback: primary */ SELECT 1"), Some(Hint::Primary));
    assert_eq!(hint("SELECT /*switchback:replica*/ 1"), Some(Hint::Replica));
    assert_eq!(hint("SELECT '/* switchback: replica */'"), None);
    assert_eq!(hint("SELECT \"/* switchback: replica */\""), None);
    assert_eq!(hint("SELECT 1 -- /* switchback: replica */"), None);
    assert_eq!(hint("SELECT /* /* switchback: replica */ */ 1"), None);
    assert_eq!(hint("/* switchback: replica */ SELECT 1 /* switchback: primary */"), Some(Hint::Primary));
    different("/* switchback: primary */ SELECT 1", "SELECT 1");
    different("/* switchback: primary */ SELECT 1", "/* switchback: replica */ SELECT 1");
}

#[test]
fn scope_and_seed_count_and_long_texts_have_no_key() {
    let fold = |seed, scope| Folder::new(seed).fold(b"SELECT 1", scope).unwrap().key;
    let key = fold(5, SCOPE);
    assert_ne!(key, fold(6, SCOPE));
    assert_ne!(key, fold(5, Scope { epoch: 2, ..SCOPE }));
    assert_ne!(key, fold(5, Scope { search_path: 2, ..SCOPE }));
    let text = |length| " ".repeat(length);
    assert!(Folder::new(5).fold(text(MAX_TEXT).as_bytes(), SCOPE).is_some());
    assert!(Folder::new(5).fold(text(MAX_TEXT + 1).as_bytes(), SCOPE).is_none());
}

#[test]
fn a_folder_keeps_nothing_of_the_text_before() {
    let mut folder = Folder::new(5);
    folder.fold(b"SELECT a, b, c /* switchback: replica */", SCOPE);
    assert_eq!(folder.fold(b"SELECT 1", SCOPE), Folder::new(5).fold(b"SELECT 1", SCOPE));
}

/// A piece of a statement that stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Equal whatever its case.
    Word(String),
    /// Equal only to itself: a quoted identifier, a parameter, punctuation.
    Exact(String),
    Number,
    Text(Prefix),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    Escape,
    Bits,
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![
        "[a-z_é][a-z0-9_$é]{0,6}".prop_map(Token::Word),
        "\"[a-zA-Z '$;-]{1,6}\"".prop_map(Token::Exact),
        "\\$[1-9]".prop_map(Token::Exact),
        select(vec!["(", ")", ",", ";", "=", "<>", "||", "::", "[", "]", "?", "*", "+", "-", "/", "%", "@>"])
            .prop_map(|word| Token::Exact(word.to_owned())),
        Just(Token::Number),
        select(vec![Prefix::None, Prefix::Escape, Prefix::Bits]).prop_map(Token::Text),
    ]
}

/// Chooses what the tokens leave open: cases, literals, what stands between.
fn written(tokens: &[Token], mut choice: impl FnMut(usize) -> usize) -> String {
    const NUMBERS: [&str; 6] = ["0", "17", "3.14", "5.", "1e3", "2.E-7"];
    const TEXTS: [&str; 6] = ["''", "'a'", "'it''s'", "'--'", "'/* \" $$ ; DELETE'", "$q$it's$q$"];
    const ESCAPES: [&str; 4] = ["E'a'", "e'\\''", "E'it''s \\\\'", "e'\\n;'"];
    const GAPS: [&str; 5] = [" ", "\n\t", "/* DELETE */", " -- it's\n", " /* /* */ ' */ "];
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::Word(word) if choice(2) == 1 => text.push_str(&word.to_ascii_uppercase()),
            Token::Word(word) | Token::Exact(word) => text.push_str(word),
            Token::Number => text.push_str(NUMBERS[choice(NUMBERS.len())]),
            Token::Text(Prefix::None) => text.push_str(TEXTS[choice(TEXTS.len())]),
            Token::Text(Prefix::Escape) => text.push_str(ESCAPES[choice(ESCAPES.len())]),
            Token::Text(Prefix::Bits) => text.push_str(["b'101'", "B''"][choice(2)]),
        }
        text.push_str(GAPS[choice(GAPS.len())]);
    }
    text
}

/// Strings one behind the other are one string on several lines, or an error: never folded.
fn is_plain(tokens: &[Token]) -> bool {
    let text = |token: &Token| matches!(token, Token::Text(_));
    tokens.windows(2).all(|pair| !(text(&pair[0]) && text(&pair[1])))
}

proptest! {
    #[test]
    fn writing_a_statement_in_another_way_does_not_change_its_key(
        tokens in vec(token(), 0..24).prop_filter("plain", |tokens| is_plain(tokens)),
        one in vec(0_usize..60, 64), other in vec(0_usize..60, 64),
    ) {
        let write = |choices: &[usize]| {
            let mut next = choices.iter().cycle();
            written(&tokens, |of| next.next().unwrap() % of)
        };
        let (one, other) = (write(&one), write(&other));
        prop_assert_eq!(key(&one), key(&other), "{} and {}", one, other);
    }

    #[test]
    fn changing_anything_but_a_literal_changes_the_key(
        tokens in vec(token(), 1..24).prop_filter("plain", |tokens| is_plain(tokens)),
        at in any::<prop::sample::Index>(), instead in token(),
    ) {
        let mut changed = tokens.clone();
        *at.get_mut(&mut changed) = instead;
        prop_assume!(changed != tokens && is_plain(&changed));
        let (one, other) = (written(&tokens, |_| 0), written(&changed, |_| 0));
        prop_assert_ne!(key(&one), key(&other), "{} and {}", one, other);
    }

    #[test]
    fn any_bytes_have_a_key_and_always_the_same(bytes in vec(any::<u8>(), 0..200)) {
        let fold = || Folder::new(5).fold(&bytes, SCOPE);
        prop_assert!(fold().is_some());
        prop_assert_eq!(fold(), fold());
    }

    #[test]
    fn any_text_of_what_sql_is_made_of_has_a_key(text in "[-'\"$/*eEuU&bx01a;. \n\\\\]{0,60}") {
        prop_assert!(Folder::new(5).fold(text.as_bytes(), SCOPE).is_some());
    }
}
