//! Many visitors: the rate, the limits, and whether a run is believed.

use std::time::Duration;

use rehearsal::generator::{self, RunError, Said};
use rehearsal::load::Step;
use rehearsal::record::Outcome;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Then, answer};
use crate::run::{load, phase, run, step, talk, visit};

#[tokio::test]
async fn visits_come_at_the_rate_of_the_load_however_slowly_the_app_answers() {
    let app = App::start(|_| {
        std::thread::sleep(Duration::from_millis(300));
        answer(200, "", "")
    });
    let mut load = load(app.address, vec![visit(vec![step("/")])]);
    load.phases = vec![phase("few", 1_000, 50.0), phase("many", 1_000, 150.0), phase("none", 1_000, 0.0)];
    let seen = run(&load).await;
    let about = |second: usize, expected: f64| {
        let second = &seen.seconds[second];
        let off = (f64::from(second.visits) - expected).abs();
        assert!(off <= 4.0 * expected.sqrt(), "{} instead of {expected}", second.visits);
        assert_eq!(second.wished_visits, expected);
    };
    about(0, 50.0);
    about(1, 150.0);
    about(2, 0.0);
    let phases: Vec<&str> = seen.seconds.iter().map(|second| second.phase.as_str()).collect();
    assert_eq!(phases, ["few", "many", "none"]);
    seen.assert_all("page", Outcome::Ok);
    let latency = &seen.seconds[0].classes["page"].latency;
    assert!(latency.iter().all(|(micros, _)| *micros >= 300_000), "{latency:?}");
    assert!(seen.seconds[1].visitors > 10, "those who wait are counted");
}

#[tokio::test]
async fn a_limit_of_visitors_or_connections_makes_a_run_invalid_and_is_kept() {
    let app = App::start(|_| Then::Silence);
    let mut of_visitors = load(app.address, vec![visit(vec![step("/")])]);
    of_visitors.phases = vec![phase("all", 1_000, 100.0)];
    of_visitors.limits.visitors = 4;
    let mut of_connections = of_visitors.clone();
    (of_connections.limits.visitors, of_connections.limits.connections) = (1_000, 4);
    for load in [of_visitors, of_connections] {
        let seen = run(&load).await;
        let validity = &seen.end.validity;
        assert!(validity.not_offered > 50, "{validity:?}");
        assert!(validity.faults.iter().any(|fault| fault.contains("not offered")), "{validity:?}");
        assert!(seen.seconds[0].connections <= 4);
        seen.assert_all("page", Outcome::GaveUp);
    }
}

#[tokio::test]
async fn readers_make_room_for_those_who_ask() {
    let app = App::start(|_| answer(200, "", ""));
    let read = Step { think_median_ms: 60_000, ..step("/next") };
    let mut load = load(app.address, vec![visit(vec![step("/"), read])]);
    load.phases = vec![phase("all", 1_000, 100.0)];
    load.limits.connections = 10;
    let seen = run(&load).await;
    seen.assert_all("page", Outcome::Ok);
    assert_eq!((seen.sent("page"), seen.end.validity.not_offered), (seen.visits(), 0));
    let second = &seen.seconds[0];
    assert_eq!(
        (second.visitors, second.connections),
        (seen.visits(), 10),
        "all read, and some are connected"
    );
}

#[tokio::test]
async fn the_same_seed_gives_the_same_visits() {
    let app = App::start(|_| answer(200, "", ""));
    let steps = vec![Step { paths: (0..50).map(|at| format!("/{at}")).collect(), ..step("/") }];
    let mut load = load(app.address, vec![visit(steps)]);
    load.noise = 0.3;
    let mut asked = Vec::new();
    for seed in [1, 1, 2] {
        let before = app.seen().len();
        load.seed = seed;
        run(&load).await;
        let mut seen: Vec<_> =
            app.seen().split_off(before).into_iter().map(|seen| (seen.from, seen.path)).collect();
        seen.sort();
        asked.push(seen);
    }
    assert!(!asked[0].is_empty() && asked[0] == asked[1]);
    assert_ne!(asked[0], asked[2]);
}

#[tokio::test]
async fn what_is_no_load_is_refused_in_words() {
    let mut wrong = load("127.0.0.1:1".parse().unwrap(), vec![visit(vec![step("no path")])]);
    for (line, expected) in
        [("{}".to_owned(), "origin"), (serde_json::to_string(&wrong).unwrap(), "visits[0].steps[0].paths"), {
            wrong.visits = vec![visit(vec![step("/")])];
            wrong.origin.tls = Some(rehearsal::load::Tls {
                server_name: "shop.example".to_owned(),
                authorities: "/nowhere/ca.pem".into(),
            });
            (serde_json::to_string(&wrong).unwrap(), "/nowhere/ca.pem")
        }]
    {
        let (result, said) = talk(line, CancellationToken::new()).await;
        result.unwrap_err();
        let [Said::Refused(why)] = &said[..] else { panic!("{said:?}") };
        assert!(why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn a_generator_that_nobody_hears_ends() {
    let app = App::start(|_| answer(200, "", ""));
    let mut load = load(app.address, vec![visit(vec![step("/")])]);
    load.phases = vec![phase("all", 600_000, 50.0)];
    let (mut input, given) = tokio::io::duplex(1 << 20);
    let (output, heard) = tokio::io::duplex(1 << 20);
    input.write_all(format!("{}\n", serde_json::to_string(&load).unwrap()).as_bytes()).await.unwrap();
    let running = generator::run(BufReader::new(given), output, CancellationToken::new());
    let mut lines = BufReader::new(heard).lines();
    let leaves = async move {
        lines.next_line().await.unwrap().unwrap();
    };
    let (result, ()) = tokio::join!(running, leaves);
    assert!(matches!(result, Err(RunError::Output(_))), "{result:?}");
}
