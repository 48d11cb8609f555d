//! What clients asked for and were told, in the order of one clock; and the same in EDN, as Jepsen writes it and Elle
//! reads it.

use std::fmt::Write;
use std::time::Duration;

/// How an operation ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged: it has happened.
    Ok,
    /// It was refused: it has not happened, and never will.
    Fail,
    /// Nobody said: it may have happened, or may still.
    Info,
}

impl Outcome {
    fn keyword(self) -> &'static str {
        match self {
            Outcome::Ok => ":ok",
            Outcome::Fail => ":fail",
            Outcome::Info => ":info",
        }
    }
}

/// One thing that a client did. A client does one after the other.
#[derive(Debug, Clone)]
pub struct Operation<A> {
    pub client: u32,
    /// The client's name in the history: another one after each operation whose outcome is unknown, as that may still be
    /// going on.
    pub process: u32,
    /// Since the run began: before anything was sent, and after all was received.
    pub invoked: Duration,
    pub completed: Duration,
    pub outcome: Outcome,
    /// An SQLSTATE, or a word where no server said one; a colon, and more about it.
    pub error: Option<String>,
    pub act: A,
}

/// What an operation does, in words that checkers know.
pub trait Act {
    /// `:f` of the event.
    fn function(&self) -> &'static str;
    /// `:value` of the event; what is read stands in it once it is known.
    fn write(&self, known: Known, out: &mut String);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Asked,
    Answered,
}

/// Something that was broken meanwhile.
#[derive(Debug, Clone)]
pub struct Fault {
    pub at: Duration,
    pub name: &'static str,
    /// What it was done to.
    pub victim: String,
}

/// A history with one event a line.
pub fn edn<A: Act>(operations: &[Operation<A>], faults: &[Fault]) -> String {
    let mut events: Vec<(Duration, String)> = Vec::with_capacity(2 * operations.len() + faults.len());
    for operation in operations {
        let mut event = |time: Duration, kind: &str, known: Known, error: Option<&str>| {
            let mut line = format!(
                ":time {}, :process {}, :type {kind}, :f :{}, :value ",
                time.as_nanos(),
                operation.process,
                operation.act.function()
            );
            operation.act.write(known, &mut line);
            if let Some(error) = error {
                line.push_str(", :error ");
                write_string(error, &mut line);
            }
            events.push((time, line));
        };
        event(operation.invoked, ":invoke", Known::Asked, None);
        let known = match operation.outcome {
            Outcome::Ok => Known::Answered,
            Outcome::Fail | Outcome::Info => Known::Asked,
        };
        event(operation.completed, operation.outcome.keyword(), known, operation.error.as_deref());
    }
    for fault in faults {
        let mut line = format!(
            ":time {}, :process :nemesis, :type :info, :f :{}, :value ",
            fault.at.as_nanos(),
            fault.name,
        );
        write_string(&fault.victim, &mut line);
        events.push((fault.at, line));
    }
    // Stable: an operation that took no time still begins before it ends.
    events.sort_by_key(|(time, _)| *time);
    let mut out = String::new();
    for (index, (_, line)) in events.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{{:index {index}, {line}}}");
    }
    out
}

/// As EDN has strings: in UTF-8, with the escapes that its readers know, which are fewer than Rust's. On one line.
fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::{Isolation, Node, Step, Transaction};

    fn at_ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_string_is_written_with_the_escapes_that_edn_has() {
        for (text, expected) in [
            ("db.1", r#""db.1""#),
            ("it's \"quoted\" by \\", r#""it's \"quoted\" by \\""#),
            ("two\nlines\tand \r", r#""two\nlines\tand \r""#),
            ("\u{0}\u{1b}\u{7f}\u{85}", r#""\u0000\u001b\u007f\u0085""#),
            ("„größer“ 🦀 e\u{301}", "\"„größer“ 🦀 e\u{301}\""),
        ] {
            let mut written = String::new();
            write_string(text, &mut written);
            assert_eq!(written, expected);
        }
    }

    /// As Elle's README has its histories: what is read is `nil` until it is known, and what broke is `:nemesis`.
    #[test]
    fn a_history_of_lists_is_written_as_elle_reads_it() {
        let steps = |read| vec![Step::Append(3, 1), Step::Read(4, read)];
        let block = Some(Isolation::Serializable);
        let transaction = |read| Transaction { block, steps: steps(read), by: Node::Primary };
        let operation = |process, from, to, outcome, error: Option<&str>, act| Operation {
            client: 0,
            process,
            invoked: at_ms(from),
            completed: at_ms(to),
            outcome,
            error: error.map(str::to_owned),
            act,
        };
        let operations = [
            operation(0, 1, 4, Outcome::Ok, None, transaction(Some(vec![1, 2]))),
            operation(1, 2, 5, Outcome::Info, Some("08007: \"unknown\""), transaction(None)),
        ];
        let faults = [Fault { at: at_ms(3), name: "primary-crash", victim: "db.1".to_owned() }];
        let expected = [
            "{:index 0, :time 1000000, :process 0, :type :invoke, :f :txn, :value [[:append 3 1] [:r 4 nil]]}",
            "{:index 1, :time 2000000, :process 1, :type :invoke, :f :txn, :value [[:append 3 1] [:r 4 nil]]}",
            "{:index 2, :time 3000000, :process :nemesis, :type :info, :f :primary-crash, :value \"db.1\"}",
            "{:index 3, :time 4000000, :process 0, :type :ok, :f :txn, :value [[:append 3 1] [:r 4 [1 2]]]}",
            "{:index 4, :time 5000000, :process 1, :type :info, :f :txn, :value [[:append 3 1] [:r 4 nil]], \
             :error \"08007: \\\"unknown\\\"\"}",
        ];
        assert_eq!(edn(&operations, &faults).lines().collect::<Vec<_>>(), expected);
    }
}
