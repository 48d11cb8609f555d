//! A generator at work, looked at from outside.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::load::{self, WARM_UP_SECONDS};
use super::scene::Scene;
use crate::bench::processes::{Usage, usage_of_one};
use crate::failure::{Failure, Result};

/// One round of the steady load, after its warm-up.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    pub cpu_us_per_request: f64,
    pub scheduled_us_per_request: f64,
    pub requests_per_second: f64,
    /// Of the whole run: visits that began, and that were expected to by the rate.
    pub visits: f64,
    pub wished_visits: f64,
    /// Visits that the seed has.
    pub scheduled_visits: f64,
    /// Requests and visits that a limit of the generator left out.
    pub not_offered: u64,
    pub schedule_error_p99_us: f64,
    pub latency_p50_us: f64,
    pub latency_p99_us: f64,
    pub memory_mb: f64,
}

/// The crowd at its largest.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub visitors: u64,
    pub connections: u64,
    pub memory_bytes: u64,
}

/// # Errors
/// When a request fails, or the generator does.
pub fn steady(switchback: &Path, scene: &Scene, seconds: u32, seed: u64) -> Result<Steady> {
    let load = load::steady(scene.port, seconds, seed);
    let scheduled_visits = load::scheduled(&load)?;
    let mut generator = Generator::start(switchback, &load)?;
    let (mut before, mut after) = (Usage::default(), Usage::default());
    let (mut visits, mut wished, mut requests, mut first) = (0.0, 0.0, 0.0, 0);
    let mut latency: Vec<(u64, u64)> = Vec::new();
    let end = loop {
        let said = generator.hear()?;
        if said["end"].is_object() {
            break said["end"].clone();
        }
        let second = &said["second"];
        visits += second["visits"].as_f64().unwrap_or(0.0);
        wished += second["wished_visits"].as_f64().unwrap_or(0.0);
        let at = second["at"].as_u64().unwrap_or(0);
        let sent = all_well(second)?;
        // A second is told a moment after its end; the first that counts is the one after the warm-up.
        if at + 1 == u64::from(WARM_UP_SECONDS) {
            before = generator.usage();
            first = at + 1;
        } else if at >= u64::from(WARM_UP_SECONDS) && at < u64::from(WARM_UP_SECONDS + seconds - 1) {
            requests += sent;
            after = generator.usage();
            add(&mut latency, &second["classes"]["page"]["latency"]);
        }
    };
    let not_offered = not_offered(&end)?;
    let counted = f64::from(WARM_UP_SECONDS + seconds - 1) - first as f64;
    Ok(Steady {
        cpu_us_per_request: (after.cpu_seconds - before.cpu_seconds) * 1e6 / requests,
        scheduled_us_per_request: (after.scheduled_seconds - before.scheduled_seconds) * 1e6 / requests,
        requests_per_second: requests / counted,
        visits,
        wished_visits: wished,
        scheduled_visits,
        not_offered,
        schedule_error_p99_us: end["validity"]["schedule_error_p99_us"].as_f64().unwrap_or(f64::NAN),
        latency_p50_us: quantile(&mut latency, 0.5),
        latency_p99_us: quantile(&mut latency, 0.99),
        memory_mb: after.memory_bytes as f64 / 1024.0 / 1024.0,
    })
}

/// # Errors
/// When fewer come, or one of them fails.
pub fn crowd(switchback: &Path, scene: &Scene, visitors: u32) -> Result<Crowd> {
    let mut generator = Generator::start(switchback, &load::crowd(scene.port, visitors, 1))?;
    loop {
        let said = generator.hear()?;
        let second = &said["second"];
        if !second.is_object() {
            return Err(Failure::new(format!("fewer than {visitors} visitors came: {said}")));
        }
        all_well(second)?;
        let number = |key: &str| second[key].as_u64().unwrap_or(0);
        if number("at") + 1 >= u64::from(load::CROWD_ARRIVES_SECONDS) && number("visitors") >= visitors.into()
        {
            let usage = generator.usage();
            return Ok(Crowd {
                visitors: number("visitors"),
                connections: number("connections"),
                memory_bytes: usage.memory_bytes,
            });
        }
    }
}

/// Requests of a second, all of which were answered well.
fn all_well(second: &Value) -> Result<f64> {
    let page = &second["classes"]["page"];
    let (sent, ok) = (page["sent"].as_f64().unwrap_or(0.0), page["outcomes"]["ok"].as_f64().unwrap_or(0.0));
    if sent == ok {
        return Ok(sent);
    }
    Err(Failure::new(format!("requests failed: {}", json!({ "sent": sent, "outcomes": page["outcomes"] }))))
}

/// What was left out of a run that says something of its generator.
fn not_offered(end: &Value) -> Result<u64> {
    let validity = &end["validity"];
    let faults: Vec<&str> =
        validity["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !faults.is_empty() {
        return Err(Failure::new(format!(
            "the generator's own figures are not to be believed: {}",
            faults.join("; ")
        )));
    }
    validity["not_offered"]
        .as_u64()
        .ok_or_else(|| Failure::new(format!("it does not say what it left out: {end}")))
}

fn add(latency: &mut Vec<(u64, u64)>, pairs: &Value) {
    for pair in pairs.as_array().into_iter().flatten() {
        latency.extend(pair[0].as_u64().zip(pair[1].as_u64()));
    }
}

/// Of pairs of a bucket and a count.
fn quantile(pairs: &mut [(u64, u64)], share: f64) -> f64 {
    pairs.sort_unstable();
    let all: u64 = pairs.iter().map(|(_, count)| count).sum();
    let mut so_far = 0;
    let found = pairs.iter().find(|(_, count)| {
        so_far += count;
        so_far as f64 >= all as f64 * share
    });
    found.map_or(f64::NAN, |(micros, _)| *micros as f64)
}

/// Killed when dropped.
struct Generator {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Generator {
    fn start(switchback: &Path, load: &Value) -> Result<Generator> {
        let failed = || Failure::while_doing(switchback.display());
        let mut command = Command::new(switchback);
        let command = command.arg("generate").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed())?;
        let output = child.stdout.take().ok_or_else(|| Failure::new("the generator has no output"))?;
        let generator = Generator { child, output: BufReader::new(output) };
        // It stays open, or the run would be cut short.
        let mut input = generator.child.stdin.as_ref().ok_or_else(|| Failure::new("it has no input"))?;
        writeln!(input, "{load}").map_err(failed())?;
        Ok(generator)
    }

    fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(Failure::while_doing("the generator's output"))?;
        serde_json::from_str(&line).map_err(|_| Failure::new(format!("the generator said: {line:?}")))
    }

    fn usage(&self) -> Usage {
        usage_of_one(self.child.id())
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_all_seconds_together() {
        let mut latency = Vec::new();
        add(&mut latency, &json!([[100, 90], [900, 5]]));
        add(&mut latency, &json!([[200, 5]]));
        assert_eq!(quantile(&mut latency, 0.5), 100.0);
        assert_eq!(quantile(&mut latency, 0.95), 200.0);
        assert_eq!(quantile(&mut latency, 0.99), 900.0);
    }

    #[test]
    fn what_a_generator_left_out_is_told_and_a_run_that_it_calls_invalid_gives_no_figures() {
        let end = |faults: &[&str]| json!({ "validity": { "not_offered": 3, "faults": faults } });
        assert_eq!(not_offered(&end(&[])).unwrap(), 3);
        let late = not_offered(&end(&["requests were late"])).unwrap_err();
        assert!(late.to_string().contains("requests were late"), "{late}");
        not_offered(&json!({})).unwrap_err();
    }

    #[test]
    fn a_failed_request_spoils_the_figures() {
        all_well(&json!({ "classes": {} })).unwrap();
        all_well(&json!({ "classes": { "page": { "sent": 2, "outcomes": { "ok": 2 } } } })).unwrap();
        all_well(&json!({ "classes": { "page": { "sent": 2, "outcomes": { "ok": 1, "broken": 1 } } } }))
            .unwrap_err();
    }
}
