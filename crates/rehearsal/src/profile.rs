//! Profiles: how many visitors come when, as data that becomes the phases of a [`crate::load::Load`].
//!
//! What a front page does to a site is known from those who wrote it down: visitors by the dozen a second, not by the
//! thousand, from one minute to the next, and for half a day. A rehearsal has no half day. It keeps the heights, the
//! order and the shape, and presses the times together.
//!
//! What falls by half in each half-life is drawn as straight pieces, each from one exact value to the next.

use serde::Serialize;

use crate::load::Phase;
use crate::site::rates::Rates;

/// A profile that has a name.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    pub name: &'static str,
    shape: Shape,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Quiet, up to a peak, and slowly down again. Of several peaks the highest counts.
    Crowd { peaks: &'static [Peak], ramp: Ramp },
    /// The same all the time, as a share of the capacity.
    Steady { share_of_capacity: f64 },
}

/// How high a crowd rises.
#[derive(Debug, Clone, Copy)]
enum Peak {
    /// Visits per second.
    Visits(f64),
    TimesBase(f64),
    TimesCapacity(f64),
}

/// How fast.
#[derive(Debug, Clone, Copy)]
enum Ramp {
    /// By word of mouth: as long as the pace says.
    Gradual,
    /// A spot on television: three seconds, whatever the pace.
    Sudden,
}

const FRONT_PAGE: &[Peak] = &[Peak::Visits(25.0), Peak::TimesBase(10.0)];

/// All of them, in the order in which people are told of them.
pub const PRESETS: &[Preset] = &[
    Preset { name: "front-page", shape: Shape::Crowd { peaks: FRONT_PAGE, ramp: Ramp::Gradual } },
    Preset { name: "hn", shape: Shape::Crowd { peaks: &[Peak::Visits(10.0)], ramp: Ramp::Gradual } },
    Preset { name: "reddit", shape: Shape::Crowd { peaks: &[Peak::Visits(25.0)], ramp: Ramp::Gradual } },
    Preset { name: "viral", shape: Shape::Crowd { peaks: &[Peak::TimesBase(10.0)], ramp: Ramp::Gradual } },
    Preset {
        name: "overload",
        shape: Shape::Crowd { peaks: &[Peak::TimesCapacity(10.0)], ramp: Ramp::Gradual },
    },
    Preset { name: "tv-ad", shape: Shape::Crowd { peaks: &[Peak::TimesBase(100.0)], ramp: Ramp::Sudden } },
    Preset { name: "soak", shape: Shape::Steady { share_of_capacity: 0.7 } },
];

/// What is known of the app before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// Visits per second on a usual day.
    pub base: f64,
    /// Visits per second that it serves within its objective, where that was found.
    pub capacity: Option<f64>,
}

/// Visits per second where nobody knows what is usual.
pub const UNKNOWN_BASE: f64 = 1.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nine and a half minutes for what takes a day and a half.
    Rehearsal,
    /// As a rehearsal, but so long in all.
    Within { total_ms: u64 },
}

/// Below it a burst is shorter than a second, and nothing can be said of it.
pub const SHORTEST_MS: u64 = 60_000;

/// A record has each second, in memory until it is over and in one file then: 8 KB at 25 visits a second, 23 KB at 400. A
/// quarter of a day of these can be read again, to be compared with ([`crate::record::json::MOST_BYTES`]).
pub const LONGEST_MS: u64 = LONGEST_HOURS * HOUR_MS;

pub const LONGEST_HOURS: u64 = 6;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;

const SUDDEN_MS: u64 = 3 * SECOND_MS;

/// Of the peak, within the plateau: the minute in which somebody famous passes it on.
const BURST: f64 = 1.5;

/// Of the peak, where the crowd has gone and those who stay are left.
const AFTERWARDS: f64 = 0.2;

/// Straight pieces for each half-life: they are above the curve by less than one part in a hundred.
const PIECES_PER_HALF_LIFE: u64 = 3;

/// Why a profile cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Unplayable {
    #[error("there is no profile `{name}`; there are {known}")]
    Unknown { name: String, known: String },
    #[error(
        "`{profile}` is relative to what the app can serve, which is not known yet: find it with `switchback rehearse --find`"
    )]
    CapacityUnknown { profile: String },
    #[error("the access log has no visit to play again: begin with a profile such as `front-page`")]
    NothingToReplay,
    #[error("{what} must be from {least} to {most}")]
    OutOfRange { what: &'static str, least: String, most: String },
}

/// How long the parts of a crowd last.
struct Times {
    before: u64,
    ramp: u64,
    plateau: u64,
    burst: u64,
    decay: u64,
    half_life: u64,
}

const REHEARSAL: Times = Times {
    before: MINUTE_MS,
    ramp: 30 * SECOND_MS,
    plateau: 3 * MINUTE_MS,
    burst: 10 * SECOND_MS,
    decay: 5 * MINUTE_MS,
    half_life: 90 * SECOND_MS,
};

/// The preset of that name.
///
/// # Errors
/// When there is none; the error names those that there are.
pub fn preset(name: &str) -> Result<&'static Preset, Unplayable> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        // The one more that is made of the access log, by [`replay`].
        let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).chain(["replay"]).collect();
        Unplayable::Unknown { name: name.escape_debug().take(40).collect(), known: known.join(", ") }
    })
}

impl Preset {
    /// Its phases, one after the other.
    ///
    /// # Errors
    /// When it needs a capacity that is not known, or a time or rate is none that can be played.
    pub fn phases(&self, known: &Known, pace: Pace) -> Result<Vec<Phase>, Unplayable> {
        in_range(known.base, "the usual rate of visits")?;
        if let Some(capacity) = known.capacity {
            in_range(capacity, "the capacity, in visits per second,")?;
        }
        if let Pace::Within { total_ms } = pace {
            check_duration(total_ms)?;
        }
        let unknown = || Unplayable::CapacityUnknown { profile: self.name.to_owned() };
        match self.shape {
            Shape::Steady { share_of_capacity } => {
                let rate = known.capacity.ok_or_else(unknown)? * share_of_capacity;
                let lasts = match pace {
                    Pace::Within { total_ms } => total_ms,
                    Pace::Rehearsal => HOUR_MS,
                };
                let ramp = lasts / 60;
                let mut phases = Phases(Vec::new());
                phases.add("ramp", ramp, known.base.min(rate), rate);
                phases.add("steady", lasts - ramp, rate, rate);
                Ok(phases.0)
            }
            Shape::Crowd { peaks, ramp } => {
                // A crowd never makes it quieter than it was.
                let mut peak = known.base;
                for one in peaks {
                    peak = peak.max(match one {
                        Peak::Visits(visits) => *visits,
                        Peak::TimesBase(times) => known.base * times,
                        Peak::TimesCapacity(times) => known.capacity.ok_or_else(unknown)? * times,
                    });
                }
                // A base that can be played may have a peak that cannot.
                in_range(peak * BURST, "the peak, in visits per second,")?;
                Ok(crowd(known.base, peak, ramp, &Times::of(pace)))
            }
        }
    }
}

impl Times {
    fn of(pace: Pace) -> Times {
        let (times, factor) = match pace {
            Pace::Rehearsal => (REHEARSAL, 1.0),
            Pace::Within { total_ms } => (REHEARSAL, total_ms as f64 / REHEARSAL.total() as f64),
        };
        let scaled = |ms: u64| (ms as f64 * factor).round() as u64;
        Times {
            before: scaled(times.before),
            ramp: scaled(times.ramp),
            plateau: scaled(times.plateau),
            burst: scaled(times.burst),
            decay: scaled(times.decay),
            half_life: scaled(times.half_life),
        }
    }

    const fn total(&self) -> u64 {
        self.before + self.ramp + self.plateau + self.decay
    }
}

fn crowd(base: f64, peak: f64, ramp: Ramp, times: &Times) -> Vec<Phase> {
    let ramp_ms = match ramp {
        Ramp::Gradual => times.ramp,
        Ramp::Sudden => SUDDEN_MS,
    };
    // What a sudden rise does not need, the plateau has.
    let plateau = times.plateau + times.ramp.saturating_sub(ramp_ms);
    let burst_at = (plateau - times.burst) / 2;
    let mut phases = Phases(Vec::new());
    phases.add("before", times.before, base, base);
    phases.add("ramp", ramp_ms, base, peak);
    phases.add("plateau", burst_at, peak, peak);
    phases.add("burst", times.burst, peak * BURST, peak * BURST);
    phases.add("plateau", plateau - times.burst - burst_at, peak, peak);
    decay(&mut phases, peak, base.max(peak * AFTERWARDS), times);
    phases.0
}

fn decay(phases: &mut Phases, peak: f64, floor: f64, times: &Times) {
    let after = |ms: u64| floor.max(peak * (-(ms as f64) / times.half_life as f64).exp2());
    let until_floor = (times.half_life as f64 * (peak / floor).log2()).round() as u64;
    let falls = until_floor.min(times.decay);
    let piece = (times.half_life / PIECES_PER_HALF_LIFE).max(1);
    let mut at = 0;
    while at < falls {
        let end = (at + piece).min(falls);
        phases.add("decay", end - at, after(at), after(end));
        at = end;
    }
    phases.add("after", times.decay - falls, after(falls), after(falls));
}

struct Phases(Vec<Phase>);

impl Phases {
    /// Nothing for what lasts no time.
    fn add(&mut self, name: &str, lasts_ms: u64, from: f64, to: f64) {
        if lasts_ms > 0 {
            self.0.push(Phase { name: name.to_owned(), lasts_ms, from, to });
        }
    }
}

/// How a log is played again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Replay {
    /// So many visits for each of the log's.
    pub factor: f64,
    /// Of the log: the stretch of this length in which most visits began, or all of it where that is shorter.
    pub lasts_ms: u64,
}

impl Default for Replay {
    fn default() -> Replay {
        Replay { factor: 1.0, lasts_ms: 10 * MINUTE_MS }
    }
}

impl Replay {
    /// Whether it can be played, whatever the log has.
    ///
    /// # Errors
    /// When the time or the factor is none that can be played.
    pub fn check(&self) -> Result<(), Unplayable> {
        if !(self.factor > 0.0 && self.factor <= MOST_FACTOR) {
            let (least, most) = ("more than 0".to_owned(), format!("{MOST_FACTOR}"));
            return Err(Unplayable::OutOfRange { what: "the factor", least, most });
        }
        check_duration(self.lasts_ms)
    }
}

/// Of one replay; shorter ones would be chance, drawn anew by another chance.
const MAX_PIECES: usize = 120;
const LEAST_PIECE_S: u64 = 5;

const MOST_FACTOR: f64 = 1_000.0;

/// The busiest stretch of a log, at its own pace.
///
/// # Errors
/// When the log has no visit, or a time or the factor is none that can be played.
pub fn replay(rates: &Rates, replay: Replay) -> Result<Vec<Phase>, Unplayable> {
    replay.check()?;
    let counts = rates.busiest(replay.lasts_ms / SECOND_MS);
    if counts.is_empty() {
        return Err(Unplayable::NothingToReplay);
    }
    let least = usize::try_from(LEAST_PIECE_S.div_ceil(rates.width_s())).unwrap_or(1);
    let piece = counts.len().div_ceil(MAX_PIECES).max(least);
    let mut phases = Phases(Vec::new());
    // What is known of an old log is known by longer stretches than were asked for.
    let mut left_ms = replay.lasts_ms;
    for counts in counts.chunks(piece) {
        let seconds = counts.len() as u64 * rates.width_s();
        let visits: f64 = counts.iter().map(|count| f64::from(*count)).sum();
        let rate = (visits / seconds as f64 * replay.factor).min(MOST_VISITS);
        let lasts_ms = left_ms.min(seconds * SECOND_MS);
        phases.add("replay", lasts_ms, rate, rate);
        left_ms -= lasts_ms;
    }
    Ok(phases.0)
}

fn check_duration(ms: u64) -> Result<(), Unplayable> {
    if (SHORTEST_MS..=LONGEST_MS).contains(&ms) {
        return Ok(());
    }
    let most = format!("{LONGEST_HOURS} hours, as all of it is kept to be compared with");
    let least = "1 minute".to_owned();
    Err(Unplayable::OutOfRange { what: "the duration", least, most })
}

/// What a machine of today can take as an order, in visits per second.
const MOST_VISITS: f64 = 1_000_000.0;

fn in_range(rate: f64, what: &'static str) -> Result<(), Unplayable> {
    if rate > 0.0 && rate <= MOST_VISITS {
        return Ok(());
    }
    Err(Unplayable::OutOfRange { what, least: "more than 0".to_owned(), most: format!("{MOST_VISITS}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Known = Known { base: 2.0, capacity: Some(50.0) };

    fn phases(name: &str, pace: Pace) -> Vec<Phase> {
        preset(name).unwrap().phases(&USUAL, pace).unwrap()
    }

    fn highest(phases: &[Phase], name: &str) -> f64 {
        let named = phases.iter().filter(|phase| phase.name == name);
        named.flat_map(|phase| [phase.from, phase.to]).fold(0.0, f64::max)
    }

    fn lasts(phases: &[Phase]) -> u64 {
        phases.iter().map(|phase| phase.lasts_ms).sum()
    }

    #[test]
    fn each_preset_rises_as_high_as_it_says() {
        for (name, peak) in [
            ("front-page", 25.0),
            ("hn", 10.0),
            ("reddit", 25.0),
            ("viral", 20.0),
            ("overload", 500.0),
            ("tv-ad", 200.0),
        ] {
            let phases = phases(name, Pace::Rehearsal);
            assert_eq!(highest(&phases, "plateau"), peak, "{name}");
            assert_eq!(highest(&phases, "burst"), peak * 1.5, "{name}");
        }
    }

    #[test]
    fn the_front_page_is_ten_times_what_is_usual_where_that_is_more() {
        let busy = Known { base: 40.0, capacity: None };
        let phases = preset("front-page").unwrap().phases(&busy, Pace::Rehearsal).unwrap();
        assert_eq!(highest(&phases, "plateau"), 400.0);
    }

    #[test]
    fn a_crowd_is_never_less_than_what_is_usual() {
        let busy = Known { base: 40.0, capacity: None };
        let phases = preset("hn").unwrap().phases(&busy, Pace::Rehearsal).unwrap();
        assert!(phases.iter().all(|phase| phase.from >= 40.0 && phase.to >= 40.0), "{phases:?}");
    }

    #[test]
    fn a_rehearsal_lasts_nine_and_a_half_minutes_and_any_other_time_that_is_asked_for() {
        for preset in PRESETS.iter().filter(|preset| preset.name != "soak") {
            assert_eq!(lasts(&phases(preset.name, Pace::Rehearsal)), 570_000, "{}", preset.name);
        }
        for preset in PRESETS {
            for total_ms in [60_000, 100_001, 3_600_000] {
                let lasts = lasts(&phases(preset.name, Pace::Within { total_ms }));
                assert!(lasts.abs_diff(total_ms) <= 4, "{}: {lasts} instead of {total_ms}", preset.name);
            }
        }
    }

    #[test]
    fn what_takes_longer_than_can_be_kept_is_refused_and_how_long_may_be_is_said() {
        let within = |total_ms| preset("hn").unwrap().phases(&USUAL, Pace::Within { total_ms });
        let replayed = |lasts_ms| Replay { factor: 1.0, lasts_ms }.check();
        assert!(within(6 * HOUR_MS).is_ok() && replayed(6 * HOUR_MS).is_ok());
        let refused =
            "the duration must be from 1 minute to 6 hours, as all of it is kept to be compared with";
        assert_eq!(within(6 * HOUR_MS + 1).unwrap_err().to_string(), refused);
        assert_eq!(replayed(7 * 24 * HOUR_MS).unwrap_err().to_string(), refused);
    }

    #[test]
    fn a_shorter_rehearsal_is_as_high() {
        let short = phases("reddit", Pace::Within { total_ms: 60_000 });
        assert_eq!(highest(&short, "burst"), 37.5);
        assert!(short.iter().filter(|phase| phase.name == "burst").all(|phase| phase.lasts_ms >= 1_000));
    }

    #[test]
    fn an_advertisement_on_television_takes_three_seconds_at_any_pace() {
        for pace in [Pace::Rehearsal, Pace::Within { total_ms: 120_000 }] {
            let phases = phases("tv-ad", pace);
            let ramp = phases.iter().find(|phase| phase.name == "ramp").unwrap();
            assert_eq!((ramp.lasts_ms, ramp.from, ramp.to), (3_000, 2.0, 200.0));
        }
    }

    #[test]
    fn only_a_burst_is_a_jump() {
        let phases = phases("reddit", Pace::Rehearsal);
        for pair in phases.windows(2) {
            let jumps = pair[0].to != pair[1].from;
            assert_eq!(jumps, pair.iter().any(|phase| phase.name == "burst"), "{pair:?}");
        }
    }

    #[test]
    fn the_decay_follows_its_half_life_down_to_a_fifth() {
        let phases = phases("reddit", Pace::Rehearsal);
        let decay: Vec<&Phase> = phases.iter().filter(|phase| phase.name == "decay").collect();
        let mut at = 0;
        for piece in &decay {
            let exact = |ms: u64| 25.0 * 0.5_f64.powf(ms as f64 / 90_000.0);
            let middle = at + piece.lasts_ms / 2;
            let drawn = f64::midpoint(piece.from, piece.to);
            assert!((drawn / exact(middle) - 1.0).abs() < 0.01, "{drawn} at {middle}");
            at += piece.lasts_ms;
        }
        assert!((decay.last().unwrap().to - 5.0).abs() < 0.01);
        let last = phases.last().unwrap();
        assert_eq!((last.name.as_str(), last.to), ("after", last.from));
    }

    #[test]
    fn what_is_relative_to_a_capacity_needs_one() {
        let unknown = Known { base: 1.0, capacity: None };
        for name in ["overload", "soak"] {
            let preset = preset(name).unwrap();
            let error = preset.phases(&unknown, Pace::Rehearsal).unwrap_err();
            assert_eq!(error, Unplayable::CapacityUnknown { profile: name.to_owned() });
            assert!(error.to_string().contains("--find"));
        }
        preset("reddit").unwrap().phases(&unknown, Pace::Rehearsal).unwrap();
    }

    #[test]
    fn a_soak_is_an_hour_below_the_capacity() {
        let phases = phases("soak", Pace::Rehearsal);
        assert_eq!((lasts(&phases), phases.last().unwrap().to), (HOUR_MS, 35.0));
    }

    #[test]
    fn an_unknown_profile_is_told_the_known_ones() {
        let error = preset("frontpage\n").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no profile `frontpage\\n`; there are front-page, hn,")
                && error.ends_with(", replay"),
            "{error}"
        );
    }

    fn logged(visits: impl IntoIterator<Item = (i64, u32)>) -> Rates {
        let mut rates = Rates::new();
        for (at, count) in visits {
            (0..count).for_each(|_| rates.count(1_770_000_000 + at));
        }
        rates
    }

    #[test]
    fn a_replay_is_the_busiest_stretch_of_the_log_at_its_own_pace() {
        let rates = logged((0..3_600).map(|at| (at, if (1_000..1_600).contains(&at) { 4 } else { 1 })));
        let phases = replay(&rates, Replay::default()).unwrap();
        assert_eq!((lasts(&phases), phases.len()), (600_000, 120));
        assert!(phases.iter().all(|phase| phase.from == 4.0 && phase.to == 4.0), "{phases:?}");
    }

    #[test]
    fn a_replay_has_as_many_visits_as_the_log_times_its_factor() {
        let rates = logged((0..100).map(|at| (at, 1 + (at as u32 * 7) % 5)));
        let phases = replay(&rates, Replay { factor: 3.0, ..Replay::default() }).unwrap();
        let visits: f64 = phases.iter().map(|phase| phase.from * phase.lasts_ms as f64 / 1e3).sum();
        assert_eq!(lasts(&phases), 100_000);
        assert!((visits - 3.0 * rates.visits() as f64).abs() < 1e-6, "{visits}");
    }

    /// A log of months is counted by the quarter of an hour and more.
    #[test]
    fn a_replay_of_an_old_log_lasts_as_long_as_was_asked_for() {
        let rates = logged((0..20_000_000).step_by(1_000).map(|at| (at, 1)));
        assert!(rates.width_s() > 1_000, "{}", rates.width_s());
        for lasts_ms in [MINUTE_MS, LONGEST_MS] {
            let phases = replay(&rates, Replay { factor: 1.0, lasts_ms }).unwrap();
            assert_eq!(lasts(&phases), lasts_ms);
        }
    }

    #[test]
    fn an_empty_log_cannot_be_played_again_nor_by_a_factor_of_nothing() {
        assert_eq!(replay(&Rates::new(), Replay::default()), Err(Unplayable::NothingToReplay));
        for factor in [0.0, f64::NAN, 1_001.0] {
            let refused = replay(&logged([(0, 1)]), Replay { factor, ..Replay::default() });
            assert!(matches!(refused, Err(Unplayable::OutOfRange { what: "the factor", .. })), "{refused:?}");
        }
    }

    #[test]
    fn what_cannot_be_played_is_refused() {
        let reddit = preset("reddit").unwrap();
        for base in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(reddit.phases(&Known { base, capacity: None }, Pace::Rehearsal).is_err(), "{base}");
        }
        let high = Known { base: 7_000.0, capacity: None };
        let refused = preset("tv-ad").unwrap().phases(&high, Pace::Rehearsal).unwrap_err().to_string();
        assert_eq!(refused, "the peak, in visits per second, must be from more than 0 to 1000000");
        preset("tv-ad").unwrap().phases(&Known { base: 6_000.0, ..high }, Pace::Rehearsal).unwrap();
        for total_ms in [0, 59_999, u64::MAX] {
            assert!(reddit.phases(&USUAL, Pace::Within { total_ms }).is_err(), "{total_ms}");
        }
    }
}
