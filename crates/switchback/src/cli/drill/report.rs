//! What clients saw of a drill, said; and what of that it should not have cost them.

use model::counted;
use serde::Serialize;

use super::Drill;
use crate::cli::load::Seen;
use crate::cli::probe::SeenOfDatabase;
use crate::cli::say::{self, GREEN, Problem, RED, Stream, paint};

/// What happened.
#[derive(Debug, Serialize)]
pub struct Report {
    pub drill: String,
    pub broke: String,
    pub seen: Seen,
    /// Of an app with a database: what its clients saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<SeenOfDatabase>,
    /// Of `daemon-crash`: from SIGKILL until the next daemon had taken every process over, none of which was restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted_ms: Option<u64>,
    /// Until everything was ready again.
    pub recovered_ms: Option<u64>,
    pub notes: Vec<String>,
}

impl Report {
    /// What clients saw that a drill is not there to cost them, in words; nothing where all is well.
    pub fn cost(&self, drill: Drill) -> Vec<String> {
        // PostgreSQL itself refuses what a full disk cannot hold, and an app passes that on. It may lose nothing by it.
        let may_fail = drill == Drill::PrimaryDiskFull;
        let none = SeenOfDatabase::default();
        let database = self.database.as_ref().unwrap_or(&none);
        let figures = [
            ("failed requests", if may_fail { 0 } else { self.seen.failed }),
            ("failed reads and writes of the database", if may_fail { 0 } else { database.failed }),
            ("lost writes", database.lost),
            ("writes done twice", database.doubled),
            ("own writes not seen", database.stale),
        ];
        figures
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{what}: {count}"))
            .collect()
    }

    pub fn print(&self, as_json: bool) -> Result<(), Problem> {
        if as_json {
            return say::json(self);
        }
        let seen = &self.seen;
        let style = if seen.failed == 0 { GREEN } else { RED };
        let mut text = format!("{}: {}\n", self.drill, self.broke);
        let clients =
            format!("clients saw {} failed of {}", seen.failed, counted(seen.requests as usize, "request"));
        text.push_str(&format!(
            "{}, the longest took {} ms\n",
            paint(Stream::Out, style, &clients),
            seen.longest_ms
        ));
        for failure in &seen.failures {
            text.push_str(&format!("  {failure}\n"));
        }
        if let Some(database) = &self.database {
            text.push_str(&told(database));
        }
        if let Some(ms) = self.adopted_ms {
            text.push_str(&format!("every process was taken over after {ms} ms, none was restarted\n"));
        }
        match self.recovered_ms {
            Some(ms) => text.push_str(&format!("everything was ready again after {ms} ms\n")),
            None => text.push_str("not everything became ready again\n"),
        }
        for note in &self.notes {
            text.push_str(&format!("{note}\n"));
        }
        say::data(&text)
    }
}

fn told(seen: &SeenOfDatabase) -> String {
    let style = if seen.is_flawless() { GREEN } else { RED };
    let saw = format!(
        "clients of the database saw {} failed of {} reads and {} writes, {} acknowledged writes lost, {} done twice, \
         {} own writes not seen",
        seen.failed, seen.reads, seen.writes, seen.lost, seen.doubled, seen.stale
    );
    let mut text = format!("{}, the longest took {} ms\n", paint(Stream::Out, style, &saw), seen.longest_ms);
    for failure in &seen.failures {
        text.push_str(&format!("  {failure}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(failed: u64, database: SeenOfDatabase) -> Report {
        Report {
            drill: String::new(),
            broke: String::new(),
            seen: Seen { failed, ..Seen::default() },
            database: Some(database),
            adopted_ms: None,
            recovered_ms: Some(1),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_drill_may_cost_clients_nothing_but_what_a_full_disk_refuses() {
        let flawless = report(0, SeenOfDatabase::default());
        assert_eq!(flawless.cost(Drill::PrimaryCrash), Vec::<String>::new());
        let refused = report(1, SeenOfDatabase { failed: 2, ..SeenOfDatabase::default() });
        let said = ["failed requests: 1", "failed reads and writes of the database: 2"];
        assert_eq!(refused.cost(Drill::PrimaryCrash), said);
        assert_eq!(refused.cost(Drill::PrimaryDiskFull), Vec::<String>::new());
        for lost in [
            SeenOfDatabase { lost: 1, ..SeenOfDatabase::default() },
            SeenOfDatabase { doubled: 1, ..SeenOfDatabase::default() },
            SeenOfDatabase { stale: 1, ..SeenOfDatabase::default() },
        ] {
            assert_eq!(report(0, lost).cost(Drill::PrimaryDiskFull).len(), 1);
        }
    }
}
