//! The moves people make: up, from stage to stage, another release, another size.

use model::Topology;
use plan::{Action, Interruption};

use crate::wish::{STAGE_1, STAGE_2, STAGE_3, Wish, applied, id, plan_to, words};

#[test]
fn the_first_plan_brings_up_what_others_need_first() {
    let plan = plan_to(&Topology::default(), &STAGE_1).unwrap();
    assert_eq!(
        words(&plan),
        [
            "use zone a",
            "create db.1 in zone a",
            "open db on port 20000",
            "open edge on 127.0.0.1:20001",
            "run the release command of 000000000001",
            "start web.1 (000000000001) in zone a",
            "send traffic to web.1",
            "web serves 000000000001",
        ]
    );
}

#[test]
fn the_second_stage_adds_a_standby_and_an_instance_in_the_second_zone_and_touches_nothing_else() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_1).unwrap());
    let plan = plan_to(&world, &STAGE_2).unwrap();
    assert_eq!(
        words(&plan),
        [
            "use zones a, b",
            "add db.2 as a standby in zone b",
            "start web.2 (000000000001) in zone b",
            "send traffic to web.2",
            "stand at stage 2",
        ]
    );
    let world = applied(&world, &plan);
    let back = plan_to(&world, &STAGE_1).unwrap();
    assert_eq!(
        words(&back),
        ["drain web.2", "stop web.2 (000000000001)", "remove db.2 and its copy", "use zone a"]
    );
}

#[test]
fn the_third_stage_adds_a_read_replica_and_an_instance_in_each_zone_and_touches_nothing_else() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let plan = plan_to(&world, &STAGE_3).unwrap();
    assert_eq!(
        words(&plan),
        [
            "add db.3 as a read replica in zone a",
            "add db.4 as a read replica in zone b",
            "start web.3 (000000000001) in zone a",
            "send traffic to web.3",
            "start web.4 (000000000001) in zone b",
            "send traffic to web.4",
            "stand at stage 3",
        ]
    );
    assert!(plan.steps.iter().all(|step| step.interruption == Interruption::None));
    let world = applied(&world, &plan);
    let back = plan_to(&world, &STAGE_2).unwrap();
    assert_eq!(
        words(&back),
        [
            "drain web.3",
            "stop web.3 (000000000001)",
            "drain web.4",
            "stop web.4 (000000000001)",
            "remove db.3 and its copy",
            "remove db.4 and its copy",
            "stand at stage 2",
        ]
    );
}

#[test]
fn a_new_release_is_compared_before_the_second_old_instance_leaves() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let plan = plan_to(&world, &Wish { release: 2, ..STAGE_2 }).unwrap();
    assert_eq!(
        words(&plan),
        [
            "run the release command of 000000000002",
            "start web.3 (000000000002) in zone a",
            "send traffic to web.3",
            "compare web.3 with the old release for 5 s",
            "drain web.1",
            "stop web.1 (000000000001)",
            "start web.4 (000000000002) in zone b",
            "send traffic to web.4",
            "drain web.2",
            "stop web.2 (000000000001)",
            "web serves 000000000002",
        ]
    );
}

#[test]
fn a_release_command_is_not_run_again_when_going_back() {
    let mut world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_1).unwrap());
    world = applied(&world, &plan_to(&world, &Wish { release: 2, ..STAGE_1 }).unwrap());
    let back = plan_to(&world, &STAGE_1).unwrap();
    assert!(!back.steps.iter().any(|step| matches!(step.action, Action::RunReleaseCommand { .. })));
}

#[test]
fn another_pool_is_taken_live_and_taken_back() {
    let standing = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let plan = plan_to(&standing, &Wish { clients: 50, ..STAGE_2 }).unwrap();
    assert_eq!(words(&plan), ["reconfigure the pool of db live"]);
    let changed = applied(&standing, &plan);
    assert_eq!(changed.proxies[&id("db")].pool.clients, 50);
    let back = plan.steps[0].action.inverse().unwrap();
    let mut world = changed;
    back.apply(&mut world).unwrap();
    assert_eq!(world, standing);
}

#[test]
fn more_cpu_is_live_and_more_database_memory_says_what_it_costs() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_1).unwrap());
    let plan = plan_to(&world, &Wish { memory_mb: Some(1024), ..STAGE_1 }).unwrap();
    assert_eq!(
        words(&plan),
        ["restart db.1 to resize it: unlimited to 1GB", "resize web.1 live: unlimited to 1GB"]
    );
    assert!(matches!(plan.steps[0].interruption, Interruption::EstimatedMs(ms) if ms > 0));
    assert_eq!(plan.steps[1].interruption, Interruption::None);
}

#[test]
fn a_step_refuses_a_topology_it_was_not_planned_for() {
    let plan = plan_to(&Topology::default(), &STAGE_1).unwrap();
    let mut world = applied(&Topology::default(), &plan);
    let before = world.clone();
    for step in &plan.steps {
        if !matches!(step.action, Action::RunReleaseCommand { .. }) {
            assert!(step.action.apply(&mut world).is_err(), "{} was taken twice", step.action);
        }
    }
    assert_eq!(world, before);
}
