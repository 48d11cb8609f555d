//! The load generator as a process of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use rehearsal::generator::{End, Heard, Process, ProcessError};
use rehearsal::load::{Limits, Load, Method, Origin, Phase, Protocol, Step, Visit};
use rehearsal::record::{Outcome, Second};
use testkit::App;

use crate::up;

/// A page, and another after some reading.
fn load(authority: &str, lasts_ms: u64) -> Load {
    let step = |path: &str, think_median_ms| Step {
        class: "page".to_owned(),
        probability: 1.0,
        think_median_ms,
        method: Method::Get,
        paths: vec![path.to_owned()],
        form: vec![],
        expect: vec![],
        assets: vec![],
    };
    Load {
        origin: Origin {
            authority: authority.to_owned(),
            address: authority.parse().unwrap(),
            protocol: Protocol::Http1,
            tls: None,
        },
        seed: 1,
        phases: vec![Phase { name: "all".to_owned(), lasts_ms, from: 40.0, to: 40.0 }],
        noise: 0.0,
        visits: vec![Visit {
            name: "reader".to_owned(),
            weight: 1.0,
            steps: vec![step("/", 0), step("/bytes/100000", 50)],
            fetches_assets: true,
            retries: 0.0,
        }],
        limits: Limits {
            visitors: 1_000,
            connections: 1_000,
            connections_per_visit: 6,
            body_bytes: 1 << 20,
            patience_ms: 8_000,
            redirects: 5,
            threads: 2,
        },
        judged_by_us: None,
    }
}

async fn start(load: &Load) -> Result<Process, ProcessError> {
    Process::start(Path::new(env!("CARGO_BIN_EXE_switchback")), &["generate"], load).await
}

async fn hear(process: &mut Process) -> (Vec<Second>, End) {
    let mut seconds = Vec::new();
    loop {
        match process.next().await.unwrap() {
            Heard::Second(second) => seconds.push(second),
            Heard::End(end) => return (seconds, end),
        }
    }
}

#[tokio::test]
async fn visitors_of_a_running_app_are_told_second_by_second() {
    let switchback = up(App::python("crowd"));
    let authority = switchback.url("/").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut process = start(&load(&authority, 3_000)).await.unwrap();
    let (seconds, end) = hear(&mut process).await;
    assert_eq!(end.cut_short, None);
    assert_eq!(seconds.iter().map(|second| second.at).collect::<Vec<_>>(), [0, 1, 2]);
    let classes = seconds.iter().filter_map(|second| second.classes.get("page"));
    let (sent, ok) = classes.fold((0, 0), |(sent, ok), class| {
        (sent + class.sent, ok + class.outcomes.get(&Outcome::Ok).copied().unwrap_or(0))
    });
    assert!(sent > 120 && ok == sent, "{ok} of {sent}");
    assert!(end.validity.cpu_us_per_request > 0.0 && end.validity.not_offered == 0, "{:?}", end.validity);
}

#[tokio::test]
async fn a_generator_ends_when_it_is_told_to_and_says_so() {
    let mut process = start(&load("127.0.0.1:1", 3_600_000)).await.unwrap();
    assert!(matches!(process.next().await.unwrap(), Heard::Second(_)));
    process.stop().await;
    let (_, end) = hear(&mut process).await;
    assert!(end.cut_short.unwrap().contains("told to stop"));
    assert!(matches!(process.next().await, Err(ProcessError::Ended(status)) if status.success()));
}

#[tokio::test]
async fn a_generator_ends_with_whoever_started_it() {
    let process = start(&load("127.0.0.1:1", 3_600_000)).await.unwrap();
    let pid = process.id().unwrap();
    drop(process);
    let gone = || !Path::new(&format!("/proc/{pid}/stat")).exists() || is_zombie(pid);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone() {
        assert!(Instant::now() < deadline, "{pid} goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[tokio::test]
async fn a_load_that_cannot_be_carried_out_is_refused_in_words() {
    let mut load = load("127.0.0.1:1", 1_000);
    load.visits.clear();
    let mut process = start(&load).await.unwrap();
    let Err(ProcessError::Refused(why)) = process.next().await else { panic!("it is refused") };
    assert!(why.contains("visits"), "{why}");
}
