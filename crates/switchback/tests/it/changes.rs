//! Plans and releases: what is refused, what is taken back, what is harmless.

use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::{App, Load, Mix, get, request};

use crate::data::sql;
use crate::up;

#[test]
fn a_release_that_never_becomes_ready_is_taken_back_and_says_why() {
    let mut switchback = up(App::python("shop").set("web", "start_timeout", "\"2s\""));
    let load = Load::start(&switchback.url("/"), Mix::both().at_most(200));
    switchback.app_mut().put("version", "2");
    switchback.app_mut().turn("never_ready", true);
    let output = switchback.cli(&["deploy"]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    assert!(output.stderr.contains("not ready within 2"), "{output:#?}");
    assert!(output.stderr.contains("Everything was taken back"), "{output:#?}");
    assert!(output.stderr.contains("hint:"), "{output:#?}");
    load.wait_for_more(50, Duration::from_secs(10));
    load.stop().assert_nothing_failed(100);
    assert_eq!(get(&switchback.url("/")).unwrap().header("x-app-version"), Some("1"));
    assert_eq!(switchback.status().web().len(), 1);
}

/// What is half built must not be stored by somebody else, such as a journey's copy of the app.
#[test]
fn a_build_whose_daemon_was_killed_has_the_folder_until_it_ends() {
    let build = "\"while [ -e held ]; do sleep 0.05; done\"";
    let switchback = up(App::python("shop").set("web", "build", build));
    switchback.app().put("held", "");
    let mut deploy = switchback.command(&["deploy"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(deploy.stderr.take().unwrap()).lines().map(Result::unwrap);
    said.find(|line| line.contains("building: ")).expect("it builds");
    let builds = || switchback.running().iter().any(|line| line.contains("while [ -e held ]"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !builds() {
        assert!(Instant::now() < deadline, "{:#?}", switchback.running());
        std::thread::sleep(Duration::from_millis(20));
    }
    switchback.kill_daemon();
    deploy.wait().unwrap();
    let folder = File::open(switchback.app().dir()).unwrap();
    assert!(matches!(folder.try_lock(), Err(TryLockError::WouldBlock)) && builds());
    std::fs::remove_file(switchback.app().dir().join("held")).unwrap();
    while folder.try_lock().is_err() {
        assert!(Instant::now() < deadline, "the lock outlives the build");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(folder);
    switchback.start_daemon_again();
    switchback.must(&["deploy"]);
}

#[test]
fn a_release_that_answers_worse_is_taken_back() {
    let mut switchback = up(App::python("shop").set("web", "deploy", r#"{ window = "20s" }"#));
    // Failures of the new release are what clients see until it is judged: this load may fail.
    let load = Load::start(&switchback.url("/"), Mix::both().at_most(200));
    switchback.app_mut().put("version", "2");
    switchback.app_mut().turn("error_percent", 50);
    let output = switchback.cli(&["deploy"]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    assert!(output.stderr.contains("answers worse"), "{output:#?}");
    // What the instance that was turned back said is shown, and kept.
    assert!(output.stderr.contains("2 listens on"), "{output:#?}");
    let kept = switchback.must(&["logs", "web.2"]).stdout;
    assert!(kept.contains("2 listens on"), "{kept}");
    let report = load.stop();
    assert!(report.failed > 0 && report.failed < report.requests / 2, "{report:?}");
    assert_eq!(get(&switchback.url("/")).unwrap().header("x-app-version"), Some("1"));
}

#[test]
fn where_nobody_asks_anything_a_deployment_says_that_there_is_nothing_to_compare() {
    let mut switchback = up(App::python("shop").set("web", "deploy", r#"{ window = "2s" }"#));
    switchback.app_mut().put("version", "2");
    for command in ["deploy", "rollback"] {
        let said = switchback.must(&[command]).stderr;
        assert!(said.contains("there was no traffic to compare web."), "{said}");
    }
}

/// The app's own connection stays as it was, and is one client.
#[test]
fn another_pool_is_taken_while_clients_are_connected() {
    let mut switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (id bigserial PRIMARY KEY)");
    assert_eq!(get(&switchback.url("/visit")).unwrap().body, "1");
    let proxy = switchback.status().of_kind("pgproxy")[0].pid();
    switchback.app_mut().change("db", "pool", "{ clients = 1 }");
    let planned = switchback.must(&["plan"]).stdout;
    assert!(planned.contains("reconfigure the pool of db live"), "{planned}");
    switchback.must(&["up", "--detach"]);
    let refused = request("POST", &switchback.url("/sql"), &[], b"SELECT 1").unwrap();
    assert!(refused.status == 500 && refused.body.contains("too many clients already"), "{refused:?}");
    assert_eq!(get(&switchback.url("/visit")).unwrap().body, "2");
    assert_eq!(switchback.status().of_kind("pgproxy")[0].pid(), proxy);
    switchback.down();
}

#[test]
fn a_rollback_brings_the_release_before_back_and_verifies_it() {
    let mut switchback = up(App::python("shop"));
    let first = switchback.status().web()[0].release.clone();
    switchback.app_mut().put("version", "2");
    switchback.must(&["deploy"]);
    assert_eq!(get(&switchback.url("/")).unwrap().header("x-app-version"), Some("2"));
    switchback.must(&["rollback"]);
    assert_eq!(get(&switchback.url("/")).unwrap().header("x-app-version"), Some("1"));
    assert_eq!(switchback.status().web()[0].release, first);
    let unknown = switchback.cli(&["rollback", "0123456789ab"]);
    assert_eq!(unknown.code, Some(3), "{unknown:#?}");
    assert!(unknown.stderr.contains("there is no release 0123456789ab"), "{unknown:#?}");
}

/// Each deployment has instances of its own. Were their files looked at for ever, the daemon would run out of descriptors.
#[test]
fn an_instance_that_has_gone_is_in_the_logs_and_leaves_no_file_behind() {
    let mut switchback = up(App::python("shop").set("web", "deploy", r#"{ window = "1s" }"#));
    switchback.app_mut().put("version", "2");
    switchback.must(&["deploy"]);
    let current = switchback.app().state_dir().join("logs/current");
    let of_instances = || {
        let names = std::fs::read_dir(&current).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("web."));
        names.sort();
        names
    };
    switchback.wait_for("only what runs has files", Duration::from_secs(10), |_| {
        of_instances() == ["web.2.err", "web.2.out"]
    });
    let said = switchback.must(&["logs", "web.1"]).stdout;
    assert!(said.contains("1 listens on"), "{said}");
}

#[test]
fn a_release_that_was_taken_back_is_listed_as_failed_and_warned_of() {
    let mut switchback = up(App::python("shop").set("web", "start_timeout", "\"1s\""));
    let first = switchback.status().web()[0].release.clone().unwrap();
    switchback.app_mut().turn("never_ready", true);
    assert_eq!(switchback.cli(&["deploy"]).code, Some(1));
    let kept = switchback.must(&["rollback", "--list", "--json"]).json();
    let (failed, serving) = (&kept[0], &kept[1]);
    assert_eq!(serving["id"].as_str(), Some(first.as_str()));
    assert!(serving["failed"].is_null(), "{kept:#}");
    assert!(failed["failed"].as_str().is_some_and(|why| why.contains("not ready within 1 s")), "{kept:#}");
    assert!(switchback.must(&["rollback", "--list"]).stdout.contains("failed: web.2: not ready within 1 s"));

    let again = switchback.cli(&["rollback", failed["id"].as_str().unwrap()]);
    assert_eq!(again.code, Some(1), "{again:#?}");
    assert!(again.stderr.contains("was taken back before: web.2: not ready"), "{again:#?}");
    assert_eq!(switchback.status().web()[0].release, Some(first));
}

#[test]
fn a_stale_plan_is_refused() {
    let mut switchback = up(App::python("shop"));
    let file = switchback.app().dir().join("two.plan");
    let file = file.to_str().unwrap();
    switchback.app_mut().change("web", "instances", 2);
    switchback.must(&["plan", "--out", file]);
    switchback.must(&["apply", file, "--yes"]);
    assert_eq!(switchback.status().web().len(), 2);
    let again = switchback.cli(&["apply", file, "--yes"]);
    assert_eq!(again.code, Some(3), "{again:#?}");
    assert!(again.stderr.contains("generation"), "{again:#?}");
    assert!(again.stderr.contains("plan again"), "{again:#?}");
    assert_eq!(switchback.status().web().len(), 2);
}

#[test]
fn planning_what_is_up_yields_nothing() {
    let switchback = up(App::python("shop").stage(2));
    let planned = switchback.must(&["plan", "--json"]).json();
    assert_eq!(planned["plan"]["steps"], serde_json::json!([]));
}

#[test]
fn a_second_up_in_the_same_folder_is_harmless() {
    let switchback = up(App::python("shop").stage(2));
    let before = switchback.status();
    let again = switchback.must(&["up", "--detach"]);
    assert!(again.stderr.contains("answers at"), "{again:#?}");
    let after = switchback.status();
    assert_eq!(after.daemon_pid, before.daemon_pid);
    let pids =
        |status: &testkit::Status| status.processes.iter().map(|process| process.pid).collect::<Vec<_>>();
    assert_eq!(pids(&after), pids(&before));
}

#[test]
fn an_interrupted_deployment_goes_on_and_is_said_to() {
    let mut switchback = up(App::python("shop"));
    switchback.app_mut().put("version", "2");
    switchback.app_mut().change("web", "build", "\"sleep 2\"");
    let mut deploy = switchback.command(&["deploy"]);
    let deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    switchback.wait_for("it has begun", Duration::from_secs(10), |status| {
        status.raw["operation"]["name"] == "deploy"
    });
    let pid = rustix::process::Pid::from_raw(deploy.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = deploy.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // As a shell says it of SIGINT.
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted: the daemon goes on with it; `switchback status` shows"), "{said}");
    switchback.wait_for("it is done", Duration::from_secs(20), |status| status.raw["operation"].is_null());
    assert_eq!(get(&switchback.url("/")).unwrap().header("x-app-version"), Some("2"));
}

#[test]
fn an_interrupted_change_of_stage_keeps_the_stage_that_is_gone_on_to() {
    let switchback = up(App::python("shop").knob("start_delay_ms", 2_000));
    let mut stage = switchback.command(&["stage", "2", "--yes"]);
    let stage = stage.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    switchback.wait_for("it has begun", Duration::from_secs(10), |status| {
        status.raw["operation"]["name"] == "apply"
    });
    let pid = rustix::process::Pid::from_raw(stage.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = stage.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("switchback.toml keeps the new stage"), "{said}");
    switchback.wait_for("stage 2", Duration::from_secs(20), |status| {
        status.stage == 2 && status.raw["operation"].is_null()
    });
    assert!(switchback.app().manifest().contains("stage = 2"));
}

#[test]
fn a_stage_that_cannot_be_reached_leaves_the_manifest_as_it_was() {
    let switchback = up(App::python("shop"));
    let before = switchback.app().manifest();
    let refused = switchback.cli(&["stage", "4", "--yes"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("stage 4 is not in this version; 1, 2 and 3 are"), "{refused:#?}");
    assert!(!refused.stderr.contains("switchback.toml"), "{refused:#?}");
    assert_eq!(switchback.app().manifest(), before);

    // The second instance cannot start: somebody deleted what it would run.
    let release = switchback.status().web()[0].release.clone().unwrap();
    std::fs::remove_file(switchback.app().state_dir().join(format!("releases/{release}/tree/app.py")))
        .unwrap();
    let failed = switchback.cli(&["stage", "2", "--yes"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert_eq!(switchback.app().manifest(), before);
    assert_eq!(switchback.status().stage, 1);
    assert_eq!(switchback.status().web().len(), 1);
}

#[test]
fn only_port_and_what_the_manifest_says_reach_the_app() {
    let switchback = up(App::python("shop").set("web", "env", r#"{ GREETING = "hello" }"#));
    let env = get(&switchback.url("/env")).unwrap().body;
    let env: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&env).unwrap();
    // What a shell or the interpreter adds by itself is not ours.
    let known = [
        "PATH", "HOME", "LANG", "USER", "LOGNAME", "TZ", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE",
    ];
    let launcher = |name: &str| name.starts_with("PYENV_") || name.starts_with("_PYENV_");
    let ours = |name: &&str| !known.contains(name) && !launcher(name);
    let mut others: Vec<&str> = env.keys().map(String::as_str).filter(ours).collect();
    others.sort_unstable();
    assert_eq!(others, ["GREETING", "PORT"]);
}

/// Asks on a connection that stays, and gives the head of the answer in lower case.
fn ask(connection: &mut BufReader<TcpStream>) -> String {
    connection.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(connection.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    connection.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    head
}

/// Whoever reads a page keeps the connection, and goes on to the next one by it. It is with an edge that was replaced
/// meanwhile, and none of the instances that it had begun with is left.
#[test]
fn a_connection_that_was_idle_while_edge_and_app_were_replaced_is_answered() {
    let mut switchback = up(App::python("shop").set("web", "deploy", r#"{ window = "1s" }"#));
    let front = switchback.url("");
    let connection = TcpStream::connect(front.strip_prefix("http://").unwrap()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut connection = BufReader::new(connection);
    assert!(ask(&mut connection).contains("x-app-version: 1"));

    let before = switchback.status().process("edge").pid;
    switchback.app_mut().change("edge", "threads", 1);
    switchback.must(&["up", "--detach"]);
    assert_ne!(switchback.status().process("edge").pid, before);
    switchback.app_mut().put("version", "2");
    switchback.must(&["deploy"]);
    let answer = ask(&mut connection);
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains("x-app-version: 2"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}
