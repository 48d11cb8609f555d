//! Running a load to its end.

use std::net::SocketAddr;

use rehearsal::generator::{self, End, RunError, Said};
use rehearsal::load::{Limits, Load, Method, Origin, Phase, Protocol, Step, Visit};
use rehearsal::record::{Outcome, Second};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

pub fn step(path: &str) -> Step {
    Step {
        class: "page".to_owned(),
        probability: 1.0,
        think_median_ms: 0,
        method: Method::Get,
        paths: vec![path.to_owned()],
        form: vec![],
        expect: vec![],
        assets: vec![],
    }
}

pub fn post(path: &str, form: &[(&str, &str)]) -> Step {
    let form = form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Step { class: "write".to_owned(), method: Method::Post, form, ..step(path) }
}

pub fn visit(steps: Vec<Step>) -> Visit {
    Visit { name: "visit".to_owned(), weight: 1.0, steps, fetches_assets: true, retries: 0.0 }
}

/// Two seconds of ten visits each.
pub fn load(address: SocketAddr, visits: Vec<Visit>) -> Load {
    Load {
        origin: Origin { authority: address.to_string(), address, protocol: Protocol::Http1, tls: None },
        seed: 1,
        phases: vec![phase("all", 2_000, 10.0)],
        noise: 0.0,
        visits,
        limits: Limits {
            visitors: 1_000,
            connections: 1_000,
            connections_per_visit: 6,
            body_bytes: 1 << 20,
            patience_ms: 500,
            redirects: 5,
            threads: 2,
        },
        judged_by_us: None,
    }
}

pub fn phase(name: &str, lasts_ms: u64, rate: f64) -> Phase {
    Phase { name: name.to_owned(), lasts_ms, from: rate, to: rate }
}

pub struct Seen {
    pub seconds: Vec<Second>,
    pub end: End,
}

impl Seen {
    /// Requests of a class in all seconds.
    pub fn sent(&self, class: &str) -> u32 {
        self.seconds.iter().filter_map(|second| second.classes.get(class)).map(|class| class.sent).sum()
    }

    pub fn outcomes(&self, class: &str, outcome: Outcome) -> u32 {
        let classes = self.seconds.iter().filter_map(|second| second.classes.get(class));
        classes.filter_map(|class| class.outcomes.get(&outcome)).sum()
    }

    pub fn visits(&self) -> u32 {
        self.seconds.iter().map(|second| second.visits).sum()
    }

    /// That all requests of a class, and at least one, had this outcome.
    #[track_caller]
    pub fn assert_all(&self, class: &str, outcome: Outcome) {
        assert!(self.sent(class) > 0, "{:?}", self.seconds);
        assert_eq!(self.outcomes(class, outcome), self.sent(class), "{:?}", self.seconds);
    }
}

/// Carries out a load in this process.
pub async fn run(load: &Load) -> Seen {
    run_until(load, CancellationToken::new()).await
}

/// The same, until it is told to stop.
pub async fn run_until(load: &Load, stop: CancellationToken) -> Seen {
    let (result, said) = talk(serde_json::to_string(load).unwrap(), stop).await;
    result.unwrap();
    let (mut seconds, mut end) = (Vec::new(), None);
    for said in said {
        match said {
            Said::Second(second) => seconds.push(second),
            Said::End(last) => end = Some(last),
            Said::Refused(why) => panic!("{why}"),
        }
    }
    let numbers: Vec<u32> = seconds.iter().map(|second| second.at).collect();
    assert_eq!(numbers, (0..seconds.len() as u32).collect::<Vec<_>>(), "in order and without gaps");
    Seen { seconds, end: end.expect("an end") }
}

/// Gives a generator its first line, and hears it to the end.
pub async fn talk(line: String, stop: CancellationToken) -> (Result<(), RunError>, Vec<Said>) {
    // The input stays open: its end would stop the run.
    let (mut input, given) = tokio::io::duplex(1 << 20);
    let (output, mut heard) = tokio::io::duplex(1 << 20);
    tokio::io::AsyncWriteExt::write_all(&mut input, format!("{line}\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    let (result, read) = tokio::join!(
        generator::run(tokio::io::BufReader::new(given), output, stop),
        heard.read_to_string(&mut text)
    );
    read.unwrap();
    (result, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}
