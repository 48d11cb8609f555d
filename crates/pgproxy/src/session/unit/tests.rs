use super::*;
use crate::horizon::Horizons;

const IDLE: TransactionStatus = TransactionStatus::Idle;
const IN_BLOCK: TransactionStatus = TransactionStatus::InBlock;

/// A request of one statement is sent.
fn send(unit: &mut Unit, kind: Kind) {
    unit.record(b"request");
    unit.note(kind);
    unit.request_sent();
}

fn answer(unit: &mut Unit, status: TransactionStatus) {
    unit.replied(b"reply");
    unit.request_answered(status);
}

fn in_block(kinds: &[Kind]) -> Unit {
    let mut unit = Unit::new();
    send(&mut unit, Kind::Begin);
    answer(&mut unit, IN_BLOCK);
    for &kind in kinds {
        send(&mut unit, kind);
        answer(&mut unit, IN_BLOCK);
    }
    unit
}

fn commit(unit: &mut Unit) -> Moment {
    let sent = Horizons::default().now();
    assert!(unit.wants_xid());
    unit.expect_xid(sent);
    send(unit, Kind::Commit);
    assert!(unit.is_committing());
    sent
}

#[test]
fn what_was_answered_outside_of_a_block_is_never_run_again() {
    let mut unit = Unit::new();
    send(&mut unit, Kind::Work);
    answer(&mut unit, IDLE);
    assert_eq!(unit.loss(true), Loss::Nothing);

    let mut unit = in_block(&[Kind::Work]);
    commit(&mut unit);
    unit.learn_xid(Xid::Is(7));
    answer(&mut unit, IDLE);
    assert_eq!(unit.loss(true), Loss::Nothing);

    // Two that were sent at once: the first is done, the second is all there is to run again.
    let mut unit = Unit::new();
    send(&mut unit, Kind::Read);
    send(&mut unit, Kind::Read);
    answer(&mut unit, IDLE);
    assert_eq!(unit.loss(true), Loss::Replay);
    let rewound = unit.rewind().unwrap();
    assert_eq!((&rewound.answered[..], &rewound.in_flight[..]), (&b""[..], &b"request"[..]));
}

#[test]
fn a_write_in_flight_without_a_block_is_unknown_unless_it_was_never_sent() {
    for kind in [Kind::Work, Kind::Opaque] {
        let mut unit = Unit::new();
        send(&mut unit, kind);
        assert_eq!(unit.loss(true), Loss::Unknown, "{kind:?}");
        assert_eq!(unit.loss(false), Loss::Replay, "{kind:?}");
    }
    // A BEGIN that may have been skipped protects nothing.
    let mut unit = Unit::new();
    send(&mut unit, Kind::Read);
    send(&mut unit, Kind::Begin);
    send(&mut unit, Kind::Work);
    assert_eq!(unit.loss(true), Loss::Unknown);
}

#[test]
fn a_block_is_replayed_until_its_commit_and_then_settled() {
    let mut unit = in_block(&[Kind::Work, Kind::Read]);
    assert_eq!(unit.loss(true), Loss::Replay);
    send(&mut unit, Kind::Work);
    assert_eq!(unit.loss(true), Loss::Replay);
    answer(&mut unit, IN_BLOCK);

    let sent = commit(&mut unit);
    assert_eq!(unit.loss(true), Loss::Replay, "the server did not get to the commit");
    unit.learn_xid(Xid::Is(7));
    assert_eq!(unit.loss(true), Loss::Settle { xid: 7, issued: Issued::before(sent) });
    unit.learn_xid(Xid::None);
    assert_eq!(unit.loss(true), Loss::Replay, "it had nothing to commit");
}

/// As `BEGIN; INSERT ...` in one Query: the block that it leaves open is committed by what comes later.
#[test]
fn the_commit_of_a_block_that_more_than_its_begin_has_opened_is_settled_and_never_replayed() {
    let opaque = |unit: &mut Unit| send(unit, Kind::Opaque);
    let pipelined = |unit: &mut Unit| {
        send(unit, Kind::Read);
        send(unit, Kind::Begin);
        send(unit, Kind::Work);
        answer(unit, IDLE);
        answer(unit, IN_BLOCK);
    };
    for open in [&opaque as &dyn Fn(&mut Unit), &pipelined] {
        let mut unit = Unit::new();
        open(&mut unit);
        answer(&mut unit, IN_BLOCK);
        let sent = commit(&mut unit);
        unit.learn_xid(Xid::Is(7));
        assert_eq!(unit.loss(true), Loss::Settle { xid: 7, issued: Issued::before(sent) });
        // Where it could not be asked for.
        let mut unit = Unit::new();
        open(&mut unit);
        answer(&mut unit, IN_BLOCK);
        send(&mut unit, Kind::Commit);
        assert_eq!(unit.loss(true), Loss::Unknown);
    }
}

/// As `COMMIT AND CHAIN`: the block is open, and what stands before is done.
#[test]
fn what_a_request_may_have_committed_is_not_run_again_with_the_block_behind_it() {
    let chain = |unit: &mut Unit| send(unit, Kind::Opaque);
    let in_one = |unit: &mut Unit| {
        unit.record(b"request");
        unit.note(Kind::Commit);
        unit.note(Kind::Begin);
        unit.request_sent();
    };
    for chained in [&chain as &dyn Fn(&mut Unit), &in_one] {
        let mut unit = in_block(&[Kind::Work]);
        chained(&mut unit);
        assert_eq!(unit.loss(true), Loss::Unknown);
        answer(&mut unit, IN_BLOCK);
        send(&mut unit, Kind::Work);
        assert_eq!(unit.loss(true), Loss::Failed);
        answer(&mut unit, IN_BLOCK);
        commit(&mut unit);
        unit.learn_xid(Xid::Is(7));
        assert!(matches!(unit.loss(true), Loss::Settle { xid: 7, .. }));
        answer(&mut unit, IDLE);
        // And the next is as any other.
        send(&mut unit, Kind::Begin);
        answer(&mut unit, IN_BLOCK);
        assert_eq!(unit.loss(true), Loss::Replay);
    }
}

#[test]
fn a_commit_that_is_followed_in_its_request_does_not_answer_for_all_of_it() {
    for kind in [Kind::Read, Kind::Work, Kind::Begin, Kind::Commit] {
        let mut unit = in_block(&[Kind::Work]);
        unit.expect_xid(Horizons::default().now());
        unit.record(b"request");
        unit.note(Kind::Commit);
        unit.note(kind);
        unit.request_sent();
        unit.learn_xid(Xid::Is(7));
        assert_eq!(unit.loss(true), Loss::Unknown, "{kind:?}");
        answer(&mut unit, IDLE);
        assert_eq!(unit.loss(true), Loss::Nothing);
    }
}

/// What its Sync commits is not committed before.
#[test]
fn a_write_without_a_block_is_replayed_until_its_id_is_known_and_then_settled() {
    let mut horizons = Horizons::default();
    let sent = horizons.now();
    let written = || {
        let mut unit = Unit::new();
        assert!(unit.can_write_until_sync());
        unit.record(b"request");
        unit.note_until_sync();
        assert_eq!(unit.loss(true), Loss::Replay);
        unit.expect_xid(sent);
        unit.request_sent();
        assert!(unit.is_committing());
        assert_eq!(unit.loss(true), Loss::Replay, "the server did not get to the Sync");
        unit.learn_xid(Xid::Is(7));
        unit
    };
    assert_eq!(written().loss(true), Loss::Settle { xid: 7, issued: Issued::before(sent) });
    // Another connection was begun before the id was known.
    let now = horizons.ask();
    for (is_alive, issued) in [(true, Issued::before(now)), (false, Issued { alive: sent, before: now })] {
        let mut unit = written();
        unit.issued_by(now, || is_alive);
        assert_eq!(unit.loss(true), Loss::Settle { xid: 7, issued });
    }
}

#[test]
fn a_write_that_shares_its_sync_with_what_may_commit_by_itself_is_unknown() {
    for kind in [Kind::Work, Kind::Begin, Kind::Commit, Kind::Rollback] {
        let mut unit = Unit::new();
        unit.record(b"request");
        unit.note_until_sync();
        unit.note(kind);
        assert!(!unit.writes_until_sync() && !unit.can_write_until_sync());
        assert_eq!(unit.loss(true), Loss::Unknown, "{kind:?}");
    }
}

#[test]
fn a_commit_that_nobody_asked_the_id_for_is_unknown_where_something_was_written() {
    let mut wrote = in_block(&[Kind::Work]);
    send(&mut wrote, Kind::Commit);
    assert_eq!(wrote.loss(true), Loss::Unknown);
    let mut read = in_block(&[Kind::Read]);
    send(&mut read, Kind::Commit);
    assert_eq!(read.loss(true), Loss::Replay);
}

#[test]
fn what_the_client_has_seen_a_part_of_or_what_is_too_long_fails() {
    let mut unit = in_block(&[]);
    send(&mut unit, Kind::Read);
    unit.replied(b"row");
    assert_eq!(unit.loss(true), Loss::Failed);
    assert!(unit.rewind().is_none());

    let many = [Kind::Work; MAX_REQUESTS];
    assert_eq!(in_block(&many).loss(true), Loss::Failed);
    let mut long = in_block(&[]);
    long.record(&[b'x'; MAX_REQUEST_BYTES]);
    assert_eq!(long.loss(true), Loss::Failed);
}

#[test]
fn a_replay_is_equal_only_when_every_byte_is() {
    let again = |reply: &[u8]| {
        let mut unit = Unit::new();
        send(&mut unit, Kind::Begin);
        answer(&mut unit, IN_BLOCK);
        send(&mut unit, Kind::Read);
        // However the bytes come.
        reply.chunks(2).for_each(|bytes| unit.replied(bytes));
        unit.request_answered(IN_BLOCK);
        unit
    };
    let rewound = again(b"same").rewind().unwrap();
    assert!(rewound.is_equal(&again(b"same")));
    assert!(!rewound.is_equal(&again(b"sane")));
    assert!(!rewound.is_equal(&again(b"same and more")));
}
