//! What a journey says at its top: stage by stage what it carried, what gave way, and whether the next stage gave what was
//! predicted of it.

use super::Table;
use super::words::{count, dash, duration_or_dash, rate};

/// One stage of a journey.
#[derive(Debug, Clone, PartialEq)]
pub struct Leg {
    /// Such as `2 two zones`.
    pub stage: String,
    /// Such as `2 web, 1 primary, 1 standby`.
    pub shape: String,
    /// The most it carried within its service level objective, in requests per second. `None`: it kept it nowhere.
    pub capacity: Option<f64>,
    /// At that rate.
    pub p99_us: Option<u64>,
    /// In a few words. `None`: nothing gave way.
    pub gave_way: Option<String>,
    /// How many times as much the next stage was said to carry.
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
        "next, predicted",
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
        let mut row = row(leg, gain(before, leg.capacity));
        if with_cost {
            row.push(leg.cost.clone().unwrap_or_else(dash));
        }
        rows.push(row);
        before = leg.capacity;
    }
    let note = "Capacity is the most requests per second within the service level objective. A gain is how many times as \
                much as at the stage before: predicted before it was tried, and measured then.";
    Table { title: "Stage by stage".to_owned(), head, rows, note: Some(note.to_owned()) }
}

fn row(leg: &Leg, gain: Option<f64>) -> Vec<String> {
    let times = |gain: Option<f64>| gain.map_or_else(dash, |gain| format!("{gain:.1} x"));
    vec![
        leg.stage.clone(),
        leg.shape.clone(),
        leg.capacity.map_or_else(dash, |capacity| format!("{}/s", rate(capacity))),
        duration_or_dash(leg.p99_us),
        leg.gave_way.clone().unwrap_or_else(|| "nothing".to_owned()),
        times(leg.predicted_gain),
        times(gain),
        count(leg.failed),
    ]
}

/// `None` where one of them has no capacity to compare.
fn gain(before: Option<f64>, now: Option<f64>) -> Option<f64> {
    let gain = now? / before?;
    gain.is_finite().then_some(gain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(stage: &str, capacity: Option<f64>, predicted_gain: Option<f64>) -> Leg {
        Leg {
            stage: stage.to_owned(),
            shape: "1 web".to_owned(),
            capacity,
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
            leg("1", Some(120.0), Some(2.0)),
            leg("2", Some(228.0), None),
            leg("3", None, None),
            leg("4", Some(900.0), None),
        ]);
        let columns = |row: &[String]| [2, 5, 6].map(|column| row[column].clone());
        let rows: Vec<_> = table.rows.iter().map(|row| columns(row)).collect();
        assert_eq!(rows[0], ["120/s", "2.0 x", "–"]);
        assert_eq!(rows[1], ["228/s", "–", "1.9 x"]);
        assert_eq!(rows[2], ["–", "–", "–"], "what kept its objective nowhere is not compared");
        assert_eq!(rows[3], ["900/s", "–", "–"]);
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
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
