//! The checker must be able to fail: each history here is wrong in one way, and is found to be wrong in that way alone.

use proptest::prelude::*;

use super::*;

/// An operation of client `process` from `invoked` to `completed`, in milliseconds. Steps: `a1` appends 1, `r1,2` reads
/// [1, 2], `r` reads an empty list, all of list 0; `x` before a step is another list, 9.
fn op(client: u32, invoked: u64, completed: u64, outcome: Outcome, steps: &str) -> Op {
    let steps = steps.split_whitespace().map(|step| {
        let (key, step) = step.strip_prefix('x').map_or((0, step), |step| (9, step));
        let (kind, rest) = step.split_at(1);
        let numbers = rest.split(',').filter(|number| !number.is_empty());
        let numbers: Vec<Value> = numbers.map(|number| number.parse().unwrap()).collect();
        if kind == "a" { Step::Append(key, numbers[0]) } else { Step::Read(key, Some(numbers)) }
    });
    let steps: Vec<Step> = steps.collect();
    let block = (steps.len() > 1).then_some(Isolation::RepeatableRead);
    Operation {
        client,
        process: client,
        invoked: Duration::from_millis(invoked),
        completed: Duration::from_millis(completed),
        outcome,
        error: None,
        act: Transaction { block, steps, by: Node::Primary },
    }
}

/// A read that a replica has answered.
fn on_replica(client: u32, invoked: u64, completed: u64, steps: &str) -> Op {
    let mut read = ok(client, invoked, completed, steps);
    read.act.by = Node::Replica;
    read
}

fn ok(client: u32, invoked: u64, completed: u64, steps: &str) -> Op {
    op(client, invoked, completed, Outcome::Ok, steps)
}

/// The kinds of what is found, with list 0 at the end as given, and list 9 as [1, 2].
fn check_to(history: &[Op], last: &[Value], reads: Reads) -> Vec<Kind> {
    let mut all = history.to_vec();
    let mut lists = BTreeMap::from([(0, last.to_vec())]);
    if history.iter().flat_map(appends).any(|(key, _)| key == 9) {
        lists.insert(9, vec![1, 2]);
    }
    if last.is_empty() {
        lists.remove(&0);
    }
    all.sort_by_key(|op| op.invoked);
    check(&all, &lists, reads).into_iter().map(|violation| violation.kind).collect()
}

fn kinds(history: &[Op], last: &[Value]) -> Vec<Kind> {
    check_to(history, last, Reads::Newest)
}

#[test]
fn a_history_in_order_is_found_to_be_so() {
    let history = [
        ok(0, 1, 2, "r"),
        ok(0, 3, 4, "a1"),
        ok(1, 5, 6, "r1"),
        ok(1, 7, 9, "a2 r1,2 a3 r1,2,3"),
        ok(0, 8, 9, "r1"),
        ok(0, 10, 11, "r1,2,3"),
    ];
    assert_eq!(kinds(&history, &[1, 2, 3]), []);
}

#[test]
fn what_nobody_said_may_be_there_or_not() {
    let history = [ok(0, 1, 2, "a1"), op(1, 3, 4, Outcome::Info, "a2"), ok(0, 5, 6, "a3")];
    assert_eq!(kinds(&history, &[1, 3]), []);
    assert_eq!(kinds(&history, &[1, 2, 3]), []);
    assert_eq!(kinds(&history, &[1, 3, 2]), [], "it may even happen later");
}

#[test]
fn a_lost_append_is_found() {
    assert_eq!(kinds(&[ok(0, 1, 2, "a1"), ok(0, 3, 4, "a2")], &[1]), [Kind::Lost]);
    assert_eq!(kinds(&[ok(0, 1, 2, "a1")], &[]), [Kind::Lost], "with its whole list");
}

#[test]
fn a_doubled_append_is_found() {
    assert_eq!(kinds(&[ok(0, 1, 2, "a1"), ok(0, 3, 4, "a2")], &[1, 2, 2]), [Kind::Doubled]);
    // Once before and once behind an append that came between.
    let found = kinds(&[ok(0, 1, 2, "a1"), ok(1, 3, 4, "a2")], &[1, 2, 1]);
    assert!(found.contains(&Kind::Doubled), "{found:?}");
}

#[test]
fn a_value_that_was_refused_or_that_nobody_wrote_is_found() {
    let refused = op(0, 1, 2, Outcome::Fail, "a1");
    assert_eq!(kinds(&[refused], &[1]), [Kind::Aborted]);
    assert_eq!(kinds(&[ok(0, 1, 2, "a1")], &[1, 7]), [Kind::Unknown]);
}

/// G1a: it was rolled back, and is not there at the end, and somebody has seen it.
#[test]
fn a_read_of_what_was_rolled_back_is_found() {
    let history = [ok(0, 1, 2, "a1"), op(1, 3, 4, Outcome::Fail, "a2"), ok(2, 3, 5, "r1,2")];
    assert_eq!(kinds(&history, &[1]), [Kind::Aborted]);
    let history = [ok(0, 1, 2, "a1"), ok(2, 3, 5, "r1,7")];
    assert_eq!(kinds(&history, &[1]), [Kind::Unknown]);
}

/// G1b: a transaction appended 1, then 2, and somebody has seen the 1 alone.
#[test]
fn a_read_in_the_middle_of_a_transaction_is_found() {
    let history = [ok(0, 1, 5, "a1 a2"), ok(1, 2, 3, "r1")];
    assert_eq!(kinds(&history, &[1, 2]), [Kind::Intermediate]);
    assert_eq!(kinds(&[ok(0, 1, 5, "a1 r1 a2 r1,2")], &[1, 2]), [], "its own eyes may see it");
    let history = [ok(0, 1, 5, "a1 xa1 a2 xa2"), ok(1, 2, 3, "xr1")];
    assert_eq!(kinds(&history, &[1, 2]), [Kind::Intermediate]);
}

/// Two primaries at once would make two lists of one beginning.
#[test]
fn a_read_that_is_no_beginning_of_the_last_list_is_found() {
    let history =
        [ok(0, 1, 2, "a1"), op(1, 3, 9, Outcome::Info, "a2"), ok(0, 3, 9, "a3"), ok(2, 4, 5, "r1,2")];
    assert_eq!(kinds(&history, &[1, 3]), [Kind::Fork]);
    assert_eq!(kinds(&history, &[1, 3, 2]), [Kind::Fork]);
    assert_eq!(kinds(&history, &[1, 2, 3]), []);
}

#[test]
fn a_stale_read_of_ones_own_is_found() {
    let history = [ok(0, 1, 2, "a1"), ok(0, 3, 4, "r")];
    assert_eq!(kinds(&history, &[1]), [Kind::StaleOwn, Kind::Stale]);
    assert_eq!(check_to(&history, &[1], Reads::Own), [Kind::StaleOwn]);
}

#[test]
fn a_stale_read_of_anothers_is_found_where_reads_must_be_newest() {
    let history = [ok(0, 1, 2, "a1"), ok(1, 3, 4, "r")];
    assert_eq!(kinds(&history, &[1]), [Kind::Stale]);
    assert_eq!(check_to(&history, &[1], Reads::Own), []);
    assert_eq!(
        kinds(&[ok(0, 1, 4, "a1"), ok(1, 3, 5, "r")], &[1]),
        [],
        "it began before the acknowledgement"
    );
    // Acknowledged out of order: the longest counts.
    let history = [ok(0, 1, 9, "a1"), ok(1, 2, 3, "a2"), ok(2, 4, 5, "r1")];
    assert_eq!(kinds(&history, &[1, 2]), [Kind::Stale]);
}

#[test]
fn a_client_that_sees_less_than_before_is_found() {
    let history = [op(0, 1, 9, Outcome::Info, "a1"), ok(1, 2, 3, "r1"), ok(1, 4, 5, "r")];
    assert_eq!(kinds(&history, &[1]), [Kind::Backwards]);
}

#[test]
fn a_replica_that_shows_less_than_anybody_was_shown_is_found() {
    let append = op(0, 1, 30, Outcome::Ok, "a1");
    for shown in [ok(1, 2, 3, "r1"), on_replica(1, 2, 3, "r1")] {
        let history = [append.clone(), shown, on_replica(2, 4, 5, "r")];
        assert_eq!(check_to(&history, &[1], Reads::Own), [Kind::Backwards]);
    }
    let at_once = [append.clone(), on_replica(1, 2, 5, "r1"), on_replica(2, 4, 6, "r")];
    assert_eq!(check_to(&at_once, &[1], Reads::Own), [], "it began before the other was shown it");
    // The primary shows it when the standby has it.
    let waits = [append, on_replica(1, 2, 3, "r1"), ok(1, 4, 5, "r")];
    assert_eq!(check_to(&waits, &[1], Reads::Own), []);
}

#[test]
fn a_write_before_one_that_was_acknowledged_before_it_began_is_found() {
    let history = [ok(0, 1, 2, "a1"), ok(1, 3, 4, "a2")];
    assert_eq!(kinds(&history, &[2, 1]), [Kind::Reordered]);
    assert_eq!(kinds(&[ok(0, 1, 3, "a1"), ok(1, 2, 4, "a2")], &[2, 1]), [], "they met");
}

#[test]
fn a_transaction_that_does_not_see_its_own_append_is_found() {
    assert_eq!(kinds(&[ok(0, 1, 2, "a1 r")], &[1]), [Kind::Internal]);
    assert_eq!(kinds(&[ok(0, 1, 2, "a1"), ok(1, 3, 4, "a2 r2")], &[1, 2]), [Kind::Fork]);
}

#[test]
fn a_transaction_that_sees_two_states_is_found_unless_it_may() {
    let history = [op(0, 1, 9, Outcome::Info, "a1"), ok(1, 2, 3, "r r1")];
    assert_eq!(kinds(&history, &[1]), [Kind::Unrepeatable]);
    let mut may = history;
    may[1].act.block = Some(Isolation::ReadCommitted);
    assert_eq!(kinds(&may, &[1]), []);
}

#[test]
fn what_was_refused_has_read_nothing() {
    let history = [ok(0, 1, 2, "a1"), op(0, 3, 4, Outcome::Fail, "r5"), op(0, 5, 6, Outcome::Info, "r5")];
    assert_eq!(kinds(&history, &[1]), []);
}

/// One after the other at one place, each taking some time around its instant.
fn serial(steps: &[(u32, u64, bool, Outcome)]) -> (Vec<Op>, Vec<Value>) {
    let (mut history, mut list, mut free) = (Vec::new(), Vec::new(), BTreeMap::new());
    let (mut next, mut instant) = (1, 10);
    for (client, width, append, outcome) in steps {
        // A client does one thing after the other, so it cannot have begun before its last one ended.
        let invoked = (instant - width).max(free.get(client).map_or(0, |end| end + 1));
        instant = instant.max(invoked) + 1;
        let completed = instant + width;
        let step = if *append {
            next += 1;
            if *outcome != Outcome::Fail {
                list.push(next - 1);
            }
            format!("a{}", next - 1)
        } else {
            format!("r{}", list.iter().map(Value::to_string).collect::<Vec<_>>().join(","))
        };
        history.push(op(*client, invoked, completed, *outcome, &step));
        free.insert(*client, completed);
    }
    (history, list)
}

fn some_steps() -> impl Strategy<Value = Vec<(u32, u64, bool, Outcome)>> {
    let outcome = prop_oneof![8 => Just(Outcome::Ok), 1 => Just(Outcome::Info), 1 => Just(Outcome::Fail)];
    prop::collection::vec((0..4u32, 0..10u64, any::<bool>(), outcome), 1..60)
}

proptest! {
    #[test]
    fn what_one_place_has_done_one_after_the_other_is_in_order(steps in some_steps()) {
        let (history, last) = serial(&steps);
        prop_assert_eq!(kinds(&history, &last), []);
    }

    #[test]
    fn taking_an_acknowledged_value_away_is_always_found(steps in some_steps(), which in any::<prop::sample::Index>()) {
        let (history, mut last) = serial(&steps);
        let acknowledged: Vec<Value> =
            history.iter().filter(|op| op.outcome == Outcome::Ok).flat_map(appends).map(|(_, value)| value).collect();
        prop_assume!(!acknowledged.is_empty());
        let gone = *which.get(&acknowledged);
        last.retain(|value| *value != gone);
        prop_assert!(kinds(&history, &last).contains(&Kind::Lost));
    }
}
