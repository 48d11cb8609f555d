//! What must hold whatever happens, in whatever order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::tests::{World, upstream};
use super::{CheckFailure, Cluster, Lease, Outcome, Pick};
use crate::status::Health;

#[derive(Debug, Clone)]
enum Event {
    Outcome(usize, Outcome),
    CheckFailed(usize, CheckFailure),
    CheckPassed(usize),
    Drain(usize, bool),
    Resize(usize),
    Pass(u64),
    Pick,
    Release,
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        Just(Outcome::Status(200)),
        Just(Outcome::Status(500)),
        Just(Outcome::Lost),
        Just(Outcome::ConnectFailed),
        Just(Outcome::TimedOut),
        Just(Outcome::ClientGone),
    ];
    let failure = prop_oneof![Just(CheckFailure::Failing), Just(CheckFailure::Unreachable)];
    prop_oneof![
        8 => (0..8usize, outcome).prop_map(|(endpoint, outcome)| Event::Outcome(endpoint, outcome)),
        2 => (0..8usize, failure).prop_map(|(endpoint, failure)| Event::CheckFailed(endpoint, failure)),
        1 => (0..8usize).prop_map(Event::CheckPassed),
        1 => (0..8usize, any::<bool>()).prop_map(|(endpoint, draining)| Event::Drain(endpoint, draining)),
        1 => (1..8usize).prop_map(Event::Resize),
        2 => (1..6_000u64).prop_map(Event::Pass),
        6 => Just(Event::Pick),
        3 => Just(Event::Release),
    ]
}

fn happen(world: &mut World, event: Event, held: &mut Vec<Lease>) {
    let count = world.upstream.endpoints.len();
    let id = |index: usize| format!("web-{}", index % count);
    match event {
        Event::Outcome(index, outcome) => world.suffer(&id(index), outcome, 5),
        Event::CheckFailed(index, failure) => {
            let endpoint = world.endpoint(&id(index));
            world.cluster.check_failed(&endpoint, failure, world.now);
        }
        Event::CheckPassed(index) => {
            let endpoint = world.endpoint(&id(index));
            world.cluster.check_passed(&endpoint, world.now);
        }
        Event::Drain(index, draining) => {
            world.reconfigure(|upstream| upstream.endpoints[index % count].draining = draining);
        }
        Event::Resize(size) => world.reconfigure(|changed| changed.endpoints = upstream(size).endpoints),
        Event::Pass(milliseconds) => world.pass(milliseconds),
        Event::Pick => {
            if let Pick::Endpoint(lease) = world.cluster.pick(world.now, &[]) {
                held.push(lease);
            }
        }
        Event::Release => drop(held.pop()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_half_of_the_endpoints_are_ejected(
        size in 1..8usize,
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::of(size);
        let mut held = Vec::new();
        for event in events {
            happen(&mut world, event, &mut held);
            let endpoints = world.cluster.endpoints();
            let now = world.cluster.clock.at(world.now);
            let configured = endpoints.iter().filter(|endpoint| !endpoint.is_removed());
            let ejected = configured.clone().filter(|endpoint| endpoint.is_ejected(now)).count();
            prop_assert!(ejected * 2 <= configured.count());
        }
    }

    #[test]
    fn a_draining_endpoint_is_never_picked_while_a_healthy_one_has_room(
        size in 1..8usize,
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::of(size);
        let mut held = Vec::new();
        for event in events {
            happen(&mut world, event, &mut held);
            let healthy = world.cluster.endpoints().iter().any(|endpoint| {
                let status = endpoint.status(world.now);
                !endpoint.is_removed() && !status.draining && status.health == Health::Healthy
            });
            if let Pick::Endpoint(lease) = world.cluster.pick(world.now, &[]) {
                prop_assert!(!lease.endpoint().is_removed());
                let draining = lease.endpoint().status(world.now).draining;
                prop_assert!(!(healthy && draining));
            } else {
                prop_assert!(!healthy);
            }
        }
    }

    #[test]
    fn in_flight_is_what_is_held(
        size in 1..8usize,
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::of(size);
        let mut held = Vec::new();
        for event in events {
            happen(&mut world, event, &mut held);
            let mut expected = BTreeMap::new();
            for lease in &held {
                *expected.entry(Arc::as_ptr(lease.endpoint())).or_insert(0u64) += 1;
            }
            for endpoint in world.cluster.endpoints() {
                let expected = expected.get(&Arc::as_ptr(&endpoint)).copied().unwrap_or(0);
                prop_assert_eq!(endpoint.in_flight(), expected);
            }
        }
    }

    #[test]
    fn equal_endpoints_carry_equal_load(size in 2..9usize, concurrency in 8..200usize, seed: u64) {
        fastrand::seed(seed);
        let world = World::of(size);
        let mut held = std::collections::VecDeque::new();
        for _ in 0..concurrency * 10 {
            held.push_back(world.pick());
            if held.len() > concurrency {
                held.pop_front();
            }
        }
        // Two choices bound the fullest; one choice would put twice the fair share and more on some.
        let fair = concurrency as f64 / size as f64;
        for endpoint in world.cluster.endpoints() {
            let most = fair * 1.3 + 6.0;
            prop_assert!((endpoint.in_flight() as f64) < most, "{} of {fair}", endpoint.in_flight());
        }
    }

    #[test]
    fn nobody_starves(weights in prop::collection::vec(20..1_000u16, 2..8), seed: u64) {
        fastrand::seed(seed);
        let mut upstream = upstream(weights.len());
        for (endpoint, weight) in upstream.endpoints.iter_mut().zip(&weights) {
            endpoint.weight = *weight;
        }
        let world = World::with(upstream);
        // One at a time: the case in which only chance can favour the light ones.
        for _ in 0..10_000 {
            world.pick().finish(Outcome::Status(200), Duration::ZERO, world.now);
        }
        for endpoint in world.cluster.endpoints() {
            prop_assert!(endpoint.status(world.now).requests_total > 0, "{}", endpoint.id());
        }
    }

    #[test]
    fn slow_start_never_takes_a_share_back(steps in prop::collection::vec(1..1_000u64, 1..40)) {
        let mut world = World::of(1);
        world.reconfigure(|changed| changed.endpoints = upstream(2).endpoints);
        let endpoint = world.endpoint("web-1");
        let slow_start = Duration::from_millis(world.upstream.slow_start_ms);
        let weight = |world: &World| endpoint.weight(100, world.cluster.clock.at(world.now), slow_start);
        let mut last = weight(&world);
        prop_assert_eq!(last, 10.0);
        for step in steps {
            world.pass(step);
            let next = weight(&world);
            prop_assert!(next >= last && next <= 100.0);
            last = next;
        }
        world.pass(5_000);
        prop_assert_eq!(weight(&world), 100.0);
    }

    #[test]
    fn an_overload_is_not_multiplied_by_retries(requests in 1..5_000u64, asks in 1..10_000u64) {
        let world = World::of(1);
        for _ in 0..requests {
            world.cluster.request_started(world.now);
        }
        let taken = (0..asks).filter(|_| world.cluster.retry_allowed(world.now)).count() as u64;
        prop_assert!(taken <= (requests / 5).max(10));
    }
}

/// Four threads pick, finish, drop and reconfigure at random: at the end nothing is in flight, meanwhile no endpoint
/// is ever over its limit, and after `idle` of a removed endpoint it has no request.
#[test]
fn in_flight_is_exact_and_bounded_under_threads() {
    const LIMIT: u32 = 8;
    let mut shape = upstream(4);
    shape.max_in_flight = LIMIT;
    let cluster = Cluster::new("web", &shape, None, Instant::now());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (cluster, over) = (&cluster, &over);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut held = Vec::new();
                for _ in 0..20_000 {
                    if random.bool()
                        && let Pick::Endpoint(lease) = cluster.pick(Instant::now(), &[])
                    {
                        if lease.endpoint().in_flight() > u64::from(LIMIT) {
                            over.store(true, Ordering::SeqCst);
                        }
                        held.push(lease);
                    } else if let Some(lease) = held.pop() {
                        lease.finish(Outcome::Status(200), Duration::ZERO, Instant::now());
                    }
                }
            });
        }
        let cluster = &cluster;
        scope.spawn(move || {
            for round in 0..500 {
                let mut shape = upstream(1 + round % 4);
                shape.max_in_flight = LIMIT;
                cluster.reconfigure(&shape, None, Instant::now());
            }
        });
    });
    assert!(!over.load(Ordering::SeqCst));
    for endpoint in cluster.endpoints() {
        assert_eq!(endpoint.in_flight(), 0);
    }
}

/// The promise that draining rests on: once an endpoint is out of the configuration and idle, no thread starts a
/// request there, however old the snapshot it is working from.
#[test]
fn no_request_starts_at_an_endpoint_that_was_removed_and_idle() {
    for round in 0..200 {
        let cluster = Cluster::new("web", &upstream(2), None, Instant::now());
        let leaving = cluster.endpoints().remove(1);
        let gone = AtomicBool::new(false);
        let late = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                fastrand::seed(round);
                for _ in 0..400 {
                    let was_gone = gone.load(Ordering::SeqCst);
                    if let Pick::Endpoint(lease) = cluster.pick(Instant::now(), &[])
                        && Arc::ptr_eq(lease.endpoint(), &leaving)
                        && (was_gone || gone.load(Ordering::SeqCst))
                    {
                        late.store(true, Ordering::SeqCst);
                    }
                }
            });
            scope.spawn(|| {
                cluster.reconfigure(&upstream(1), None, Instant::now());
                while leaving.in_flight() > 0 {
                    std::hint::spin_loop();
                }
                gone.store(true, Ordering::SeqCst);
            });
        });
        assert!(!late.load(Ordering::SeqCst));
    }
}
