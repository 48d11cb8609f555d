//! `up` as a person sees it: in a terminal, until Ctrl-C.

use std::time::Duration;

use testkit::{App, Keys, Switchback, Terminal};

use crate::faults::nothing_runs;
use crate::prepare;
use crate::stopped::{asking, until_in_flight};

/// For a first `up`, with its database.
const UP_LIMIT: Duration = Duration::from_secs(120);
/// For what a person waits for without looking away.
const SOON: Duration = Duration::from_secs(15);

/// Hides the cursor, and shows it.
const CURSOR: [&str; 2] = ["\u{1b}[?25l", "\u{1b}[?25h"];
/// Another screen than the one with the shell's lines.
const OTHER_SCREEN: &str = "\u{1b}[?1049h";

fn up_in_a_terminal(app: App) -> (Switchback, Terminal) {
    let switchback = prepare(app);
    let terminal = Terminal::run(&switchback.command(&["up"]));
    (switchback, terminal)
}

/// As it was found.
fn is_left_in_order(terminal: &Terminal, before: Keys, shown: &str) {
    assert_eq!(terminal.keys(), before);
    let [hidden, shown_again] = CURSOR.map(|sequence| shown.rfind(sequence));
    assert!(hidden.is_none() || shown_again > hidden, "the cursor is hidden: {shown:?}");
    assert!(!shown.contains(OTHER_SCREEN));
}

/// How often a row of this process was drawn in which it is ready.
fn rows_of(shown: &str, name: &str) -> usize {
    let is_ready = |row: &&str| row.split_whitespace().nth(1) == Some("ready");
    shown.split(name).skip(1).filter(is_ready).count()
}

#[test]
fn up_in_a_terminal_shows_its_steps_then_what_runs_and_ctrl_c_stops_it_in_order() {
    let (mut switchback, mut terminal) = up_in_a_terminal(App::guestbook("shop"));
    let before = terminal.keys();
    assert_eq!(before, Keys { echoed: true, by_line: true, make_signals: true });

    // What is under way is a line that is drawn again and again; what is done stays above it.
    let steps =
        terminal.wait_until("its steps", UP_LIMIT, |shown| shown.contains("up: shop answers at http://"));
    assert!(steps.contains("done [1/"), "{steps}");
    let under_way = |line: &&str| line.contains("] ") && !line.contains("done [");
    assert!(steps.split(['\r', '\n']).any(|line| under_way(&line)), "{steps}");
    terminal.wait_for("Ctrl-C stops it", SOON);

    terminal.wait_until("a row of each process", SOON, |shown| {
        ["edge", "pgproxy-db", "db.1", "web.1"].iter().all(|name| rows_of(shown, name) > 0)
    });
    let drawn = rows_of(&terminal.shown(), "web.1");
    terminal.wait_until("it is drawn again", SOON, |shown| rows_of(shown, "web.1") > drawn + 1);
    // What somebody changes elsewhere is seen here.
    switchback.app_mut().change("web", "instances", 2);
    switchback.must(&["apply", "--yes"]);
    terminal.wait_until("the second instance", SOON, |shown| rows_of(shown, "web.2") > 0);

    terminal.interrupt();
    let (code, shown) = terminal.ended(Duration::from_secs(60));
    assert_eq!(code, Some(0), "{shown}");
    let (_, last) =
        shown.rsplit_once("stopping; Ctrl-C again stops at once").expect("it is said what happens");
    assert!(last.trim_end().ends_with("down: everything is stopped; the data is kept"), "{last:?}");
    assert_eq!(rows_of(last, "web.1"), 0, "the view is gone: {last:?}");
    is_left_in_order(&terminal, before, &shown);
    nothing_runs(&switchback);
}

#[test]
fn a_second_ctrl_c_in_the_terminal_stops_at_once_and_leaves_the_terminal_in_order() {
    let (mut switchback, mut terminal) = up_in_a_terminal(App::python("shop").set("web", "grace", "\"60s\""));
    let before = terminal.keys();
    terminal.wait_for("Ctrl-C stops it", UP_LIMIT);
    switchback.look_up_front();
    let waiting = asking(switchback.url("/slow/50000"));
    until_in_flight(&switchback, 1);
    terminal.interrupt();
    terminal.wait_for("stopping; Ctrl-C again stops at once", SOON);
    // Whoever presses it once waits for the request.
    std::thread::sleep(Duration::from_secs(1));
    assert!(!terminal.shown().contains("everything is stopped"), "{}", terminal.shown());

    terminal.interrupt();
    let (code, shown) = terminal.ended(SOON);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("stopping at once") && shown.contains("everything is stopped"), "{shown}");
    assert!(!waiting.join().unwrap());
    is_left_in_order(&terminal, before, &shown);
    nothing_runs(&switchback);
}

#[test]
fn ctrl_c_in_the_terminal_while_it_comes_up_leaves_nothing_half_up() {
    let (switchback, mut terminal) =
        up_in_a_terminal(App::python("shop").set("web", "build", "\"sleep 60\""));
    let before = terminal.keys();
    terminal.wait_for("build", SOON);
    terminal.interrupt();
    let (code, shown) = terminal.ended(SOON);
    // As a shell says it of SIGINT.
    assert_eq!(code, Some(130), "{shown}");
    assert!(shown.contains("interrupted: stopping what was started"), "{shown}");
    is_left_in_order(&terminal, before, &shown);
    nothing_runs(&switchback);
}
