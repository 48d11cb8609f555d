//! What is to be done to an app: visits that arrive by a rate that changes over time.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All that a generator is told. It makes no choices but by `seed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    pub origin: Origin,
    /// Of all that is drawn at random, but for words in the place of `{random}`. The same seed gives the same arrivals and the
    /// same visits.
    pub seed: u64,
    /// One after the other, without a gap.
    pub phases: Vec<Phase>,
    /// Coefficient of variation of the rate from second to second, by a gamma distribution. 0: none.
    pub noise: f64,
    /// What a visit is, one of them by its weight.
    pub visits: Vec<Visit>,
    pub limits: Limits,
    /// In µs, the shortest latency that the app is judged by. A generator that is late by what changes no such judgement
    /// spoils nothing. `None`: by none.
    #[serde(default)]
    pub judged_by_us: Option<u64>,
}

/// Where the app is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// As it stands in `Host`, such as `127.0.0.1:8080` or `shop.example`.
    pub authority: String,
    /// Whom to connect to. Nothing else is ever connected to: what is on another host is not asked for.
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// `None`: without TLS.
    pub tls: Option<Tls>,
}

impl Origin {
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Up to [`Limits::connections_per_visit`] connections a visit, as browsers do.
    Http1,
    /// One connection a visit. With TLS by ALPN, without it by prior knowledge (RFC 9113, 3.3).
    Http2,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Whom the certificate must be for.
    pub server_name: String,
    /// PEM file of the authorities that are trusted.
    pub authorities: PathBuf,
}

/// A stretch of time in which the rate of visits moves evenly from one to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// For people, such as `ramp` or `plateau`.
    pub name: String,
    pub lasts_ms: u64,
    /// Visits per second when it begins.
    pub from: f64,
    /// Visits per second when it ends.
    pub to: f64,
}

/// What one visitor does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    pub name: String,
    /// How many of all, relative to the weights of the others.
    pub weight: f64,
    /// One after the other. A visit ends with the first that fails for good, or that is not taken.
    pub steps: Vec<Step>,
    /// A browser does, a machine that reads does not.
    pub fetches_assets: bool,
    /// Of those who saw a failure or waited too long, how many try again, from 0 to 1.
    pub retries: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What it counts as, such as `page`, `asset`, `search`, `write`, `bot`, `missing`.
    pub class: String,
    /// Whether it is taken at all, from 0 to 1.
    pub probability: f64,
    /// Before it: the time to read, by a lognormal distribution. 0: at once.
    pub think_median_ms: u64,
    pub method: Method,
    /// Of one it is this, of several one at random. Beginning with `/`. `{random}` is as in `form`.
    pub paths: Vec<String>,
    /// Sent as `application/x-www-form-urlencoded`. `{random}` in a value is a word that no other visit has, of this run or of
    /// another, the same in all of its steps. Hidden fields of the last page's form with the same action, such as a token against forgery, are sent along.
    pub form: Vec<(String, String)>,
    /// What counts as success. Empty: 200 to 399, but for a redirect to another site.
    pub expect: Vec<u16>,
    /// What a browser fetches along with it. Each once a visit, as class `asset`.
    pub assets: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Head,
    Post,
}

/// What a generator never goes beyond. What would is counted as not offered, and makes the run invalid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Visitors at once, those who read included.
    pub visitors: u32,
    /// Those that readers keep make room for others.
    pub connections: u32,
    pub connections_per_visit: u32,
    /// Of an answer; what is beyond makes it a failure.
    pub body_bytes: u64,
    /// A visitor gives up after so long.
    pub patience_ms: u64,
    pub redirects: u32,
    /// Threads of the generator, each with sockets of its own.
    pub threads: u32,
}
