//! A rehearsal while it runs, as text: a line now and then for a log, or a few lines that are drawn over and over in a
//! terminal. Who calls it owns the terminal and the clock.

use std::collections::VecDeque;

use super::words::{clock, count, duration_or_dash, of, percent, rate, share, shortened};
use crate::record::{Second, TierSecond};
use crate::summary::Summary;

/// Of the small charts of the view.
const SPARK_SECONDS: usize = 60;
/// Columns of a view that stand before and behind them.
const BESIDE_BARS: usize = 38;
/// Figures are of so many seconds: the last one alone has too few requests for a percentile.
const WINDOW_SECONDS: usize = 10;
/// Of names that a stranger chose, in a line.
const MOST_NAME: usize = 24;
/// Tiers in a line. The report has all.
const MOST_TIERS: usize = 8;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub app: String,
    pub profile: String,
    pub lasts_seconds: u32,
}

/// Holds the last minute, and no more.
#[derive(Debug)]
pub struct Live {
    expected: Expected,
    recent: VecDeque<Second>,
    failed: u64,
    shed: u64,
    sent: u64,
    /// Newest, by tier, as a share of what it may use.
    cpu: Vec<(String, f64)>,
}

impl Live {
    pub fn new(expected: Expected) -> Live {
        Live { expected, recent: VecDeque::new(), failed: 0, shed: 0, sent: 0, cpu: Vec::new() }
    }

    /// The next second, and what the tiers said last.
    pub fn hear<'a>(&mut self, second: &Second, tiers: impl IntoIterator<Item = (&'a str, &'a TierSecond)>) {
        let all = Summary::of([second]);
        self.failed += all.failed();
        self.shed += all.shed();
        self.sent += all.sent;
        if self.recent.len() == SPARK_SECONDS {
            self.recent.pop_front();
        }
        self.recent.push_back(second.clone());
        let of_allowed = |second: &TierSecond| second.cpu / second.cpu_allowed;
        let shares = tiers.into_iter().map(|(name, second)| (shortened(name, MOST_NAME), of_allowed(second)));
        // What is counted in a moment more than a second is no more than there is.
        let shares =
            shares.filter(|(_, share)| share.is_finite()).map(|(name, share)| (name, share.min(1.0)));
        self.cpu = shares.take(MOST_TIERS).collect();
    }

    /// For a log, when `every` seconds are full. `None`: not now.
    pub fn line(&self, every: u32) -> Option<String> {
        let last = self.recent.back()?;
        if !(last.at + 1).is_multiple_of(every.max(1)) {
            return None;
        }
        let window = Window::of(&self.recent, every as usize);
        let mut line = format!(
            "{} {}: {} of {} visits/s, {} requests/s, p50 {}, p99 {}, {} failed, {} shed{}",
            clock(u64::from(last.at) + 1),
            shortened(&last.phase, MOST_NAME),
            rate(window.begun),
            rate(window.wished),
            rate(window.requests),
            duration_or_dash(window.all.latency.quantile(0.5)),
            duration_or_dash(window.all.latency.quantile(0.99)),
            count(window.all.failed()),
            count(window.all.shed()),
            window.visitors(),
        );
        if !self.cpu.is_empty() {
            line += &format!("; CPU {}", self.cpu_by_tier());
        }
        Some(line)
    }

    /// Five or six lines for a terminal of so many columns, the last without an end. Failures and shed requests are of the
    /// whole run.
    pub fn view(&self, columns: usize) -> String {
        let lines = self.lines(columns.saturating_sub(BESIDE_BARS).min(SPARK_SECONDS));
        // One that the terminal would break would push the others up at each drawing.
        let lines = lines.iter().map(|line| shortened(line, columns.saturating_sub(2)));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn lines(&self, bars: usize) -> Vec<String> {
        let lasts = u64::from(self.expected.lasts_seconds);
        let title = format!("{} on {}", self.expected.profile, self.expected.app);
        let Some(last) = self.recent.back() else {
            return vec![format!("{title}, {} to go", clock(lasts))];
        };
        let elapsed = u64::from(last.at) + 1;
        let window = Window::of(&self.recent, WINDOW_SECONDS);
        let left = lasts.saturating_sub(elapsed);
        let mut lines = vec![
            format!("{title}  {} of {}, {} left  {}", clock(elapsed), clock(lasts), clock(left), last.phase),
            format!(
                "visits    {:>8}/s of {}/s wished{}",
                rate(window.begun),
                rate(window.wished),
                window.visitors()
            ),
            format!("requests  {:>8}/s  {}", rate(window.requests), self.spark(bars, |second| second.sent)),
            format!(
                "p99       {:>10}  {}  p50 {}",
                duration_or_dash(window.all.latency.quantile(0.99)),
                self.spark(bars, |second| second.latency.quantile(0.99).unwrap_or(0)),
                duration_or_dash(window.all.latency.quantile(0.5)),
            ),
            format!(
                "failed    {:>10}  {}    shed {}  {}",
                count(self.failed),
                share(self.failed, self.sent),
                count(self.shed),
                share(self.shed, self.sent),
            ),
        ];
        if !self.cpu.is_empty() {
            lines.push(format!("CPU       {}", self.cpu_by_tier()));
        }
        lines
    }

    fn cpu_by_tier(&self) -> String {
        let tiers = self.cpu.iter().map(|(name, share)| format!("{name} {}", percent(*share)));
        tiers.collect::<Vec<_>>().join(", ")
    }

    /// A bar for each of the last seconds, the highest being the most of them.
    fn spark(&self, bars: usize, of: impl Fn(&Summary) -> u64) -> String {
        let last = self.recent.iter().skip(self.recent.len().saturating_sub(bars));
        let values: Vec<u64> = last.map(|second| of(&Summary::of([second]))).collect();
        let most = values.iter().copied().max().unwrap_or(0).max(1) as f64;
        let bar = |value: u64| BARS[(value as f64 / most * (BARS.len() - 1) as f64).round() as usize];
        values.into_iter().map(bar).collect()
    }
}

/// The last few seconds together.
struct Window {
    wished: f64,
    begun: f64,
    requests: f64,
    /// The most that were under way at the end of one of them.
    visitors: u32,
    all: Summary,
}

impl Window {
    fn of(recent: &VecDeque<Second>, seconds: usize) -> Window {
        let last = || recent.iter().skip(recent.len().saturating_sub(seconds));
        let lasted = last().count().max(1) as f64;
        let all = Summary::of(last());
        Window {
            wished: last().map(|second| second.wished_visits).sum::<f64>() / lasted,
            begun: last().map(|second| f64::from(second.visits)).sum::<f64>() / lasted,
            requests: all.sent_rate(),
            visitors: last().map(|second| second.visitors).max().unwrap_or(0),
            all,
        }
    }

    /// Nothing where visits are over so soon that none was under way when it was looked: "0 visitors" would be wrong.
    fn visitors(&self) -> String {
        match self.visitors {
            0 => String::new(),
            visitors => format!(", {}", of(u64::from(visitors), "visitor")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ClassSecond, Outcome};

    fn second(at: u32, sent: u32, failed: u32, latency: u64) -> Second {
        let page = ClassSecond {
            sent,
            outcomes: [(Outcome::Ok, sent - failed), (Outcome::GaveUp, failed)].into(),
            latency: vec![(latency, sent - failed)],
            service: vec![(latency, sent - failed)],
            ..ClassSecond::default()
        };
        Second {
            at,
            phase: "plateau".into(),
            wished_visits: 25.0,
            visits: 24,
            visitors: 310,
            connections: 40,
            classes: [("page".to_owned(), page)].into(),
        }
    }

    fn live() -> Live {
        Live::new(Expected { app: "shop".into(), profile: "front-page".into(), lasts_seconds: 570 })
    }

    #[test]
    fn a_line_comes_when_so_many_seconds_are_full_and_speaks_of_these() {
        let mut live = live();
        let web = TierSecond { cpu: 1.76, cpu_allowed: 2.0, ..TierSecond::default() };
        let unlimited = TierSecond { cpu: 1.0, ..TierSecond::default() };
        for at in 0..20 {
            live.hear(&second(at, 100, u32::from(at == 3), 12_000), [("web", &web), ("odd", &unlimited)]);
            assert_eq!(live.line(10).is_some(), at == 9 || at == 19, "{at}");
        }
        assert_eq!(
            live.line(10).unwrap(),
            "0:20 plateau: 24.0 of 25.0 visits/s, 100 requests/s, p50 12.0 ms, p99 12.0 ms, 0 failed, 0 shed, \
             310 visitors; CPU web 88 %"
        );
    }

    #[test]
    fn the_view_shows_the_last_minute_and_the_failures_of_the_whole_run() {
        let mut live = live();
        assert_eq!(live.view(100), "front-page on shop, 9:30 to go");
        for at in 0..65 {
            let slow = if at == 64 { 80_000 } else { 10_000 };
            live.hear(&second(at, at + 1, u32::from(at == 0), slow), []);
        }
        insta::assert_snapshot!(live.view(100), @r"
        front-page on shop  1:05 of 9:30, 8:25 left  plateau
        visits        24.0/s of 25.0/s wished, 310 visitors
        requests      60.5/s  ▂▂▂▂▂▂▂▂▃▃▃▃▃▃▃▃▃▃▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇▇█████
        p99          80.0 ms  ▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂█  p50 10.0 ms
        failed             1  0.05 %    shed 0  0 %
        ");
        assert!(live.view(60).lines().all(|line| line.chars().count() < 60), "{}", live.view(60));
    }

    #[test]
    fn a_fast_app_has_no_visitors_to_count_and_no_tier_uses_more_than_it_may() {
        let mut live = live();
        let web = TierSecond { cpu: 2.02, cpu_allowed: 2.0, ..TierSecond::default() };
        let line = |live: &mut Live, visitors: u32| {
            let at = live.recent.len() as u32;
            live.hear(&Second { visitors, ..second(at, 100, 0, 900) }, [("web", &web)]);
            live.line(1).unwrap()
        };
        assert!(line(&mut live, 0).ends_with("0 failed, 0 shed; CPU web 100 %"), "{}", live.line(1).unwrap());
        assert!(live.view(100).contains("wished\n"), "{}", live.view(100));
        assert!(
            line(&mut live, 1).ends_with("0 shed, 1 visitor; CPU web 100 %"),
            "{}",
            live.line(1).unwrap()
        );
    }

    #[test]
    fn before_anything_was_answered_there_is_a_dash() {
        let mut live = live();
        live.hear(&Second { classes: [].into(), ..second(0, 0, 0, 1) }, []);
        assert!(live.view(80).contains("p50 –"), "{}", live.view(80));
    }
}
