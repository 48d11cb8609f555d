//! What a person requires of an app under load: `p99 < 250ms`, `errors < 0.1%`, `p95{page} < 1s`.
//!
//! ```text
//! threshold  = metric [ "{" [ "class:" ] class "}" ] comparison amount
//! metric     = "p" number | "p(" number ")" | "errors" | "shed" | "rate" | "capacity"
//! comparison = "<" | "<=" | ">" | ">="
//! amount     = number ( "us" | "ms" | "s" | "m" )     of p
//!            | number "%"                             of errors and shed
//!            | number "/s"                            of rate and capacity
//! ```
//!
//! The forms are those of k6, but for units: a time or a share without one means something else to everybody.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Longer is no threshold.
pub const MAX_THRESHOLD_BYTES: usize = 200;

/// Of the requests of a rehearsal.
pub const REQUEST_CLASSES: [&str; 6] = ["page", "asset", "search", "write", "bot", "missing"];

/// One requirement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Threshold {
    /// As it was written.
    text: String,
    pub metric: Metric,
    /// Requests of this class alone; `None`: all.
    pub class: Option<String>,
    pub comparison: Comparison,
    /// In the unit of the metric.
    pub bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// The latency that this share of the requests, from 0 to 1, does not exceed, what got no answer being slower than any.
    /// In µs.
    Latency(f64),
    /// The share of requests that failed, from 0 to 1. What was shed is not among them.
    Errors,
    /// The share of requests that the app said it does not want, from 0 to 1.
    Shed,
    /// Requests per second that were answered as they should.
    Rate,
    /// Requests per second up to which all else that is required is kept. Only a search finds it.
    Capacity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// Why a text is no threshold, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidThreshold {
    pub text: String,
    /// Bytes of `text`.
    pub span: Range<usize>,
    pub why: String,
    /// What was probably meant, as a whole threshold.
    pub meant: Option<String>,
}

impl Threshold {
    /// Whether `actual`, in the unit of the metric, is as required.
    pub fn is_kept_by(&self, actual: f64) -> bool {
        match self.comparison {
            Comparison::Below => actual < self.bound,
            Comparison::AtMost => actual <= self.bound,
            Comparison::Above => actual > self.bound,
            Comparison::AtLeast => actual >= self.bound,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Metric {
    /// An amount of it, for people: `312ms`, `0.12%`, `480/s`.
    pub fn amount(self, value: f64) -> String {
        match self {
            Metric::Latency(_) if value < 1_000.0 => format!("{}us", digits(value)),
            Metric::Latency(_) if value < 1_000_000.0 => format!("{}ms", digits(value / 1_000.0)),
            Metric::Latency(_) => format!("{}s", digits(value / 1_000_000.0)),
            Metric::Errors | Metric::Shed => format!("{}%", digits(value * 100.0)),
            Metric::Rate | Metric::Capacity => format!("{}/s", digits(value)),
        }
    }

    /// In which amounts are kept.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::Latency(_) => "us",
            Metric::Errors | Metric::Shed => "share",
            Metric::Rate | Metric::Capacity => "per_second",
        }
    }

    fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Metric::Latency(_) => &[("ms", 1e3), ("us", 1.0), ("µs", 1.0), ("s", 1e6), ("m", 60e6)],
            Metric::Errors | Metric::Shed => &[("%", 0.01)],
            Metric::Rate | Metric::Capacity => &[("/s", 1.0)],
        }
    }
}

/// Three that count, and no more than there are.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

impl std::str::FromStr for Threshold {
    type Err = InvalidThreshold;

    fn from_str(text: &str) -> Result<Threshold, InvalidThreshold> {
        Parser { text, at: 0 }.threshold()
    }
}

impl TryFrom<String> for Threshold {
    type Error = InvalidThreshold;

    fn try_from(text: String) -> Result<Threshold, InvalidThreshold> {
        text.parse()
    }
}

impl From<Threshold> for String {
    fn from(threshold: Threshold) -> String {
        threshold.text
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl InvalidThreshold {
    /// The text with the place underlined, in two lines.
    pub fn underlined(&self) -> String {
        let shown = |text: &str| text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let text: String = shown(&self.text);
        let columns = |text: Option<&str>| text.unwrap_or_default().chars().count();
        let before = columns(self.text.get(..self.span.start));
        let marked = columns(self.text.get(self.span.clone())).max(1);
        format!("{text}\n{}{}", " ".repeat(before), "^".repeat(marked))
    }
}

impl fmt::Display for InvalidThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match &self.meant {
            Some(meant) => write!(f, "; did you mean `{meant}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for InvalidThreshold {}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn threshold(mut self) -> Result<Threshold, InvalidThreshold> {
        if self.text.len() > MAX_THRESHOLD_BYTES {
            let start: String = self.text.chars().take(40).collect();
            return Err(InvalidThreshold {
                span: 0..start.len(),
                text: start,
                why: format!("longer than the {MAX_THRESHOLD_BYTES} bytes that a threshold may have"),
                meant: None,
            });
        }
        let metric = self.metric()?;
        let braces = self.at;
        let class = self.class()?;
        if metric == Metric::Capacity && class.is_some() {
            return Err(self.refusal(braces..self.at, "`capacity` is of all requests together"));
        }
        let comparison = self.comparison()?;
        let bound = self.amount(metric)?;
        self.spaces();
        if self.at < self.text.len() {
            return Err(self.refusal(self.at..self.text.len(), "nothing may follow the amount"));
        }
        Ok(Threshold { text: self.text.trim().to_owned(), metric, class, comparison, bound })
    }

    fn metric(&mut self) -> Result<Metric, InvalidThreshold> {
        self.spaces();
        let start = self.at;
        let name = self.take(|c| c.is_ascii_alphabetic() || c == '_');
        match name {
            "errors" => Ok(Metric::Errors),
            "shed" => Ok(Metric::Shed),
            "rate" => Ok(Metric::Rate),
            "capacity" => Ok(Metric::Capacity),
            "p" => {
                let in_brackets = self.skip("(");
                let from = self.at;
                let percent = self.number();
                let span = from..self.at;
                if in_brackets && !self.skip(")") {
                    return Err(self.refusal(start..self.at, "`(` has no `)`"));
                }
                match percent {
                    Some(percent) if percent > 0.0 && percent <= 100.0 => {
                        Ok(Metric::Latency(percent / 100.0))
                    }
                    _ => {
                        Err(self.refusal(span, "a percentile is a number above 0, at most 100, as in `p99`"))
                    }
                }
            }
            _ => {
                let end = if name.is_empty() { self.next_end() } else { self.at };
                Err(self.refusal(
                    start..end,
                    "expected `p50`, `p99` or another percentile, `errors`, `shed`, `rate` or `capacity`",
                ))
            }
        }
    }

    fn class(&mut self) -> Result<Option<String>, InvalidThreshold> {
        self.spaces();
        let start = self.at;
        if !self.skip("{") {
            return Ok(None);
        }
        self.spaces();
        self.skip("class:");
        self.spaces();
        let class = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let named = self.at - class.len()..self.at;
        self.spaces();
        if !self.skip("}") || class.is_empty() {
            return Err(
                self.refusal(start..self.at.max(start + 1), "a class stands in braces, as in `p99{page}`")
            );
        }
        if !REQUEST_CLASSES.contains(&class) {
            let why = format!("there is no such class of requests: they are {}", REQUEST_CLASSES.join(", "));
            return Err(self.refusal(named, &why));
        }
        Ok(Some(class.to_owned()))
    }

    fn comparison(&mut self) -> Result<Comparison, InvalidThreshold> {
        self.spaces();
        for (sign, comparison) in [
            ("<=", Comparison::AtMost),
            ("<", Comparison::Below),
            (">=", Comparison::AtLeast),
            (">", Comparison::Above),
        ] {
            if self.skip(sign) {
                return Ok(comparison);
            }
        }
        Err(self.refusal(self.at..self.next_end(), "expected `<`, `<=`, `>` or `>=`"))
    }

    fn amount(&mut self, metric: Metric) -> Result<f64, InvalidThreshold> {
        self.spaces();
        let start = self.at;
        let Some(number) = self.number() else {
            return Err(self.refusal(start..self.next_end(), "expected a number"));
        };
        self.spaces();
        let number_end = self.at;
        let unit = self.take(|c| !c.is_whitespace());
        if let Some((_, factor)) = metric.units().iter().find(|(name, _)| *name == unit) {
            return Ok(number * factor);
        }
        let (why, meant) = match metric {
            Metric::Latency(_) => ("a time needs a unit: `us`, `ms`, `s` or `m`", format!("{number}ms")),
            Metric::Errors | Metric::Shed if unit.is_empty() => {
                ("a share is written in percent", format!("{}%", digits(number * 100.0)))
            }
            Metric::Errors | Metric::Shed => ("a share is written in percent", format!("{number}%")),
            Metric::Rate | Metric::Capacity => ("a rate is written per second", format!("{number}/s")),
        };
        let span = if unit.is_empty() { start..number_end } else { number_end..self.at };
        let mut refusal = self.refusal(span, why);
        let meant = self.text.get(..start).map(|before| format!("{}{meant}", before.trim_start()));
        refusal.meant = meant.filter(|meant| meant.len() <= MAX_THRESHOLD_BYTES);
        Err(refusal)
    }

    fn number(&mut self) -> Option<f64> {
        let text = self.take(|c| c.is_ascii_digit() || c == '.');
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }

    fn refusal(&self, span: Range<usize>, why: &str) -> InvalidThreshold {
        InvalidThreshold { text: self.text.to_owned(), span, why: why.to_owned(), meant: None }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip(&mut self, word: &str) -> bool {
        let is_there = self.rest().starts_with(word);
        self.at += if is_there { word.len() } else { 0 };
        is_there
    }

    fn spaces(&mut self) {
        self.take(char::is_whitespace);
    }

    /// Where the word that begins here ends; at the end of the text, there.
    fn next_end(&self) -> usize {
        let word = self.rest().split(char::is_whitespace).next().unwrap_or_default();
        self.at + word.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Threshold {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refused(text: &str) -> String {
        let error = text.parse::<Threshold>().unwrap_err();
        let hint = error.meant.as_ref().map(|meant| format!("\n{meant}")).unwrap_or_default();
        format!("{}\n{}{hint}", error.underlined(), error.why)
    }

    #[test]
    fn a_threshold_is_a_metric_a_comparison_and_an_amount() {
        for (text, metric, comparison, bound) in [
            ("p99 < 250ms", Metric::Latency(0.99), Comparison::Below, 250e3),
            ("p50<=20ms", Metric::Latency(0.5), Comparison::AtMost, 20e3),
            ("p(95) < 1.5s", Metric::Latency(0.95), Comparison::Below, 1.5e6),
            ("  p99.9 < 800 us ", Metric::Latency(0.999), Comparison::Below, 800.0),
            ("p100 < 2m", Metric::Latency(1.0), Comparison::Below, 120e6),
            ("errors < 0.1%", Metric::Errors, Comparison::Below, 0.001),
            ("shed < 1 %", Metric::Shed, Comparison::Below, 0.01),
            ("rate > 500/s", Metric::Rate, Comparison::Above, 500.0),
            ("rate >= 0.5/s", Metric::Rate, Comparison::AtLeast, 0.5),
            ("capacity > 300/s", Metric::Capacity, Comparison::Above, 300.0),
        ] {
            let threshold = read(text);
            assert_eq!((threshold.comparison, threshold.class), (comparison, None), "{text}");
            assert!((threshold.bound / bound - 1.0).abs() < 1e-12, "{text}: {}", threshold.bound);
            match (threshold.metric, metric) {
                (Metric::Latency(read), Metric::Latency(meant)) => assert!((read - meant).abs() < 1e-12),
                (read, meant) => assert_eq!(read, meant),
            }
        }
    }

    #[test]
    fn a_threshold_may_be_of_one_class() {
        for text in ["p99{page} < 1s", "p99{class:page} < 1s", "p99 { page } < 1s"] {
            assert_eq!(read(text).class.as_deref(), Some("page"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_underlined() {
        for (text, refusal) in [
            ("p99 < 250", "p99 < 250\n      ^^^\na time needs a unit: `us`, `ms`, `s` or `m`\np99 < 250ms"),
            (
                "p(99)<250 secs",
                "p(99)<250 secs\n          ^^^^\na time needs a unit: `us`, `ms`, `s` or `m`\np(99)<250ms",
            ),
            ("errors < 0.01", "errors < 0.01\n         ^^^^\na share is written in percent\nerrors < 1%"),
            (
                "capacity{page} > 5/s",
                "capacity{page} > 5/s\n        ^^^^^^\n`capacity` is of all requests together",
            ),
            ("rate > 5", "rate > 5\n       ^\na rate is written per second\nrate > 5/s"),
            (
                "latency < 1s",
                "latency < 1s\n^^^^^^^\nexpected `p50`, `p99` or another percentile, `errors`, `shed`, `rate` or `capacity`",
            ),
            ("p0 < 1s", "p0 < 1s\n ^\na percentile is a number above 0, at most 100, as in `p99`"),
            ("p < 1s", "p < 1s\n ^\na percentile is a number above 0, at most 100, as in `p99`"),
            ("p(99 < 1s", "p(99 < 1s\n^^^^\n`(` has no `)`"),
            ("p99{page < 1s", "p99{page < 1s\n   ^^^^^^\na class stands in braces, as in `p99{page}`"),
            (
                "p99{pages} < 1s",
                "p99{pages} < 1s\n    ^^^^^\nthere is no such class of requests: they are page, asset, search, write, bot, missing",
            ),
            ("p99 = 1s", "p99 = 1s\n    ^\nexpected `<`, `<=`, `>` or `>=`"),
            ("p99 <", "p99 <\n     ^\nexpected a number"),
            ("p99 < 1.2.3s", "p99 < 1.2.3s\n      ^^^^^^\nexpected a number"),
            ("p99 < 1s or so", "p99 < 1s or so\n         ^^^^^\nnothing may follow the amount"),
            ("", "\n^\nexpected `p50`, `p99` or another percentile, `errors`, `shed`, `rate` or `capacity`"),
        ] {
            assert_eq!(refused(text), refusal, "{text}");
        }
    }

    #[test]
    fn the_border_belongs_to_it_only_where_that_is_written() {
        for (text, kept) in [("< ", false), ("<=", true), ("> ", false), (">=", true)] {
            assert_eq!(read(&format!("p99 {text} 1ms")).is_kept_by(1_000.0), kept, "{text}");
        }
    }

    #[test]
    fn it_is_stored_as_it_was_written() {
        let written = serde_json::to_string(&read(" p99{page} < 1s ")).unwrap();
        assert_eq!(written, "\"p99{page} < 1s\"");
        assert_eq!(serde_json::from_str::<Threshold>(&written).unwrap(), read("p99{page} < 1s"));
        assert!(serde_json::from_str::<Threshold>("\"p99\"").is_err());
    }

    #[test]
    fn amounts_are_said_with_three_digits() {
        let said = [312_345.0, 1_240_000.0, 999.0, 12_300.0].map(|value| Metric::Latency(0.99).amount(value));
        assert_eq!(said, ["312ms", "1.24s", "999us", "12.3ms"]);
        assert_eq!(Metric::Errors.amount(0.001_23), "0.12%");
        assert_eq!(Metric::Errors.amount(0.0), "0%");
        assert_eq!(Metric::Rate.amount(480.4), "480/s");
        assert_eq!(Metric::Rate.amount(100.0), "100/s");
    }

    #[test]
    fn an_endless_text_is_not_repeated() {
        let error = "p99 < ".repeat(1_000).parse::<Threshold>().unwrap_err();
        assert!(error.text.len() <= 40 && error.why.contains("200 bytes"));
    }
}
