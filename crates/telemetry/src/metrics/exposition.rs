//! The Prometheus text format, version 0.0.4.
//!
//! A page is families, each with one HELP and one TYPE line before its samples. A family that was begun twice would
//! make the page invalid, so a family is written in one go through the [`Family`] that [`Exposition::family`] lends.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

use super::HistogramTotals;

/// A page being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    begun: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The samples of one metric name.
#[derive(Debug)]
pub struct Family<'a> {
    page: &'a mut Exposition,
    name: &'a str,
}

/// Names and values. The names are ours and fixed; the values may be anything and are escaped.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    pub fn new() -> Exposition {
        Exposition::default()
    }

    /// Begins a metric. Counters end in `_total` and every name says its unit; `help` is one line.
    ///
    /// # Panics
    /// When the name was used before on this page: its samples must stand together.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        assert!(self.begun.insert(name.to_owned()), "metric {name} is begun twice");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, Escape::Help);
        self.line(format_args!("\n# TYPE {name} {kind}"));
        Family { page: self, name }
    }

    /// The page. Its media type is [`Exposition::CONTENT_TYPE`].
    pub fn finish(self) -> String {
        self.text
    }

    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    fn line(&mut self, line: impl Display) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

impl Family<'_> {
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.write("", labels, None, value);
        self
    }

    /// The buckets (cumulated, in seconds), the sum and the count.
    pub fn histogram(&mut self, labels: Labels<'_>, totals: &HistogramTotals) -> &mut Self {
        let mut below = 0;
        for (index, count) in totals.buckets.iter().enumerate() {
            below += count;
            let bound = match totals.bounds.get(index) {
                Some(us) => seconds(*us),
                None => "+Inf".to_owned(),
            };
            self.write("_bucket", labels, Some(&bound), below);
        }
        self.write("_sum", labels, None, seconds(totals.sum_us));
        self.write("_count", labels, None, below);
        self
    }

    fn write(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            text.push(before);
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value, Escape::Label);
            text.push('"');
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        self.page.line(format_args!(" {value}"));
    }
}

/// Microseconds as seconds without a rounding error, as few digits as needed.
fn seconds(us: u64) -> String {
    let (whole, part) = (us / 1_000_000, us % 1_000_000);
    if part == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{part:06}");
    text.trim_end_matches('0').to_owned()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    Help,
    /// A quote would end the value.
    Label,
}

fn escape(text: &mut String, value: &str, place: Escape) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if place == Escape::Label => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Histogram;
    use super::*;

    #[test]
    fn a_family_is_help_type_and_samples() {
        let mut page = Exposition::new();
        page.family("requests_total", Kind::Counter, "Requests that ended.")
            .sample(&[("upstream", "web"), ("class", "2xx")], 3)
            .sample(&[], 0);
        let expected = "# HELP requests_total Requests that ended.\n\
            # TYPE requests_total counter\n\
            requests_total{upstream=\"web\",class=\"2xx\"} 3\n\
            requests_total 0\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn label_values_cannot_break_out() {
        let mut page = Exposition::new();
        page.family("up", Kind::Gauge, "a \\ and\nmore").sample(&[("id", "a\"b\\c\nd")], 1);
        let expected = "# HELP up a \\\\ and\\nmore\n# TYPE up gauge\nup{id=\"a\\\"b\\\\c\\nd\"} 1\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn histogram_buckets_are_cumulated_and_in_seconds() {
        let histogram = Histogram::new(&[500, 2_000_000]);
        for us in [400, 1_000_000, 3_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let mut page = Exposition::new();
        page.family("took_seconds", Kind::Histogram, "Time.")
            .histogram(&[("upstream", "web")], &histogram.totals());
        let expected = "# HELP took_seconds Time.\n\
            # TYPE took_seconds histogram\n\
            took_seconds_bucket{upstream=\"web\",le=\"0.0005\"} 1\n\
            took_seconds_bucket{upstream=\"web\",le=\"2\"} 2\n\
            took_seconds_bucket{upstream=\"web\",le=\"+Inf\"} 3\n\
            took_seconds_sum{upstream=\"web\"} 4.0004\n\
            took_seconds_count{upstream=\"web\"} 3\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    #[should_panic(expected = "begun twice")]
    fn a_name_is_used_once() {
        let mut page = Exposition::new();
        page.family("up", Kind::Gauge, "One.");
        page.family("up", Kind::Gauge, "Two.");
    }
}
