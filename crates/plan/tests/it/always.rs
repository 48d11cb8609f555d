//! What holds of every plan, over random graphs.

use std::collections::{BTreeMap, BTreeSet};

use model::{DatabaseRole, NodeId, Topology, Zone};
use plan::Action;
use proptest::prelude::*;

use crate::wish::{Wish, applied, backups, failed_over, id, plan_to, shape, words};

fn serving(world: &Topology) -> usize {
    world.instances.values().filter(|instance| instance.in_rotation).count()
}

fn wishes() -> impl Strategy<Value = Wish> {
    (
        1..=3_usize,
        1..=6_u32,
        any::<bool>(),
        prop_oneof![Just(None), (256..2048_u64).prop_map(Some)],
        1..4_u8,
        0..2_u8,
    )
        .prop_flat_map(|(zones, instances, database, memory_mb, release, env)| {
            let threads = prop_oneof![Just(None), (1..4_u16).prop_map(Some)];
            (1..=3_u8, threads, 0..3_u32, 0..3_u32).prop_map(
                move |(stage, threads, standbys, read_replicas)| Wish {
                    stage,
                    zones,
                    instances,
                    database,
                    memory_mb,
                    standbys,
                    read_replicas,
                    release,
                    env,
                    threads,
                    backups: backups(threads),
                    clients: u32::from(threads.unwrap_or(1)),
                    rehearsed: false,
                },
            )
        })
}

proptest! {
    #[test]
    fn planning_what_was_applied_yields_nothing(path in prop::collection::vec(wishes(), 1..5)) {
        let mut world = Topology::default();
        for wish in &path {
            world = applied(&world, &plan_to(&world, wish).unwrap());
            let again = plan_to(&world, wish).unwrap();
            prop_assert!(again.is_empty(), "{wish:?} planned again: {:?}", again.steps);
        }
    }

    #[test]
    fn how_an_app_is_rehearsed_is_no_part_of_any_plan(wish in wishes()) {
        let rehearsed = Wish { rehearsed: true, ..wish.clone() };
        let nothing = Topology::default();
        prop_assert_eq!(plan_to(&nothing, &rehearsed).unwrap().steps, plan_to(&nothing, &wish).unwrap().steps);
        let world = applied(&nothing, &plan_to(&nothing, &wish).unwrap());
        prop_assert!(plan_to(&world, &rehearsed).unwrap().is_empty());
    }

    #[test]
    fn after_a_failover_the_next_plan_leads_to_what_is_wished_for(
        from in wishes(),
        to in wishes(),
        follower in 0..4_usize,
    ) {
        let world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let world = failed_over(&world, follower);
        let world = applied(&world, &plan_to(&world, &to).unwrap());
        let again = plan_to(&world, &to).unwrap();
        prop_assert!(again.is_empty(), "planned again: {:?}", words(&again));
    }

    #[test]
    fn standbys_are_spread_over_the_zones_and_there_are_as_many_as_wished_for(
        from in wishes(),
        to in wishes(),
        follower in 0..4_usize,
    ) {
        let to = Wish { database: true, ..to };
        let world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let world = failed_over(&world, follower);
        let world = applied(&world, &plan_to(&world, &to).unwrap());
        for (role, wished) in
            [(DatabaseRole::Primary, 1), (DatabaseRole::Standby, to.standbys), (DatabaseRole::ReadReplica, to.read_replicas)]
        {
            let found = world.nodes.keys().filter(|node| world.role_of(node) == role).count();
            prop_assert_eq!(found as u32, wished, "{:?}", role);
        }
        let replica = |node: &NodeId| world.role_of(node) == DatabaseRole::ReadReplica;
        for replicas in [true, false] {
            let mut by_zone: BTreeMap<&Zone, u32> = world.zones.iter().map(|zone| (zone, 0)).collect();
            for node in world.nodes.values().filter(|node| replica(&node.id) == replicas) {
                *by_zone.get_mut(&node.zone).expect("a node outside the zones in use") += 1;
            }
            let (least, most) = (by_zone.values().min().unwrap(), by_zone.values().max().unwrap());
            prop_assert!(most - least <= 1, "{by_zone:?}");
        }
    }

    /// The database is never without a primary for longer than a step, and whoever leaves is followed no more.
    #[test]
    fn a_primary_hands_over_before_it_is_stopped_or_restarted(from in wishes(), to in wishes()) {
        let to = Wish { database: true, standbys: to.standbys.max(1), ..to };
        let mut world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let had_database = !world.nodes.is_empty();
        for step in plan_to(&world, &to).unwrap().steps {
            if let Action::ResizeNode { id, restart: true, .. } = &step.action {
                prop_assert_ne!(world.role_of(id), DatabaseRole::Primary);
            }
            step.action.apply(&mut world).unwrap();
            if had_database {
                prop_assert!(world.primary_of(&id("db")).is_some());
            }
        }
    }

    #[test]
    fn no_step_leaves_fewer_endpoints_than_before_or_after(from in wishes(), to in wishes()) {
        let mut world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let least = from.instances.min(to.instances) as usize;
        for step in plan_to(&world, &to).unwrap().steps {
            step.action.apply(&mut world).unwrap();
            prop_assert!(serving(&world) >= least, "{} left {}", step.action, serving(&world));
            let most = from.instances.max(to.instances) as usize + 1;
            prop_assert!(world.instances.len() <= most, "{} made {}", step.action, world.instances.len());
        }
    }

    #[test]
    fn zones_are_filled_evenly_and_no_port_is_given_twice(from in wishes(), to in wishes()) {
        let world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let world = applied(&world, &plan_to(&world, &to).unwrap());
        let mut by_zone: BTreeMap<&Zone, u32> = world.zones.iter().map(|zone| (zone, 0)).collect();
        for instance in world.instances.values() {
            *by_zone.get_mut(&instance.zone).expect("an instance outside the zones in use") += 1;
        }
        let (least, most) = (by_zone.values().min().unwrap(), by_zone.values().max().unwrap());
        prop_assert!(most - least <= 1, "{by_zone:?}");
        let mut ports: Vec<u16> = world.ports().collect();
        ports.sort_unstable();
        let unique: BTreeSet<u16> = ports.iter().copied().collect();
        prop_assert_eq!(ports.len(), unique.len());
        prop_assert!(!ports.contains(&0));
    }

    #[test]
    fn going_back_from_any_step_restores_what_stood(from in wishes(), to in wishes(), stop in 0..64_usize) {
        let start = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let plan = plan_to(&start, &to).unwrap();
        let done = &plan.steps[..stop.min(plan.steps.len())];
        let mut world = start.clone();
        for step in done {
            step.action.apply(&mut world).unwrap();
        }
        for step in done.iter().rev() {
            if let Some(inverse) = step.action.inverse() {
                inverse.apply(&mut world).unwrap();
            }
        }
        prop_assert_eq!(shape(&world), shape(&start));
    }

    #[test]
    fn there_are_never_two_primaries(path in prop::collection::vec(wishes(), 1..4)) {
        let mut world = Topology::default();
        for wish in &path {
            for step in plan_to(&world, wish).unwrap().steps {
                step.action.apply(&mut world).unwrap();
                let role = |node: &NodeId| world.role_of(node);
                let primaries = world.nodes.keys().filter(|node| role(node) == DatabaseRole::Primary).count();
                prop_assert_eq!(primaries, world.clusters.len());
            }
        }
    }
}
