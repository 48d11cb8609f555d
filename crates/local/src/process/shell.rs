//! How a command line of the manifest is given to the shell.
//!
//! Signals are for the app. With `sh -c LINE` the leader of the group would be a shell that may wait for the
//! app and tell us its own end instead of the app's; with `exec` in front the shell becomes the app. That
//! works for a plain command only: not for lists, pipes, assignments in front, or words that the shell itself
//! understands.

/// What the shell understands by itself: `exec` in front of these would search for a program of that name.
const SHELL_WORDS: &[&str] = &[
    "!", "{", "}", "[[", ".", ":", "alias", "bg", "break", "builtin", "case", "cd", "command", "continue",
    "declare", "do", "done", "elif", "else", "esac", "eval", "exec", "exit", "export", "fg", "fi", "for",
    "function", "getopts", "hash", "if", "in", "jobs", "let", "local", "read", "readonly", "return",
    "select", "set", "shift", "source", "then", "time", "times", "trap", "type", "typeset", "ulimit",
    "umask", "unalias", "unset", "until", "wait", "while",
];

/// The text for `sh -c`.
pub(super) fn script(line: &str) -> String {
    match first_word(line) {
        Some(_) => format!("exec {}", line.trim()),
        None => line.to_owned(),
    }
}

/// The program that a plain line names literally, to be looked for before anything is started.
pub(super) fn program(line: &str) -> Option<&str> {
    let word = first_word(line)?;
    let literal = |b: u8| b.is_ascii_alphanumeric() || b"/._-+@%:,".contains(&b);
    (!word.is_empty() && word.bytes().all(literal)).then_some(word)
}

/// The first word of a line that is one plain command; `None` for anything that needs the shell to stay.
fn first_word(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.is_empty() || !is_one_command(line) {
        return None;
    }
    let word = line.split([' ', '\t']).next()?;
    let name = word.split('=').next().unwrap_or(word);
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let assignment = word.contains('=') && is_name(name);
    (!assignment && !SHELL_WORDS.contains(&word)).then_some(word)
}

/// No operator outside of quotes that would begin another command. In doubt, no.
fn is_one_command(line: &str) -> bool {
    let mut bytes = line.bytes().peekable();
    let mut before = b' ';
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'\'' => {
                let is_closed = bytes.any(|b| b == b'\'');
                if !is_closed {
                    return false;
                }
            }
            b'"' => loop {
                match bytes.next() {
                    Some(b'"') => break,
                    Some(b'\\') => {
                        bytes.next();
                    }
                    Some(_) => {}
                    None => return false,
                }
            },
            // `2>&1` and `<&-` are redirections.
            b'&' if before == b'>' || before == b'<' => {}
            b';' | b'|' | b'&' | b'(' | b')' | b'`' | b'\n' | b'\r' => return false,
            // A here-document has lines of its own.
            b'<' if before == b'<' => return false,
            _ => {}
        }
        before = byte;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_command_becomes_the_leader() {
        for line in [
            "./server",
            "python3 -m http.server $PORT",
            "gunicorn app:app --bind '0.0.0.0:8000; x' 2>&1",
            "node \"a && b\" > log",
            "bin/rails s -e ${RAILS_ENV:-production}",
        ] {
            assert_eq!(script(line), format!("exec {line}"));
        }
    }

    #[test]
    fn what_needs_the_shell_keeps_it() {
        for line in [
            "cd app && ./server",
            "a; b",
            "a | b",
            "a &",
            "FOO=1 ./server",
            "exec ./server",
            "if true; then a; fi",
            "while :; do a; done",
            "(a)",
            "a `b`",
            "a\nb",
            "cat <<EOF",
            "echo 'unfinished",
            "ulimit -n 10",
        ] {
            assert_eq!(script(line), line, "{line:?}");
        }
    }

    #[test]
    fn only_a_literal_program_is_looked_for() {
        assert_eq!(program("bin/server --x"), Some("bin/server"));
        assert_eq!(program("$SERVER --x"), None);
        assert_eq!(program("'my server' --x"), None);
        assert_eq!(program("a && b"), None);
    }
}
