//! What a journey says at its top: stage by stage what it carried, what gave way, and whether the next stage gave what was
//! predicted of it.

use super::Table;
use super::words::{count, dash, duration_or_dash, rate};

/// A measured gain that is off from the predicted one by more is said to be.
const OFF: f64 = 0.2;

/// One stage of a journey.
#[derive(Debug, Clone, PartialEq)]
pub struct Leg {
    /// Such as `2 two zones`.
    pub stage: String,
    /// Such as `2 web, 1 primary, 1 standby`.
    pub shape: String,
    /// The most it carried within its service level objective, in requests per second. `None`: it kept it nowhere.
    pub capacity: Option<f64>,
    /// It was not seen to give way, so it may carry more.
    pub is_at_least: bool,
    /// At that rate.
    pub p99_us: Option<u64>,
    /// In a few words. `None`: nothing gave way.
    pub gave_way: Option<String>,
    /// How many times as much as the stage before it was said to carry.
    pub predicted_gain: Option<f64>,
    /// Requests that failed, the change to this stage included.
    pub failed: u64,
    /// Such as `31 € a month`. `None` for all: costs are not shown.
    pub cost: Option<String>,
}

/// A row for each stage.
pub fn table(legs: &[Leg]) -> Table {
    let with_cost = legs.iter().any(|leg| leg.cost.is_some());
    let head = [
        "stage",
        "shape",
        "capacity at SLO",
        "p99 there",
        "what gave way",
        "gain, predicted",
        "gain, measured",
        "failed",
    ];
    let mut head: Vec<String> = head.map(str::to_owned).to_vec();
    if with_cost {
        head.push("cost".to_owned());
    }
    let mut before = None;
    let mut rows = Vec::new();
    for leg in legs {
        let mut row = row(leg, before.and_then(|before| gain(before, leg)));
        if with_cost {
            row.push(leg.cost.clone().unwrap_or_else(dash));
        }
        rows.push(row);
        before = Some(leg);
    }
    let note = "Capacity is the most requests per second within the service level objective. A gain is how many times as \
                much as at the stage before: predicted before it was tried, and measured then.";
    Table { title: "Stage by stage".to_owned(), head, rows, note: Some(note.to_owned()) }
}

fn row(leg: &Leg, gain: Option<f64>) -> Vec<String> {
    let or_dash = |gain: Option<f64>| gain.map_or_else(dash, times);
    let at_least = if leg.is_at_least { "at least " } else { "" };
    vec![
        leg.stage.clone(),
        leg.shape.clone(),
        leg.capacity.map_or_else(dash, |capacity| format!("{at_least}{}/s", rate(capacity))),
        duration_or_dash(leg.p99_us),
        leg.gave_way.clone().unwrap_or_else(|| "nothing".to_owned()),
        or_dash(leg.predicted_gain),
        or_dash(gain),
        count(leg.failed),
    ]
}

/// How many times as much `now` carries as the stage before it. `None` where that cannot be said.
pub fn gain(before: &Leg, now: &Leg) -> Option<f64> {
    let gain = now.capacity? / before.capacity?;
    (gain.is_finite() && !before.is_at_least && !now.is_at_least).then_some(gain)
}

/// For each move what it was said to gain and what it gained, and whether that is far off.
pub fn moves(legs: &[Leg]) -> Vec<String> {
    legs.windows(2).map(|pair| a_move(&pair[0], &pair[1])).collect()
}

fn a_move(before: &Leg, now: &Leg) -> String {
    let name = format!("Stage {} to {}", before.stage, now.stage);
    let promised =
        now.predicted_gain.map_or_else(|| "no gain was".to_owned(), |gain| format!("{} was", times(gain)));
    let Some(measured) = gain(before, now) else {
        let unknown = [before, now].into_iter().find(|leg| leg.capacity.is_none() || leg.is_at_least);
        let stage = unknown
            .map_or_else(String::new, |leg| format!(", as what stage {} carries is not known", leg.stage));
        return format!("{name}: {promised} predicted, and none can be measured{stage}.");
    };
    let off = now.predicted_gain.map_or(0.0, |predicted| measured / predicted - 1.0);
    let judged = match off.abs() > OFF {
        true => format!(
            " That is {:.0} % {} than predicted, more than {:.0} % off.",
            off.abs() * 100.0,
            if off < 0.0 { "less" } else { "more" },
            OFF * 100.0
        ),
        false => String::new(),
    };
    format!("{name}: {promised} predicted, {} measured.{judged}", times(measured))
}

fn times(gain: f64) -> String {
    format!("{gain:.1} x")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(stage: &str, capacity: Option<f64>, predicted_gain: Option<f64>) -> Leg {
        Leg {
            stage: stage.to_owned(),
            shape: "1 web".to_owned(),
            capacity,
            is_at_least: false,
            p99_us: capacity.map(|_| 212_000),
            gave_way: capacity.map(|_| "web: processor".to_owned()),
            predicted_gain,
            failed: 0,
            cost: None,
        }
    }

    #[test]
    fn each_stage_is_compared_with_the_one_before_and_with_what_was_predicted() {
        let table = table(&[
            leg("1", Some(120.0), None),
            leg("2", Some(228.0), Some(2.0)),
            leg("3", None, None),
            leg("4", Some(900.0), None),
        ]);
        let columns = |row: &[String]| [2, 5, 6].map(|column| row[column].clone());
        let rows: Vec<_> = table.rows.iter().map(|row| columns(row)).collect();
        assert_eq!(rows[0], ["120/s", "–", "–"]);
        assert_eq!(rows[1], ["228/s", "2.0 x", "1.9 x"]);
        assert_eq!(rows[2], ["–", "–", "–"], "what kept its objective nowhere is not compared");
        assert_eq!(rows[3], ["900/s", "–", "–"]);
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
    }

    #[test]
    fn a_gain_that_is_off_by_more_than_a_fifth_is_said_to_be() {
        let of = |predicted, measured: f64| {
            moves(&[leg("1", Some(100.0), None), leg("2", Some(100.0 * measured), predicted)]).remove(0)
        };
        assert_eq!(of(Some(2.0), 1.8), "Stage 1 to 2: 2.0 x was predicted, 1.8 x measured.");
        assert_eq!(
            of(Some(2.0), 1.4),
            "Stage 1 to 2: 2.0 x was predicted, 1.4 x measured. That is 30 % less than predicted, more than 20 % off."
        );
        assert!(of(Some(2.0), 2.6).ends_with("That is 30 % more than predicted, more than 20 % off."));
        assert_eq!(of(None, 1.4), "Stage 1 to 2: no gain was predicted, 1.4 x measured.");
    }

    #[test]
    fn what_was_not_seen_to_give_way_is_at_least_that_and_not_compared() {
        let cut = Leg { is_at_least: true, ..leg("2", Some(150.0), Some(2.0)) };
        let legs = [leg("1", Some(100.0), None), cut, leg("3", Some(300.0), None)];
        let rows = table(&legs).rows;
        assert_eq!((rows[1][2].as_str(), rows[1][6].as_str()), ("at least 150/s", "–"));
        let [second, third] = &moves(&legs)[..] else { panic!("two moves") };
        assert_eq!(
            second,
            "Stage 1 to 2: 2.0 x was predicted, and none can be measured, as what stage 2 carries is not known."
        );
        assert!(third.ends_with("as what stage 2 carries is not known."), "{third}");
    }

    #[test]
    fn costs_stand_there_once_they_are_known() {
        let mut legs = [leg("1", None, None), leg("2", None, None)];
        assert!(!table(&legs).head.contains(&"cost".to_owned()));
        legs[1].cost = Some("62 € a month".to_owned());
        let table = table(&legs);
        let costs: Vec<_> = table.rows.iter().map(|row| row.last().unwrap().as_str()).collect();
        assert_eq!(costs, ["–", "62 € a month"]);
    }
}
