//! Whose data is where: who hands over, who is kept, what is taken up.

use std::collections::{BTreeMap, BTreeSet};

use model::Topology;
use plan::{Action, FoundData, Interruption, PlanError};

use crate::wish::{
    STAGE_1, STAGE_2, STAGE_3, Wish, applied, failed_over, id, plan_destroying, plan_finding, plan_to, shape,
    words,
};

/// Otherwise the next change of anything would copy the database to put its nodes where they are missing.
#[test]
fn at_the_third_stage_a_failover_to_any_follower_leaves_nothing_to_plan() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_3).unwrap());
    for first in 0..3 {
        for second in 0..3 {
            let world = failed_over(&failed_over(&world, first), second);
            let plan = plan_to(&world, &STAGE_3).unwrap();
            assert!(plan.is_empty(), "{first}, then {second}: {:?}", words(&plan));
        }
    }
}

#[test]
fn with_a_standby_the_primary_hands_over_before_it_restarts() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let plan = plan_to(&world, &Wish { memory_mb: Some(1024), ..STAGE_2 }).unwrap();
    assert_eq!(
        words(&plan)[..3],
        [
            "restart db.2 to resize it: unlimited to 1GB",
            "switch over from db.1 to db.2",
            "restart db.1 to resize it: unlimited to 1GB",
        ]
    );
    assert!(matches!(plan.steps[1].interruption, Interruption::EstimatedMs(ms) if ms < 1_000));
    assert_eq!(plan.steps[2].interruption, Interruption::None);
}

#[test]
fn a_primary_in_a_zone_that_leaves_hands_over_first() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let world = failed_over(&world, 0);
    let back = plan_to(&world, &STAGE_1).unwrap();
    assert_eq!(
        words(&back),
        [
            "drain web.2",
            "stop web.2 (000000000001)",
            "switch over from db.2 to db.1",
            "remove db.2 and its copy",
            "use zone a",
        ]
    );
}

#[test]
fn a_database_that_left_the_manifest_is_kept_unless_it_is_named() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_1).unwrap());
    let without = Wish { database: false, ..STAGE_1 };
    let refused = plan_destroying(&world, &without, &BTreeSet::new());
    assert_eq!(refused, Err(PlanError::WouldDestroy(vec![id("db")])));

    let plan = plan_destroying(&world, &without, &BTreeSet::from([id("db")])).unwrap();
    assert!(matches!(plan.steps.last().unwrap().action, Action::DestroyNode { .. }), "{:?}", words(&plan));
    assert_eq!(
        plan_destroying(&world, &STAGE_1, &BTreeSet::from([id("db")])),
        Err(PlanError::NothingToDestroy(id("db")))
    );
}

#[test]
fn data_that_is_there_is_taken_up_and_followers_get_numbers_that_no_folder_bears() {
    let found = BTreeMap::from([(id("db"), FoundData { number: 2, spent: 3 })]);
    let plan = plan_finding(&Topology::default(), &STAGE_2, &BTreeSet::new(), &found).unwrap();
    let steps: Vec<String> = plan.steps.iter().map(|step| step.action.to_string()).collect();
    assert!(steps.iter().any(|step| step == "take up db.2 and its data in zone a"), "{steps:#?}");
    assert!(steps.iter().any(|step| step == "add db.4 as a standby in zone b"), "{steps:#?}");
    assert!(!steps.iter().any(|step| step.starts_with("create db")), "{steps:#?}");
    let mut world = applied(&Topology::default(), &plan);
    assert_eq!(world.primary_of(&id("db")).unwrap().id.number(), 2);
    assert!(plan_to(&world, &STAGE_2).unwrap().is_empty());
    for step in plan.steps.iter().rev() {
        if let Some(inverse) = step.action.inverse() {
            inverse.apply(&mut world).unwrap();
        }
    }
    assert_eq!(shape(&world), shape(&Topology::default()));
}
