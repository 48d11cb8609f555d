//! A database that is brought back.

use model::{AppName, RecoveryTarget};
use plan::{Action, Restore, follow_again, restore};

use crate::wish::{STAGE_1, STAGE_2, applied, failed_over, id, reached, words};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

#[test]
fn a_restored_primary_takes_the_place_of_the_old_one_and_gets_as_many_followers() {
    let db = id("db");
    let before = failed_over(&reached(&STAGE_2), 0);
    let wished =
        Restore { cluster: db.clone(), backup: 4, timeline: 2, to: RecoveryTarget::Latest, from: None };
    let plan = restore(&shop(), &before, 7, &wished).unwrap();
    assert!(matches!(plan.steps.last().unwrap().action, Action::ReplacePrimary { .. }), "{:?}", words(&plan));
    let after = applied(&before, &plan);
    let primary = after.primary_of(&db).unwrap();
    assert_eq!((primary.id.number(), after.nodes.len()), (3, 1));
    assert_eq!(primary.zone, before.primary_of(&db).unwrap().zone);
    assert!(after.clusters[&db].epoch > before.clusters[&db].epoch);

    let wanted: Vec<_> =
        before.followers_of(&db).map(|node| (node.zone.clone(), before.role_of(&node.id))).collect();
    let again = follow_again(&shop(), &after, 8, &db, &wanted).unwrap();
    let followed = applied(&after, &again);
    let followers: Vec<u32> = followed.followers_of(&db).map(|node| node.id.number()).collect();
    assert_eq!(followers, [4], "numbers are never given twice");
}

#[test]
fn a_restore_that_is_taken_back_leaves_the_old_primary() {
    let db = id("db");
    let before = reached(&STAGE_1);
    let wished =
        Restore { cluster: db.clone(), backup: 4, timeline: 1, to: RecoveryTarget::Latest, from: None };
    let plan = restore(&shop(), &before, 7, &wished).unwrap();
    let mut world = applied(&before, &plan);
    for step in plan.steps.iter().rev() {
        step.action.inverse().unwrap().apply(&mut world).unwrap();
    }
    assert_eq!(world.nodes, before.nodes);
    assert_eq!(world.primary_of(&db), before.primary_of(&db));
}
