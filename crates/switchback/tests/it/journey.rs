//! A journey beside an app: that there is one at a time, and that it leaves nothing behind but what it has to tell, however it
//! ends. What it measures on the way is tried in `drill_journey`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{App, Switchback, request};

use crate::{prepare, up};

/// For a copy to be up, and for a short search.
const LIMIT: Duration = Duration::from_secs(60);
/// More than a log must have to say what visitors do.
const VISITS: usize = 120;
/// For a copy to be stopped and deleted.
const CLEARED: Duration = Duration::from_secs(30);

/// One that is under way.
struct Journey<'a> {
    switchback: &'a Switchback,
    child: Child,
    talk: PathBuf,
}

impl<'a> Journey<'a> {
    /// As short as one may be, and with a yes.
    fn begin(switchback: &'a Switchback) -> Journey<'a> {
        Journey::begin_with(switchback, &[])
    }

    fn begin_with(switchback: &'a Switchback, more: &[&str]) -> Journey<'a> {
        let talk = switchback.app().root().join("journey.talk");
        let file = std::fs::File::create(&talk).expect("a file");
        let mut command = switchback.command(&["journey", "--quick", "--within", "90", "--yes", "--json"]);
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        Journey { switchback, child: command.spawn().expect("it starts"), talk }
    }

    fn talk(&self) -> String {
        std::fs::read_to_string(&self.talk).expect("what it said")
    }

    fn until_it_says(mut self, what: &str) -> Journey<'a> {
        let deadline = Instant::now() + LIMIT;
        while !self.talk().contains(what) {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}: {}", self.talk());
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Its exit code, and what it has told.
    fn ended(self) -> (Option<i32>, Value) {
        let talk = self.talk.clone();
        let output = self.child.wait_with_output().expect("our own child");
        let told = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", std::fs::read_to_string(talk).unwrap_or_default()));
        (output.status.code(), told)
    }

    fn daemon_of_the_copy(&self) -> u32 {
        let app = self.switchback.app();
        let mut status = Command::new(env!("CARGO_BIN_EXE_switchback"));
        status.arg("-C").arg(app.dir()).arg("--state-dir").arg(copy_of(app)).args(["status", "--json"]);
        let output = status.output().expect("it runs");
        let status: Value = serde_json::from_slice(&output.stdout).expect("a status");
        status["daemon"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
    }
}

fn copy_of(app: &App) -> PathBuf {
    app.state_dir().join("journey")
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a pid");
    kill_process(pid, signal).expect("it runs");
}

/// Of the copy neither a process nor a file is left. Those that name its folder, or work in it, are its own.
fn nothing_is_left(switchback: &Switchback) {
    let copy = copy_of(switchback.app());
    let theirs = || -> Vec<String> {
        let named = |line: &String| line.contains(copy.to_str().expect("a path"));
        switchback.running().into_iter().filter(named).collect()
    };
    let deadline = Instant::now() + CLEARED;
    while copy.exists() || !theirs().is_empty() {
        assert!(Instant::now() < deadline, "left: {:#?}, {}", theirs(), copy.exists());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The report is there, and is that of a journey that came no further than `stage`.
fn told_up_to(told: &Value, stage: u64, why: &str) {
    assert!(told["ended_early"].as_str().is_some_and(|said| said.contains(why)), "{told:#}");
    assert_eq!(told["verdict"]["passed"], "not_asked", "{told:#}");
    let stages = told["stages"].as_array().expect("stages");
    assert_eq!(stages.last().map(|last| &last["stage"]), Some(&stage.into()), "{told:#}");
    for file in ["page", "record"] {
        let path = told[file].as_str().expect("a path");
        assert!(std::fs::metadata(path).is_ok_and(|file| file.len() > 1_000), "{path}");
    }
}

#[test]
fn a_second_journey_is_refused_and_an_interrupted_one_tells_what_it_has() {
    let switchback = prepare(App::python("shop"));
    let first = Journey::begin(&switchback).until_it_says("stage: stage 1");
    let second = switchback.cli(&["journey", "--quick"]);
    assert_eq!(second.code, Some(3), "{second:?}");
    let refusal = format!("a journey of this app is under way (pid {})", first.child.id());
    assert!(second.stderr.contains(&refusal), "{}", second.stderr);
    assert!(copy_of(switchback.app()).exists(), "the first has its copy still");
    first.signal(Signal::INT);
    let begun = Instant::now();
    let (code, told) = first.ended();
    assert_eq!(code, Some(1));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    told_up_to(&told, 1, "it was interrupted");
    nothing_is_left(&switchback);
}

#[test]
fn a_journey_is_interrupted_as_well_before_there_is_anything_to_tell() {
    let switchback = prepare(App::python("shop").set("web", "build", "\"sleep 60\""));
    let journey = Journey::begin(&switchback).until_it_says("building: sleep 60");
    journey.signal(Signal::INT);
    let begun = Instant::now();
    let talk = journey.talk.clone();
    let output = journey.child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", std::fs::read_to_string(talk).unwrap());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    nothing_is_left(&switchback);
}

/// SIGKILL leaves nobody who could clear up, but the kernel closes what was theirs.
#[test]
fn a_copy_ends_with_its_journey_when_that_is_killed() {
    let switchback = prepare(App::python("shop"));
    let mut journey = Journey::begin(&switchback).until_it_says("stage: stage 1");
    journey.signal(Signal::KILL);
    journey.child.wait().unwrap();
    nothing_is_left(&switchback);
    // Whatever it was, nothing stands in the way of the next.
    let next = Journey::begin(&switchback).until_it_says("stage: stage 1");
    next.signal(Signal::INT);
    assert_eq!(next.ended().0, Some(1));
}

/// Nobody waits for it without end, and what it ran does not stay.
#[test]
fn a_copy_whose_daemon_hangs_is_deleted_all_the_same() {
    let switchback = prepare(App::python("shop"));
    let journey = Journey::begin(&switchback).until_it_says("stage: stage 1");
    send(journey.daemon_of_the_copy(), Signal::STOP);
    journey.signal(Signal::INT);
    let begun = Instant::now();
    let talk = journey.talk.clone();
    let (code, told) = journey.ended();
    assert_eq!(code, Some(1), "{told:#}");
    assert!(begun.elapsed() < LIMIT * 2, "{:?}", begun.elapsed());
    told_up_to(&told, 1, "it was interrupted");
    let talk = std::fs::read_to_string(talk).unwrap();
    assert!(talk.contains("the daemon of the copy does not answer: it is killed"), "{talk}");
    nothing_is_left(&switchback);
}

/// Leaves the copy's processes without a daemon and without a journey.
fn leave_a_copy(switchback: &Switchback) {
    let mut journey = Journey::begin(switchback).until_it_says("stage: stage 1");
    let daemon = journey.daemon_of_the_copy();
    send(daemon, Signal::STOP);
    journey.signal(Signal::KILL);
    journey.child.wait().unwrap();
    send(daemon, Signal::KILL);
}

#[test]
fn what_is_left_of_a_journey_is_said_by_status_and_goes_with_down() {
    let switchback = up(App::python("shop"));
    leave_a_copy(&switchback);
    let status = switchback.must(&["status"]);
    assert!(status.stderr.contains("has left its copy"), "{}", status.stderr);
    assert_eq!(switchback.must(&["status", "--json"]).json()["journey"], "left");
    switchback.down();
    nothing_is_left(&switchback);
    assert_eq!(switchback.cli(&["status"]).stderr.matches("journey").count(), 0);
}

#[test]
fn what_is_left_of_a_journey_goes_with_the_next_and_with_the_data() {
    let switchback = prepare(App::python("shop"));
    leave_a_copy(&switchback);
    let next = Journey::begin(&switchback).until_it_says("stage: stage 1");
    assert!(next.talk().contains("deleting the copy that an earlier journey has left"), "{}", next.talk());
    next.signal(Signal::INT);
    next.ended();
    leave_a_copy(&switchback);
    switchback.must(&["down", "--destroy", "--yes", "shop"]);
    assert!(!switchback.app().state_dir().exists(), "everything is deleted");
    assert_eq!(switchback.running(), Vec::<String>::new());
}

#[test]
fn a_journey_under_way_ends_with_down_and_tells_what_it_has() {
    let switchback = prepare(App::python("shop"));
    let journey = Journey::begin(&switchback).until_it_says("stage: stage 1");
    assert!(switchback.cli(&["status"]).stderr.contains("a journey is under way"));
    switchback.must(&["down"]);
    nothing_is_left(&switchback);
    let (code, told) = journey.ended();
    assert_eq!(code, Some(1));
    told_up_to(&told, 1, "taken down by somebody else");
}

#[test]
fn a_journey_that_fails_on_the_way_tells_what_it_has() {
    let switchback = prepare(App::python("shop"));
    let journey = Journey::begin(&switchback).until_it_says("stage: stage 2");
    send(journey.daemon_of_the_copy(), Signal::KILL);
    let (code, told) = journey.ended();
    assert_eq!(code, Some(1), "{told:#}");
    told_up_to(&told, 2, "its daemon was killed");
    assert!(told["stages"][0]["diagnosis"].is_object(), "stage 1 is told as it was measured: {told:#}");
    nothing_is_left(&switchback);
}

#[test]
fn a_journey_that_goes_only_where_it_is_advised_ends_where_something_else_is_said() {
    let switchback = prepare(App::python("shop"));
    let (code, told) = Journey::begin_with(&switchback, &["--only-advised"]).ended();
    // In so short a time the diagnosis is that it was too short.
    assert_eq!(told["stages"].as_array().map(Vec::len), Some(1), "{told:#}");
    assert!(told["ended_early"].is_null(), "{told:#}");
    let sentence = told["verdict"]["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("The diagnosis asks for no further stage: "), "{sentence}");
    assert!(sentence.contains("What is said of stage 1 is no proof"), "{sentence}");
    assert_eq!((code, &told["verdict"]["passed"]), (Some(1), &"not_asked".into()), "{told:#}");
    nothing_is_left(&switchback);
}

#[test]
fn a_journey_beside_an_app_that_somebody_uses_needs_a_yes_and_asks_for_what_its_visitors_ask_for() {
    let sends = "{ weight = 1, steps = { post = \"/echo\" } }";
    let switchback = up(App::python("shop").set("rehearsal", "visit.sender", sends));
    for _ in 0..VISITS {
        assert_eq!(request("GET", &switchback.url("/"), &[], b"").unwrap().status, 200);
    }
    let log = switchback.app().state_dir().join("logs/access.log");
    let deadline = Instant::now() + LIMIT;
    while std::fs::read_to_string(&log).unwrap_or_default().lines().count() < VISITS {
        assert!(Instant::now() < deadline, "the access log has not all of {VISITS} visits");
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = switchback.cli(&["journey"]);
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stderr.contains("somebody uses the app"), "{}", output.stderr);
    assert!(output.stderr.contains("visits of this journey send forms"), "{}", output.stderr);
    assert!(!copy_of(switchback.app()).exists());
    let journey = Journey::begin(&switchback).until_it_says("stage: stage 1");
    let pages = format!("pages as in the access log, visited as newcomers do; it has {VISITS} visits");
    assert!(journey.talk().contains(&pages), "{}", journey.talk());
    journey.signal(Signal::INT);
    journey.ended();
    nothing_is_left(&switchback);
}

/// Both build in the app's folder, and the build of one must not be stored half done by the other.
#[test]
fn a_copy_and_a_deploy_do_not_build_at_the_same_time() {
    let build = "\"echo begins >> order; while [ -e held ]; do sleep 0.05; done; echo ends >> order\"";
    let switchback = up(App::python("shop").set("web", "build", build));
    switchback.app().put("held", "");
    let journey = Journey::begin(&switchback).until_it_says("building: ");
    let mut deploy = switchback.command(&["deploy"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(deploy.stderr.take().unwrap()).lines().map(Result::unwrap);
    said.find(|line| line.contains("waiting for another build")).expect("it waits");
    std::fs::remove_file(switchback.app().dir().join("held")).unwrap();
    let rest: Vec<String> = said.collect();
    assert!(deploy.wait().unwrap().success(), "{rest:?}");
    let order = std::fs::read_to_string(switchback.app().dir().join("order")).unwrap();
    assert_eq!(order.lines().collect::<Vec<_>>(), ["begins", "ends"].repeat(3));
    journey.signal(Signal::INT);
    journey.child.wait_with_output().unwrap();
    nothing_is_left(&switchback);
}
