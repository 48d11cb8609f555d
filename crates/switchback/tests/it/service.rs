//! A daemon that somebody looks after, and a new program in the place of the old one.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{App, Load, Mix, Status, Switchback};

use crate::data::sql;
use crate::faults::nothing_runs;
use crate::prepare;

/// What a service manager does: starts it again whenever it ends, but not once the app was brought down (exit code 4).
const MANAGER: &str = r#"while "$@"; [ $? -ne 4 ]; do sleep 0.1; done"#;

fn managed(switchback: &Switchback, notify: &Path) -> Child {
    let supervised = switchback.command(&["up", "--supervised"]);
    let mut manager = Command::new("sh");
    manager.args(["-c", MANAGER, "manager"]).arg(supervised.get_program()).args(supervised.get_args());
    manager.env("NOTIFY_SOCKET", notify).spawn().expect("sh is part of every Linux system")
}

fn ends_within(mut child: Child, limit: Duration) {
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program that a process runs: device and inode.
fn program(pid: u32) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let program = std::fs::metadata(format!("/proc/{pid}/exe")).unwrap();
    (program.dev(), program.ino())
}

/// Puts a copy of the program at `path`: another file, in the place of the one that was there.
fn install(path: &Path) {
    let beside = path.with_extension("new");
    std::fs::copy(env!("CARGO_BIN_EXE_switchback"), &beside).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

fn pids(status: &Status) -> Vec<(String, Option<u32>)> {
    status.processes.iter().map(|process| (process.name.clone(), process.pid)).collect()
}

fn with_load(switchback: &mut Switchback) -> Load {
    switchback.look_up_front();
    Load::start(&switchback.url("/"), Mix::both().at_most(300))
}

#[test]
fn a_supervised_daemon_may_end_and_the_app_goes_on_until_it_is_brought_down() {
    let mut switchback = prepare(App::python("shop"));
    let told = switchback.app().dir().with_file_name("notify.sock");
    let notified = UnixDatagram::bind(&told).unwrap();
    notified.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut message = [0; 64];
    let manager = managed(&switchback, &told);
    let read = notified.recv(&mut message).unwrap();
    assert_eq!(&message[..read], b"READY=1");
    let load = with_load(&mut switchback);
    let before = switchback.status();
    assert!(before.all_ready());

    for signal in ["TERM", "KILL", "INT"] {
        let old = switchback.status().daemon_pid;
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(old.to_string()).status().unwrap();
        assert!(sent.success());
        notified.recv(&mut message).unwrap();
        let now = switchback.status();
        assert_ne!(now.daemon_pid, old, "after SIG{signal}");
        assert_eq!(pids(&now), pids(&before), "after SIG{signal}");
    }
    load.stop().assert_nothing_failed(100);
    switchback.down();
    ends_within(manager, Duration::from_secs(10));
}

#[test]
fn a_supervised_daemon_takes_over_from_one_that_nobody_looks_after() {
    let switchback = crate::up(App::python("shop"));
    let before = switchback.status();
    assert_eq!(before.raw["daemon"]["supervised"], false);
    let manager = managed(&switchback, Path::new("/nowhere"));
    let after = switchback.wait_for("a supervised daemon", Duration::from_secs(30), |status| {
        status.raw["daemon"]["supervised"] == true && status.raw["operation"].is_null()
    });
    assert_eq!(pids(&after), pids(&before));
    let second = switchback.cli(&["up", "--supervised"]);
    assert_eq!(second.code, Some(3), "{second:#?}");
    switchback.down();
    ends_within(manager, Duration::from_secs(10));
}

#[test]
fn a_supervised_daemon_whose_app_does_not_come_up_leaves_nothing_and_says_why() {
    let failing = prepare(App::python("shop").set("web", "run", "\"echo no config; exit 3\""));
    let ended = failing.cli(&["up", "--supervised"]);
    for said in ["no config", "hint:"] {
        assert!(ended.stderr.contains(said), "{ended:#?}");
    }
    assert_eq!(ended.code, Some(1));
    nothing_runs(&failing);
}

/// Otherwise it would stand before a shut door for ever: the address is free some day, and nobody would try again.
#[test]
fn a_supervised_daemon_whose_address_somebody_has_ends_and_says_who_so_that_it_is_tried_again() {
    let switchback = crate::up(App::python("shop"));
    let front = switchback.url("");
    switchback.down();
    let taken = std::net::TcpListener::bind(front.strip_prefix("http://").unwrap()).unwrap();
    let ended = switchback.cli_within(Duration::from_secs(60), &["up", "--supervised"]);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let who = format!("error: cannot listen on {}", taken.local_addr().unwrap());
    assert!(ended.stderr.contains(&who), "{ended:#?}");
    assert!(ended.stderr.contains(&format!("(pid {}) has port", std::process::id())), "{ended:#?}");
    drop(taken);
    let manager = managed(&switchback, Path::new("/nowhere"));
    switchback.wait_for("up", Duration::from_secs(60), |status| {
        status.all_ready() && status.raw["operation"].is_null()
    });
    assert_eq!(testkit::get(&switchback.url("/")).unwrap().status, 200);
    switchback.down();
    ends_within(manager, Duration::from_secs(10));
}

#[test]
fn a_status_that_is_asked_for_while_the_daemon_is_started_again_waits_for_it() {
    let switchback = prepare(App::python("shop"));
    let manager = managed(&switchback, Path::new("/nowhere"));
    switchback.wait_for("up", Duration::from_secs(60), |status| {
        status.all_ready() && status.raw["operation"].is_null()
    });
    for _ in 0..5 {
        switchback.kill_daemon();
        switchback.status();
    }
    switchback.down();
    ends_within(manager, Duration::from_secs(10));
}

#[test]
fn a_supervised_daemon_that_cannot_bring_the_app_up_as_it_should_be_says_so_in_json_of_distinct_keys() {
    let switchback = crate::up(App::python("shop").set("web", "start_timeout", "\"2s\""));
    switchback.app().put("switchback.toml", &switchback.app().manifest().replace("app.py", "gone.py"));
    let release = switchback.status().web()[0].release.clone().unwrap();
    let program = switchback.app().state_dir().join(format!("releases/{release}/tree/app.py"));
    std::fs::remove_file(program).unwrap();
    switchback.down();
    let log = switchback.app().dir().with_file_name("supervised.log");
    let stderr = std::fs::File::create(&log).unwrap();
    let mut daemon = switchback.command(&["up", "--supervised"]).stderr(stderr).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let line = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        let mut lines = text.lines();
        if let Some(line) = lines.find(|line| line.contains("not up as the manifest says")) {
            break line.to_owned();
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(line.matches("\"message\":").count(), 1, "{line}");
    assert!(line.contains("\"reason\":\"web.1: ended before it was ready"), "{line}");
    switchback.down();
    daemon.wait().unwrap();
}

#[test]
fn an_upgrade_replaces_daemon_edge_and_pgproxy_without_a_failed_request() {
    let app = App::guestbook("shop").stage(2);
    let installed = app.dir().with_file_name("switchback");
    install(&installed);
    let mut switchback = Switchback::up(&installed, app);
    switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id bigserial)");
    let load = Load::start(&switchback.url("/visit"), Mix::both().at_most(100));
    load.wait_for_more(50, Duration::from_secs(20));
    let before = switchback.status();

    install(&installed);
    let said = switchback.must(&["upgrade"]).stderr;
    for part in ["daemon: ", "took over from", "edge: a new process serves", "pgproxy: a new process serves"]
    {
        assert!(said.contains(part), "{said}");
    }
    let after = switchback.status();
    let new = program(after.daemon_pid);
    for name in ["edge", "pgproxy-db"] {
        assert_eq!(program(after.process(name).pid()), new);
    }
    // It still has what the app keeps in its pool.
    assert_eq!(after.raw["departing"], serde_json::json!(["pgproxy-db.1"]));
    for name in ["db.1", "web.1", "web.2"] {
        assert_eq!(after.process(name).pid, before.process(name).pid, "{name}");
    }
    let again = switchback.must(&["upgrade"]).stderr;
    assert!(again.contains("daemon: runs this program already"), "{again}");
    assert_eq!(switchback.status().daemon_pid, after.daemon_pid);
    switchback.app_mut().put("version", "2");
    switchback.must(&["deploy"]);
    // Once the instances that had them are gone, so are the sessions.
    switchback.wait_for("the proxy before has ended", Duration::from_secs(30), |status| {
        status.raw["departing"].is_null()
    });
    load.stop().assert_nothing_failed(100);
    switchback.down();
}

/// Ctrl-C in psql asks by a connection of its own, which the new process gets.
#[test]
fn a_query_that_runs_in_a_proxy_that_was_replaced_can_be_cancelled() {
    let app = App::guestbook("shop");
    let installed = app.dir().with_file_name("switchback");
    install(&installed);
    let switchback = Switchback::up(&installed, app);
    let credentials = std::fs::read(switchback.app().state_dir().join("credentials/db.json")).unwrap();
    let credentials: serde_json::Value = serde_json::from_slice(&credentials).unwrap();
    let address = switchback.status().process("pgproxy-db").address.clone();
    let (host, port) = address.rsplit_once(':').unwrap();
    let mut psql = Command::new("psql");
    psql.args(["-XAtq", "-h", host, "-p", port, "-d", "shop", "-c", "SELECT pg_sleep(600)"]);
    psql.args(["-U", credentials["app"]["role"].as_str().unwrap()]);
    psql.env("PGPASSWORD", credentials["app"]["password"].as_str().unwrap());
    let psql = psql.stderr(Stdio::piped()).spawn().unwrap();
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
    switchback.wait_for("it runs", Duration::from_secs(20), |_| sql(&switchback, sleeps) == "1");

    install(&installed);
    switchback.must(&["upgrade"]);
    assert_eq!(switchback.status().raw["departing"], serde_json::json!(["pgproxy-db.1"]));
    let pid = Pid::from_raw(psql.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = psql.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("canceling statement due to user request"), "{said}");
    switchback.down();
}

#[test]
fn an_upgrade_of_a_supervised_daemon_leaves_its_start_to_the_service_manager() {
    let app = App::python("shop");
    let installed = app.dir().with_file_name("switchback");
    install(&installed);
    let mut switchback = Switchback::prepare(&installed, app);
    let manager = managed(&switchback, Path::new("/nowhere"));
    switchback.wait_for("up", Duration::from_secs(60), |status| {
        status.web().len() == 1 && status.all_ready() && status.raw["operation"].is_null()
    });
    let load = with_load(&mut switchback);

    install(&installed);
    switchback.must(&["upgrade"]);
    let after = switchback.status();
    assert_eq!(after.raw["daemon"]["supervised"], true);
    assert_eq!(program(after.daemon_pid), program(after.process("edge").pid()));
    load.stop().assert_nothing_failed(50);
    switchback.down();
    ends_within(manager, Duration::from_secs(10));
}
