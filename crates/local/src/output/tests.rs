//! What is promised of logs: each line once, in order, whatever happens to the daemon; within bounds,
//! whatever the app does.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use telemetry::log::{LogRecord, Stream};
use tokio_util::sync::CancellationToken;

use super::tailed::{Holes, TRUNCATE_ABOVE};
use super::*;

struct Place {
    _dir: tempfile::TempDir,
    logs: Logs,
    begun: Instant,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::at(dir.path().join("logs"));
        Place { _dir: dir, logs, begun: Instant::now() }
    }

    fn tailer(&self) -> Tailer {
        self.tailer_within(Budget::default())
    }

    fn tailer_within(&self, budget: Budget) -> Tailer {
        Tailer::open(&self.logs, budget, self.begun).unwrap()
    }

    /// As a child appends.
    fn say(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.logs.files(name).unwrap().stdout;
        File::options().append(true).create(true).open(path).unwrap().write_all(bytes.as_ref()).unwrap();
    }

    /// `seconds` after the begin, on the wall clock too.
    fn look(&self, tailer: &mut Tailer, seconds: u64) {
        tailer.look(self.begun + Duration::from_secs(seconds), time(seconds)).unwrap();
    }

    fn read(&self, query: &Query) -> Vec<LogRecord> {
        let mut records = Vec::new();
        self.logs.read(query, |record| records.push(record)).unwrap();
        records
    }

    fn lines(&self) -> Vec<String> {
        self.read(&Query::default()).into_iter().map(|record| record.line).collect()
    }

    fn out_file(&self, name: &str) -> PathBuf {
        self.logs.files(name).unwrap().stdout
    }

    fn segments(&self) -> Vec<String> {
        store::segments(&self.logs.store()).unwrap()
    }
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds as i64).unwrap()
}

#[test]
fn lines_of_all_processes_are_merged_by_time_and_can_be_picked() {
    let place = Place::new();
    let mut tailer = place.tailer();
    place.say("web.1", "one\n");
    place.look(&mut tailer, 1);
    place.say("db.1", "two\r\n");
    place.look(&mut tailer, 2);
    place.say("web.2", b"three\xff");
    fs::write(place.logs.files("web.2").unwrap().stderr, "four\n").unwrap();
    place.look(&mut tailer, 3);
    place.say("web.1", "five\n");
    place.look(&mut tailer, 4);
    // `three` has no line end yet, so it is the last, from the file itself.
    assert_eq!(place.lines(), ["one", "two", "four", "five", "three\u{fffd}"]);

    let only = |names: &[&str]| Query { only: names.iter().map(|&n| n.into()).collect(), ..Query::default() };
    let web = place.read(&only(&["web"]));
    assert_eq!(
        web.iter().map(|r| r.instance.as_str()).collect::<Vec<_>>(),
        ["web.1", "web.2", "web.1", "web.2"]
    );
    assert_eq!((web[1].stream, web[1].time), (Stream::Stderr, time(3)));
    assert_eq!(place.read(&only(&["web.2", "db"])).len(), 3);
    let late = Query { since: Some(time(4)), only: vec!["web.1".to_owned()], ..Query::default() };
    assert_eq!(place.read(&late).len(), 1);
    let last = Query { limit: Some(2), ..Query::default() };
    assert_eq!(
        place.read(&last).iter().map(|r| r.line.as_str()).collect::<Vec<_>>(),
        ["five", "three\u{fffd}"]
    );
}

#[test]
fn lines_that_are_read_at_once_are_in_the_order_in_which_their_files_were_written() {
    let place = Place::new();
    let mut tailer = place.tailer();
    // Against the order of their names.
    for (seconds, name) in [(3, "db.1"), (1, "web.1"), (2, "edge.1")] {
        place.say(name, format!("{name}\n"));
        let file = File::options().append(true).open(place.out_file(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)).unwrap();
    }
    let expected = [("web.1", time(1)), ("edge.1", time(2)), ("db.1", time(3))];
    let said = || -> Vec<_> {
        place.read(&Query::default()).into_iter().map(|record| (record.line, record.time)).collect()
    };
    let expected = expected.map(|(line, time)| (line.to_owned(), time));
    assert_eq!(said(), expected, "before anybody has read them");
    place.look(&mut tailer, 10);
    assert_eq!(said(), expected);
}

#[test]
fn a_name_that_nobody_has_is_told_who_there_is() {
    let place = Place::new();
    let mut tailer = place.tailer();
    place.say("web.1", "one\n");
    place.say("db.1", "two\n");
    place.logs.close("db.1").unwrap();
    place.look(&mut tailer, 1);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for known in [&["web"][..], &["web.1", "db.1"], &["db"], &[]] {
        assert_eq!(place.logs.find_stranger(&names(known)).unwrap(), None, "{known:?}");
    }
    let stranger = place.logs.find_stranger(&names(&["web", "wbe"])).unwrap().unwrap();
    assert_eq!(stranger.name, "wbe");
    assert_eq!(Vec::from_iter(stranger.known), ["db", "db.1", "web", "web.1"]);
}

#[test]
fn a_daemon_killed_anywhere_loses_no_line_and_doubles_none() {
    let place = Place::new();
    let budget = Budget { segment_bytes: 4096, ..Budget::default() };
    let mut tailer = place.tailer_within(budget);
    let mut expected = Vec::new();
    // Any mix of looking, not looking, saying half a line, dying, dying in the middle of a write.
    for round in 0..400u64 {
        let dice = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        expected.push(format!("line {round}"));
        place.say("web.1", format!("line {round}"));
        if dice & 1 == 0 {
            place.look(&mut tailer, round);
        }
        place.say("web.1", "\n");
        if dice & 2 == 0 {
            place.look(&mut tailer, round);
        }
        if dice & 12 == 0 {
            drop(tailer);
            if let (16, Some(last)) = (dice & 16, place.segments().last()) {
                let mut segment = File::options().append(true).open(place.logs.store().join(last)).unwrap();
                segment.write_all(b"{\"time\":\"2026-01-0").unwrap();
            }
            assert_eq!(place.lines(), expected, "read without a daemon in round {round}");
            tailer = place.tailer_within(budget);
        }
    }
    place.look(&mut tailer, 1000);
    assert_eq!(place.lines(), expected);
    assert!(place.segments().len() > 3);
}

#[test]
fn a_lost_checkpoint_only_takes_longer() {
    let place = Place::new();
    let mut tailer = place.tailer();
    place.say("web.1", "one\ntwo\n");
    place.look(&mut tailer, 1);
    drop(tailer);
    fs::write(place.logs.store().join("offsets.json"), "{\"half").unwrap();
    let mut tailer = place.tailer();
    place.look(&mut tailer, 2);
    assert_eq!(place.lines(), ["one", "two"]);
}

#[test]
fn time_does_not_run_backwards_in_the_store_when_the_clock_does() {
    let place = Place::new();
    for (seconds, line) in [(5, "one\n"), (3, "two\n"), (6, "three\n")] {
        place.say("web.1", line);
        // A new daemon each time.
        let mut tailer = place.tailer();
        place.look(&mut tailer, seconds);
    }
    let times: Vec<_> = place.read(&Query::default()).into_iter().map(|record| record.time).collect();
    assert_eq!(times, [time(5), time(5), time(6)]);
}

#[test]
fn a_long_line_is_cut_and_marked_at_the_cut() {
    let place = Place::new();
    let mut tailer = place.tailer();
    place.say("web.1", "x".repeat(lines::MAX_LINE_BYTES + 10) + "\nshort\n");
    place.look(&mut tailer, 1);
    let lines = place.lines();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].ends_with("x…") && lines[0].len() <= lines::MAX_LINE_BYTES + 3);
    assert_eq!((lines[1].as_str(), lines[2].as_str()), ("…xxxxxxxxxx", "short"));
}

#[test]
fn what_was_read_is_given_back_to_the_disk() {
    let place = Place::new();
    let mut tailer = place.tailer();
    let path = place.out_file("web.1");
    place.say("web.1", "a line of some length, again and again\n".repeat(200_000));
    let before = fs::metadata(&path).unwrap();
    place.look(&mut tailer, 1);
    if tailer.holes == Holes::Unsupported {
        eprintln!("skipped: the temporary folder's file system makes no holes");
        return;
    }
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.len(), before.len());
    assert!(after.blocks() * 512 < 2 << 20, "{} bytes still held", after.blocks() * 512);
    place.say("web.1", "and on\n");
    place.look(&mut tailer, 2);
    assert_eq!(place.logs.last_lines("web.1", Timestamp::MIN, 1).unwrap()[0].line, "and on");
}

#[test]
fn without_holes_a_file_read_to_its_end_is_emptied_once_it_is_large() {
    let place = Place::new();
    let mut tailer = place.tailer();
    tailer.holes = Holes::Unsupported;
    let path = place.out_file("web.1");
    place.say("web.1", "small\n");
    place.look(&mut tailer, 1);
    assert_eq!(fs::metadata(&path).unwrap().len(), 6);
    place.say("web.1", "a line of some length, again and again\n".repeat(TRUNCATE_ABOVE as usize / 39 + 1));
    place.look(&mut tailer, 2);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    drop(tailer);
    let mut tailer = place.tailer();
    place.say("web.1", "and on\n");
    place.look(&mut tailer, 3);
    assert_eq!(place.logs.last_lines("web.1", Timestamp::MIN, 1).unwrap()[0].line, "and on");
}

#[test]
fn an_app_that_truncates_its_own_output_is_read_from_the_start() {
    let place = Place::new();
    let mut tailer = place.tailer();
    place.say("web.1", "long enough\n");
    place.look(&mut tailer, 1);
    fs::write(place.out_file("web.1"), "new\n").unwrap();
    place.look(&mut tailer, 2);
    assert_eq!(place.lines(), ["long enough", "new"]);
}

/// The flood is written by a real process, at whatever speed the machine has.
#[test]
fn a_flood_is_thinned_and_every_dropped_line_is_counted() {
    let place = Place::new();
    let budget = Budget { rate_bytes: 500_000, ..Budget::default() };
    let mut tailer = place.tailer_within(budget);
    place.say("web.1", "");
    place.look(&mut tailer, 0);
    let (burst_lines, more_lines) = (budget.burst_bytes() / 100, 300_000);
    let script = format!("yes \"$(printf %099d 7)\" | head -n {}", burst_lines + more_lines);
    let out = File::options().append(true).open(place.out_file("web.1")).unwrap();
    assert!(std::process::Command::new("sh").args(["-c", &script]).stdout(out).status().unwrap().success());
    place.look(&mut tailer, 0);
    place.say("web.1", "calm again\n");
    place.look(&mut tailer, 2);

    let (mut stored, mut dropped, mut last) = (0, 0, String::new());
    place
        .logs
        .read(&Query::default(), |record| {
            last = record.line;
            match last.strip_prefix("switchback: dropped ") {
                Some(text) => dropped += text.split(' ').next().unwrap().parse::<u64>().unwrap(),
                None => stored += 1,
            }
        })
        .unwrap();
    assert!(last.ends_with("lines of web.1 (output faster than 0.5 MB/s)"), "{last}");
    assert!(stored >= budget.burst_bytes() / 100 && dropped > 0);
    assert_eq!(stored + dropped, burst_lines + more_lines + 1);
}

#[test]
fn what_piled_up_while_no_daemon_ran_is_no_flood() {
    let place = Place::new();
    let budget = Budget { rate_bytes: 500_000, ..Budget::default() };
    let count = 2 * budget.burst_bytes() / 100;
    place.say("web.1", format!("{}\n", "7".repeat(99)).repeat(count as usize));
    let mut tailer = place.tailer_within(budget);
    place.look(&mut tailer, 1);
    let mut lines = 0;
    place.logs.read(&Query::default(), |_| lines += 1).unwrap();
    assert_eq!(lines, count);
}

#[test]
fn the_oldest_lines_go_first_when_the_budget_is_used_up() {
    let place = Place::new();
    let budget = Budget { total_bytes: 64 * 1024, segment_bytes: 8 * 1024, ..Budget::default() };
    let mut tailer = place.tailer_within(budget);
    for round in 0..2_000 {
        place.say("web.1", format!("{round}\n"));
        place.look(&mut tailer, round);
    }
    let names = place.segments();
    let size: u64 = names.iter().map(|name| fs::metadata(place.logs.store().join(name)).unwrap().len()).sum();
    assert!(size <= budget.total_bytes, "{size} bytes");
    assert!(size >= budget.total_bytes / 2, "{size} bytes");
    let lines = place.lines();
    assert_eq!(lines.last().unwrap(), "1999");
    let first: usize = lines[0].parse().unwrap();
    assert_eq!(lines.len(), 2_000 - first, "a gap in the middle");
    assert_eq!(place.read(&Query { limit: Some(300), ..Query::default() }).len(), 300);
}

#[test]
fn a_crashed_instance_is_quoted_to_its_last_byte_with_or_without_a_daemon() {
    let place = Place::new();
    place.say("web.1", "starting\nabout to fail\npanic: no line end");
    let last = |n| {
        let records = place.logs.last_lines("web.1", Timestamp::MIN, n).unwrap();
        records.into_iter().map(|record| record.line).collect::<Vec<_>>()
    };
    assert_eq!(last(2), ["about to fail", "panic: no line end"]);
    let mut tailer = place.tailer();
    place.look(&mut tailer, 1);
    assert_eq!(last(2), ["about to fail", "panic: no line end"]);
    assert_eq!(place.logs.last_lines("web.2", Timestamp::MIN, 5).unwrap(), []);

    place.logs.close("web.1").unwrap();
    place.look(&mut tailer, 2);
    assert_eq!(fs::read_dir(place.out_file("web.1").parent().unwrap()).unwrap().count(), 0);
    assert_eq!(last(5), ["starting", "about to fail", "panic: no line end"]);
}

#[test]
fn a_name_that_returns_begins_anew() {
    let place = Place::new();
    let mut tailer = place.tailer();
    place.say("job", "a long first run\n");
    place.logs.close("job").unwrap();
    place.look(&mut tailer, 1);
    place.say("job", "2nd\n");
    place.look(&mut tailer, 2);
    assert_eq!(place.lines(), ["a long first run", "2nd"]);
}

#[test]
fn what_another_process_of_the_same_name_said_before_is_not_quoted() {
    let place = Place::new();
    let mut tailer = place.tailer();
    place.say("web.1", "no SECRET_KEY\n");
    place.look(&mut tailer, 1);
    let said = || {
        let records = place.logs.last_lines("web.1", time(2), 5).unwrap();
        records.into_iter().map(|record| record.line).collect::<Vec<_>>()
    };
    assert_eq!(said(), Vec::<String>::new());
    place.say("web.1", "port in use\n");
    place.look(&mut tailer, 3);
    assert_eq!(said(), ["port in use"]);
}

#[tokio::test]
async fn following_gets_each_line_as_it_is_said() {
    let place = Place::new();
    place.say("web.1", "before\n");
    let shutdown = CancellationToken::new();
    let tailer = tokio::spawn(place.tailer().run(shutdown.clone()));
    let query = Query { only: vec!["web".to_owned()], ..Query::default() };
    let mut follow = place.logs.follow(query).unwrap();
    let talk = async {
        let mut lines = Vec::new();
        for round in 0..3 {
            place.say("db.1", "not asked for\n");
            place.say("web.1", format!("{round}\n"));
            while lines.last() != Some(&round.to_string()) {
                lines.push(follow.next().await.unwrap().line);
            }
        }
        lines
    };
    let lines = tokio::time::timeout(Duration::from_secs(20), talk).await.unwrap();
    let asked_for: Vec<_> = lines.iter().filter(|line| *line != "before").collect();
    assert_eq!(asked_for, ["0", "1", "2"]);

    // Cancelled, it looks once more before it ends.
    place.say("web.1", "last words\n");
    shutdown.cancel();
    tailer.await.unwrap();
    let stored = fs::read_to_string(place.logs.store().join(place.segments().last().unwrap())).unwrap();
    assert!(stored.contains("last words"));
}
