//! What goes wrong in a user's hands: each time a clear message that says what to do, an exit code, nothing left over.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use testkit::{App, Switchback, get, or_skip};

use crate::{prepare, up};

/// Runs `up` that must fail, and sees that nothing is left running.
fn fails_to_come_up(app: App) -> testkit::Output {
    let switchback = prepare(app);
    let output = switchback.cli(&["up", "--detach"]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    assert!(output.stderr.contains("hint:"), "{output:#?}");
    nothing_runs(&switchback);
    output
}

pub(crate) fn nothing_runs(switchback: &Switchback) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !switchback.running().is_empty() {
        assert!(Instant::now() < deadline, "left running: {:#?}", switchback.running());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_app_that_exits_at_once_is_said_to_with_its_last_lines() {
    let run = "\"echo cannot find my config; exit 3\"";
    let output = fails_to_come_up(App::python("shop").set("web", "run", run));
    assert!(output.stderr.contains("exit code 3"), "{output:#?}");
    assert!(output.stderr.contains("cannot find my config"), "{output:#?}");
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let output = fails_to_come_up(App::python("shop").set("web", "run", "\"./no-such-server\""));
    assert!(output.stderr.contains("no-such-server"), "{output:#?}");
    assert!(output.stderr.contains("not found"), "{output:#?}");
    assert!(output.stderr.contains("see `run` under [web]"), "{output:#?}");
}

#[test]
fn only_what_this_start_said_is_quoted() {
    let mut switchback = prepare(App::python("shop").set("web", "run", "\"echo no SECRET_KEY; exit 1\""));
    let said = switchback.cli(&["up", "--detach"]);
    assert!(said.stderr.contains("it said last:\n  | no SECRET_KEY"), "{said:#?}");

    switchback.app_mut().change("web", "run", "\"no-such-server\"");
    let missing = switchback.cli(&["up", "--detach"]);
    assert!(missing.stderr.contains("not found"), "{missing:#?}");
    assert!(!missing.stderr.contains("it said last"), "{missing:#?}");

    switchback.app_mut().change("web", "start_timeout", "\"1s\"");
    switchback.app_mut().change("web", "run", "\"exec sleep 60\"");
    let silent = switchback.cli(&["up", "--detach"]);
    assert!(silent.stderr.contains("not ready within 1 s"), "{silent:#?}");
    assert!(!silent.stderr.contains("it said last"), "{silent:#?}");
}

#[test]
fn what_an_app_without_a_database_is_asked_of_it_is_refused_at_once() {
    let switchback = up(App::python("shop"));
    for command in [&["backup"][..], &["restore", "--to", "latest", "--yes"], &["failover"], &["restart"]] {
        let refused = switchback.cli(command);
        assert_ne!(refused.code, Some(0), "{refused:#?}");
        assert!(refused.stderr.contains("the app has no database"), "{refused:#?}");
        assert!(refused.stderr.contains("hint: `[db]` with"), "{refused:#?}");
        assert!(!refused.stderr.contains("brought back"), "{refused:#?}");
    }
    for drill in ["standby-crash", "replica-lag", "switchover", "restore", "proxy-replace", "zone-loss"] {
        let refused = switchback.cli(&["drill", drill]);
        assert_eq!(refused.code, Some(3), "{drill}: {refused:#?}");
    }
    // No client of a drill has asked anything.
    let asked = switchback.app().state_dir().join("logs/access.log");
    assert_eq!(std::fs::read_to_string(asked).unwrap_or_default(), "");
}

#[test]
fn what_the_shell_says_of_a_command_is_explained() {
    let missing = fails_to_come_up(App::python("shop").set("web", "run", "\"cd . && no-such-server\""));
    assert!(missing.stderr.contains("exit code 127 (the shell found no such command)"), "{missing:#?}");
    assert!(missing.stderr.contains("see `run` under [web]"), "{missing:#?}");
    let closed = fails_to_come_up(App::python("shop").set("web", "run", "\"cd . && ./version\""));
    assert!(closed.stderr.contains("exit code 126 (the shell may not execute"), "{closed:#?}");
    assert!(closed.stderr.contains("`chmod +x`"), "{closed:#?}");
}

#[test]
fn an_app_that_ends_without_an_error_is_told_to_stay_in_the_foreground() {
    let output = fails_to_come_up(App::python("shop").set("web", "run", "\"true\""));
    assert!(output.stderr.contains("exit code 0 (by itself, and without an error)"), "{output:#?}");
    assert!(output.stderr.contains("must stay in the foreground"), "{output:#?}");

    // One that has served before, and goes to the background.
    let switchback = up(App::python("shop").set("web", "run", "\"python3 app.py & sleep 1\""));
    switchback.wait_for("its end", Duration::from_secs(20), |status| {
        status.web()[0].reason.as_deref().is_some_and(|reason| reason.contains("exit code 0"))
    });
    switchback.wait_for("why in the table", Duration::from_secs(20), |_| {
        let table = switchback.must(&["status"]).stdout;
        table.contains("exit code 0 (by itself") && table.contains("hint: `run` under [web] must stay")
    });
}

#[test]
fn an_instance_that_runs_out_of_memory_is_said_to_have() {
    let switchback = up(App::python("shop").set("web", "size", "{ memory = \"64MB\" }"));
    if switchback.status().raw["unlimited_because"].is_string() {
        eprintln!("skipped: {}", switchback.status().raw["unlimited_because"]);
        return;
    }
    let before = switchback.status().process("web.1").pid;
    // The connection ends, or the edge says 502.
    let _ = get(&switchback.url("/eat/256"));
    switchback.wait_for("another process", Duration::from_secs(20), |status| {
        status.all_ready() && status.process("web.1").pid != before
    });
    let reason = "killed by the kernel, out of memory (limit 64MB)";
    switchback.wait_for("why it was restarted", Duration::from_secs(5), |_| {
        switchback.must(&["why"]).stdout.contains(&format!("web.1: restart it (ended: {reason})"))
    });
    let logs = switchback.must(&["logs", "web"]).stdout;
    assert!(logs.contains(&format!("switchback: ended: {reason}")), "{logs}");
}

#[test]
fn logs_of_a_name_that_nobody_has_are_refused_with_the_names_there_are() {
    let switchback = up(App::python("shop"));
    for names in [&["logs", "wbe"][..], &["logs", "web", "wbe"], &["logs", "-f", "wbe"]] {
        let refused = switchback.cli(names);
        assert_eq!(refused.code, Some(2), "{names:?}: {refused:#?}");
        assert!(refused.stderr.contains("nothing named `wbe` is in the logs"), "{refused:#?}");
        assert!(refused.stderr.contains("hint: there are edge, edge.1, web, web.1"), "{refused:#?}");
    }
    assert!(switchback.must(&["logs", "web.1"]).stdout.contains("listens on"));
}

#[test]
fn an_app_that_listens_nowhere_is_told_where_it_should() {
    let app = App::python("shop").knob("listen_nowhere", true).set("web", "start_timeout", "\"1s\"");
    let output = fails_to_come_up(app);
    assert!(output.stderr.contains("not ready within 1"), "{output:#?}");
    assert!(output.stderr.contains("must listen on the port in PORT"), "{output:#?}");
}

#[test]
fn a_build_that_fails_is_shown_and_nothing_is_deployed() {
    let output =
        fails_to_come_up(App::python("shop").set("web", "build", "\"echo missing semicolon; exit 2\""));
    assert!(output.stderr.contains("missing semicolon"), "{output:#?}");
}

#[test]
fn after_a_first_up_that_failed_nothing_is_up_and_the_reason_can_be_asked_for() {
    let switchback = prepare(App::python("shop").set("web", "run", "\"exit 3\""));
    assert_eq!(switchback.cli(&["up", "--detach"]).code, Some(1));
    // At once: the daemon of `up` must not be met on its way out.
    let status = switchback.cli(&["status"]);
    assert_eq!(status.code, Some(1), "{status:#?}");
    assert!(status.stderr.contains("the app is not up here"), "{status:#?}");
    assert!(
        switchback
            .must(&["why"])
            .stdout
            .contains("web.1: give up its first start (ended before it was ready")
    );
    assert!(switchback.must(&["rollback", "--list"]).stdout.contains("failed: web.1: ended before"));
}

#[test]
fn where_no_postgres_is_to_be_had_the_first_up_says_what_to_install_and_leaves_nothing() {
    // Hides what is installed from this test alone; the folder without the distribution's programs does the rest.
    let Some(app) = or_skip(App::guestbook("shop").with_a_disk_at("/usr/lib/postgresql", 1)) else { return };
    let switchback = prepare(app);
    let programs = switchback.app().dir().with_file_name("programs");
    std::fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink("/bin/sh", programs.join("sh")).unwrap();
    let output = switchback.command(&["up", "--detach"]).env("PATH", &programs).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no PostgreSQL was found"), "{said}");
    assert!(said.contains("hint: run `") && said.contains("install postgresql"), "{said}");
    nothing_runs(&switchback);
    let (dir, state) = (switchback.app().dir(), switchback.app().state_dir());
    assert!(!dir.join("switchback.lock").exists());
    for folder in ["data/postgres", "data/retired", "credentials"] {
        let left = std::fs::read_dir(state.join(folder)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{folder}");
    }
}

#[test]
fn a_release_command_that_fails_is_shown_and_nothing_is_deployed() {
    let output =
        fails_to_come_up(App::python("shop").set("web", "release", "\"echo no such table; exit 4\""));
    assert!(output.stderr.contains("exit code 4"), "{output:#?}");
    assert!(output.stderr.contains("no such table"), "{output:#?}");
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = fails_to_come_up(App::python("shop").set("edge", "listen", format!("\"{address}\"")));
    assert!(output.stderr.contains(&format!("cannot listen on {address}")), "{output:#?}");
    let who = format!("(pid {}) has port {}. Stop it", std::process::id(), address.port());
    assert!(output.stderr.contains(&who), "{output:#?}");
}

#[test]
fn a_port_of_another_app_is_named_with_its_folder() {
    let first = up(App::python("first"));
    let address = first.url("").trim_start_matches("http://").to_owned();
    let output = fails_to_come_up(App::python("shop").set("edge", "listen", format!("\"{address}\"")));
    let folder = first.app().dir().display().to_string();
    assert!(output.stderr.contains(&format!("the app in {folder} (pid")), "{output:#?}");
    assert!(output.stderr.contains(&format!("`switchback down -C {folder} --state-dir ")), "{output:#?}");
}

#[test]
fn an_app_that_ignores_sigterm_is_killed_after_its_grace() {
    let app = App::python("shop").knob("ignore_sigterm", true).set("web", "grace", "\"1s\"");
    let switchback = up(app);
    switchback.down();
}

#[test]
fn children_that_an_app_leaves_behind_are_ended_with_it() {
    let switchback = up(App::python("shop").knob("leak_children", 3));
    switchback.down();
}

#[test]
fn an_app_that_floods_its_output_keeps_the_logs_within_their_budget() {
    let switchback = up(App::python("shop").knob("flood_lines", 200_000));
    let output = switchback.must(&["logs", "web", "-n", "5"]);
    assert_eq!(output.stdout.lines().count(), 5);
    let logs = switchback.app().state_dir().join("logs");
    let blocks = |dir: &str| -> u64 {
        use std::os::unix::fs::MetadataExt;
        let files = std::fs::read_dir(logs.join(dir)).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
    };
    // The store's budget, a segment that is being written, and what was not read yet.
    let used = blocks("store") + blocks("current");
    assert!(used < 300 << 20, "{used} bytes");
}

#[test]
fn an_app_that_crashes_again_and_again_is_said_to_be_crash_looping_with_its_last_lines() {
    let switchback = up(App::python("shop").knob("crash_after_ms", 300));
    let status = switchback.wait_for("crash-looping", Duration::from_secs(40), |status| {
        status.web().iter().any(|instance| instance.state == "crash-looping")
    });
    let instance = status.web()[0];
    assert!(instance.reason.as_deref().unwrap_or_default().contains("ended"));
    assert!(instance.last_lines.iter().any(|line| line.contains("told to crash")), "{instance:#?}");
    switchback.wait_for("its last lines in the table", Duration::from_secs(20), |_| {
        switchback.must(&["status"]).stdout.contains("told to crash")
    });
    // Written down a moment after it is seen.
    switchback.wait_for("why it is said to be", Duration::from_secs(5), |_| {
        switchback.must(&["why"]).stdout.contains("crash-looping")
    });
}

#[test]
fn the_daemon_state_of_a_newer_version_is_refused() {
    let switchback = prepare(App::python("shop"));
    std::fs::create_dir_all(switchback.app().state_dir()).unwrap();
    std::fs::write(switchback.app().state_dir().join("VERSION"), "99\n").unwrap();
    let output = switchback.cli(&["up", "--detach"]);
    assert_eq!(output.code, Some(3), "{output:#?}");
    assert!(output.stderr.contains("format 99"), "{output:#?}");
    assert!(output.stderr.contains("hint:"), "{output:#?}");
}

#[test]
fn a_manifest_with_problems_starts_nothing() {
    let switchback =
        prepare(App::python("shop").set("web", "instances", "\"two\"").set("web", "helth", "\"/\""));
    let output = switchback.cli(&["up", "--detach"]);
    assert_eq!(output.code, Some(2), "{output:#?}");
    assert!(output.stderr.contains("instances") && output.stderr.contains("health"), "{output:#?}");
    nothing_runs(&switchback);
}

#[test]
fn commands_without_an_app_say_how_to_begin() {
    let switchback = prepare(App::python("shop"));
    for command in ["status", "deploy", "why", "rollback"] {
        let output = switchback.cli(&[command]);
        assert_eq!(output.code, Some(1), "{command}: {output:#?}");
        assert!(output.stderr.contains("`switchback up`"), "{command}: {output:#?}");
    }
    assert_eq!(switchback.cli(&["down"]).code, Some(0));
}
