//! The behaviours of a cluster, one by one, in simulated time.

use super::*;
use crate::status::Health;

/// A cluster and the time it believes in.
pub(super) struct World {
    pub(super) cluster: Arc<Cluster>,
    pub(super) upstream: config::Upstream,
    pub(super) now: Instant,
    zone: Option<&'static str>,
}

impl World {
    pub(super) fn of(endpoints: usize) -> World {
        World::with(upstream(endpoints))
    }

    pub(super) fn with(upstream: config::Upstream) -> World {
        World::in_zone(None, upstream)
    }

    fn in_zone(zone: Option<&'static str>, upstream: config::Upstream) -> World {
        let now = Instant::now();
        let cluster = Cluster::new("web", &upstream, zone, now);
        World { cluster, upstream, now, zone }
    }

    pub(super) fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    pub(super) fn reconfigure(&mut self, change: impl FnOnce(&mut config::Upstream)) {
        change(&mut self.upstream);
        self.cluster.reconfigure(&self.upstream, self.zone, self.now);
    }

    pub(super) fn endpoint(&self, id: &str) -> Arc<Endpoint> {
        let endpoints = self.cluster.endpoints();
        endpoints.into_iter().find(|endpoint| endpoint.id() == id).unwrap()
    }

    pub(super) fn pick(&self) -> Lease {
        match self.cluster.pick(self.now, &[]) {
            Pick::Endpoint(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    /// The id of a pick that ends at once and well.
    fn picked(&self) -> String {
        let lease = self.pick();
        let id = lease.endpoint().id().to_owned();
        lease.finish(Outcome::Status(200), Duration::from_millis(1), self.now);
        id
    }

    pub(super) fn share_of(&self, id: &str, picks: usize) -> f64 {
        (0..picks).filter(|_| self.picked() == id).count() as f64 / picks as f64
    }

    /// Ends requests at one endpoint with this outcome, whatever balancing would say.
    pub(super) fn suffer(&self, id: &str, outcome: Outcome, times: usize) {
        let endpoint = self.endpoint(id);
        for _ in 0..times {
            assert!(endpoint.enter(u32::MAX));
            Lease::new(Arc::clone(&endpoint)).finish(outcome, Duration::ZERO, self.now);
        }
    }

    pub(super) fn health(&self, id: &str) -> Health {
        self.endpoint(id).status(self.now).health
    }

    fn fail_checks(&self, id: &str, failure: CheckFailure) {
        for _ in 0..self.upstream.health.unhealthy_threshold {
            self.cluster.check_failed(&self.endpoint(id), failure, self.now);
        }
    }

    fn pass_checks(&self, id: &str) {
        for _ in 0..self.upstream.health.healthy_threshold {
            self.cluster.check_passed(&self.endpoint(id), self.now);
        }
    }
}

pub(super) fn upstream(endpoints: usize) -> config::Upstream {
    let endpoints: Vec<_> = (0..endpoints)
        .map(|index| {
            let address = format!("127.0.0.1:{}", 9000 + index);
            serde_json::json!({ "id": format!("web-{index}"), "address": address })
        })
        .collect();
    serde_json::from_value(serde_json::json!({ "protocol": "http1", "endpoints": endpoints })).unwrap()
}

#[test]
fn a_draining_endpoint_is_not_picked_while_another_serves() {
    let mut world = World::of(2);
    world.reconfigure(|upstream| upstream.endpoints[0].draining = true);
    assert_eq!(world.share_of("web-0", 200), 0.0);
}

#[test]
fn a_draining_endpoint_is_better_than_none() {
    let mut world = World::of(2);
    world.reconfigure(|upstream| upstream.endpoints[0].draining = true);
    world.fail_checks("web-1", CheckFailure::Unreachable);
    assert_eq!(world.picked(), "web-0");
}

#[test]
fn an_endpoint_with_all_its_places_taken_is_not_picked() {
    let mut world = World::of(2);
    world.reconfigure(|upstream| upstream.max_in_flight = 1);
    let (first, second) = (world.pick(), world.pick());
    assert_ne!(first.endpoint().id(), second.endpoint().id());
    assert!(matches!(world.cluster.pick(world.now, &[]), Pick::Full));
    drop(first);
    assert!(matches!(world.cluster.pick(world.now, &[]), Pick::Endpoint(_)));
}

#[test]
fn a_request_that_lasts_is_in_flight_and_neither_takes_a_place_nor_counts_as_load() {
    let mut world = World::of(2);
    world.reconfigure(|upstream| upstream.max_in_flight = 1);
    let upgraded = world.pick();
    let lasting = upgraded.lasts();
    let (first, second) = (world.pick(), world.pick());
    assert_ne!(first.endpoint().id(), second.endpoint().id());
    assert!(matches!(world.cluster.pick(world.now, &[]), Pick::Full));
    assert_eq!(upgraded.endpoint().in_flight(), 2);
    drop((first, second, lasting));
    assert_ne!(world.picked(), upgraded.endpoint().id());
}

#[test]
fn a_full_but_ready_endpoint_keeps_traffic_away_from_failing_ones() {
    let mut world = World::of(3);
    world.reconfigure(|upstream| upstream.max_in_flight = 1);
    world.fail_checks("web-2", CheckFailure::Failing);
    let _held = (world.pick(), world.pick());
    assert!(matches!(world.cluster.pick(world.now, &[]), Pick::Full));
}

#[test]
fn a_retry_never_goes_to_an_endpoint_that_was_tried() {
    let world = World::of(2);
    let tried = [world.endpoint("web-0")];
    for _ in 0..100 {
        let Pick::Endpoint(lease) = world.cluster.pick(world.now, &tried) else {
            panic!("web-1 is ready");
        };
        assert_eq!(lease.endpoint().id(), "web-1");
    }
    let all = world.cluster.endpoints();
    assert!(matches!(world.cluster.pick(world.now, &all), Pick::None));
}

#[test]
fn after_a_failed_connect_the_endpoint_is_left_out_until_a_second_has_passed() {
    let mut world = World::of(1);
    world.suffer("web-0", Outcome::ConnectFailed, 1);
    assert!(matches!(world.cluster.pick(world.now, &[]), Pick::None));
    world.pass(1_000);
    assert_eq!(world.picked(), "web-0");
}

#[test]
fn an_unreachable_endpoint_is_tried_again_as_soon_as_a_check_passes() {
    let world = World::of(1);
    world.suffer("web-0", Outcome::ConnectFailed, 1);
    world.cluster.check_passed(&world.endpoint("web-0"), world.now);
    assert_eq!(world.picked(), "web-0");
}

#[test]
fn failing_checks_take_an_endpoint_out_and_passing_ones_bring_it_back() {
    let world = World::of(3);
    world.fail_checks("web-0", CheckFailure::Failing);
    assert_eq!(world.health("web-0"), Health::Unhealthy);
    assert_eq!(world.share_of("web-0", 200), 0.0);
    world.pass_checks("web-0");
    assert_eq!(world.health("web-0"), Health::Healthy);
    assert!(world.share_of("web-0", 1_000) > 0.0);
}

#[test]
fn one_failed_check_changes_nothing() {
    let world = World::of(2);
    world.cluster.check_failed(&world.endpoint("web-0"), CheckFailure::Failing, world.now);
    assert_eq!(world.health("web-0"), Health::Healthy);
}

#[test]
fn when_most_checks_fail_they_are_not_believed() {
    let world = World::of(3);
    world.fail_checks("web-0", CheckFailure::Failing);
    world.fail_checks("web-1", CheckFailure::Failing);
    for id in ["web-0", "web-1", "web-2"] {
        assert!(world.share_of(id, 1_000) > 0.2, "{id}");
    }
}

#[test]
fn when_most_checks_fail_because_nobody_listens_the_rest_serves() {
    let world = World::of(3);
    world.fail_checks("web-0", CheckFailure::Unreachable);
    world.fail_checks("web-1", CheckFailure::Unreachable);
    assert_eq!(world.share_of("web-2", 200), 1.0);
}

#[test]
fn failures_in_a_row_eject_and_the_endpoint_returns_slowly() {
    let mut world = World::of(4);
    world.suffer("web-0", Outcome::Lost, 5);
    assert_eq!(world.health("web-0"), Health::Ejected);
    assert_eq!(world.share_of("web-0", 200), 0.0);
    world.pass(5_000);
    assert_eq!(world.health("web-0"), Health::Healthy);
    let begin = world.share_of("web-0", 4_000);
    assert!(begin > 0.0 && begin < 0.12, "{begin}");
    world.pass(5_000);
    assert!(world.share_of("web-0", 4_000) > 0.2);
}

#[test]
fn an_answer_between_failures_prevents_the_ejection() {
    let world = World::of(4);
    world.suffer("web-0", Outcome::Lost, 4);
    world.suffer("web-0", Outcome::Status(500), 1);
    world.suffer("web-0", Outcome::Lost, 4);
    assert_eq!(world.health("web-0"), Health::Healthy);
}

#[test]
fn clients_that_go_away_say_nothing_of_the_endpoint() {
    let world = World::of(4);
    world.suffer("web-0", Outcome::ClientGone, 100);
    world.suffer("web-0", Outcome::Cancelled, 100);
    assert_eq!(world.health("web-0"), Health::Healthy);
    assert_eq!(world.endpoint("web-0").status(world.now).requests_total, 100);
}

#[test]
fn a_share_of_errors_above_the_others_ejects() {
    let world = World::of(4);
    for id in ["web-1", "web-2", "web-3"] {
        world.suffer(id, Outcome::Status(200), 100);
    }
    world.suffer("web-0", Outcome::Status(200), 40);
    world.suffer("web-0", Outcome::Status(503), 30);
    assert_eq!(world.health("web-0"), Health::Ejected);
}

#[test]
fn errors_that_all_endpoints_share_eject_nobody() {
    let world = World::of(4);
    for _ in 0..100 {
        for id in ["web-0", "web-1", "web-2", "web-3"] {
            world.suffer(id, Outcome::Status(500), 1);
        }
    }
    for id in ["web-0", "web-1", "web-2", "web-3"] {
        assert_eq!(world.health(id), Health::Healthy);
    }
}

#[test]
fn few_errors_of_few_requests_eject_nobody() {
    let world = World::of(4);
    world.suffer("web-1", Outcome::Status(200), 100);
    world.suffer("web-0", Outcome::Status(500), 49);
    assert_eq!(world.health("web-0"), Health::Healthy);
}

#[test]
fn the_last_endpoint_that_works_is_never_ejected() {
    let world = World::of(3);
    world.fail_checks("web-1", CheckFailure::Failing);
    world.fail_checks("web-2", CheckFailure::Unreachable);
    world.suffer("web-0", Outcome::Lost, 50);
    assert_eq!(world.health("web-0"), Health::Healthy);
}

#[test]
fn ejections_in_a_row_grow_longer_and_success_makes_them_shorter_again() {
    let mut world = World::of(4);
    let ejected_for = |world: &mut World| {
        world.suffer("web-0", Outcome::Lost, 5);
        let begin = world.now;
        while world.health("web-0") == Health::Ejected {
            world.pass(1_000);
        }
        (world.now - begin).as_secs()
    };
    assert_eq!(ejected_for(&mut world), 5);
    assert_eq!(ejected_for(&mut world), 10);
    assert_eq!(ejected_for(&mut world), 15);
    for _ in 0..3 {
        world.pass(5_000);
        world.suffer("web-0", Outcome::Status(200), 1);
    }
    assert_eq!(ejected_for(&mut world), 5);
}

#[test]
fn removing_healthy_endpoints_readmits_ejected_ones() {
    let mut world = World::of(4);
    world.suffer("web-0", Outcome::Lost, 5);
    world.suffer("web-1", Outcome::Lost, 5);
    world.reconfigure(|upstream| upstream.endpoints.truncate(2));
    let ejected = ["web-0", "web-1"].map(|id| world.health(id) == Health::Ejected);
    assert_eq!(ejected.iter().filter(|ejected| **ejected).count(), 1);
}

#[test]
fn a_new_endpoint_starts_slowly_and_the_first_ones_do_not() {
    let mut world = World::of(1);
    world.reconfigure(|upstream| upstream.endpoints = self::upstream(2).endpoints);
    assert!(world.share_of("web-1", 4_000) < 0.12);
    world.pass(5_000);
    assert!((world.share_of("web-1", 4_000) - 0.5).abs() < 0.05);
}

#[test]
fn new_endpoints_that_replace_all_others_start_at_once() {
    let mut world = World::of(1);
    world.reconfigure(|upstream| upstream.endpoints = self::upstream(3).endpoints.split_off(1));
    assert!((world.share_of("web-1", 4_000) - 0.5).abs() < 0.05);
}

#[test]
fn an_endpoint_keeps_its_state_over_a_reconfiguration() {
    let mut world = World::of(4);
    let lease = world.pick();
    let id = lease.endpoint().id().to_owned();
    world.suffer("web-3", Outcome::Lost, 5);
    world.reconfigure(|upstream| upstream.slow_start_ms = 1);
    assert_eq!(world.endpoint(&id).in_flight(), 1);
    assert_eq!(world.health("web-3"), Health::Ejected);
}

#[test]
fn a_removed_endpoint_stays_listed_until_its_last_request_has_ended() {
    let mut world = World::of(1);
    let lease = world.pick();
    world.reconfigure(|upstream| upstream.endpoints.clear());
    assert_eq!(world.cluster.endpoints().len(), 1);
    assert!(lease.endpoint().is_removed());
    assert!(matches!(world.cluster.pick(world.now, &[]), Pick::None));
    drop(lease);
    assert!(world.cluster.endpoints().is_empty());
}

#[test]
fn the_own_zone_serves_until_it_is_much_busier_than_the_other() {
    let mut upstream = upstream(2);
    upstream.endpoints[0].zone = Some("a".to_owned());
    upstream.endpoints[1].zone = Some("b".to_owned());
    let world = World::in_zone(Some("a"), upstream);
    let held: Vec<Lease> = (0..9).map(|_| world.pick()).collect();
    let local = held.iter().filter(|lease| lease.endpoint().id() == "web-0").count();
    assert!((5..=7).contains(&local), "{local}");
}

#[test]
fn without_a_ready_endpoint_in_its_zone_an_edge_uses_the_others() {
    let mut upstream = upstream(2);
    upstream.endpoints[0].zone = Some("a".to_owned());
    upstream.endpoints[1].zone = Some("b".to_owned());
    let world = World::in_zone(Some("a"), upstream);
    world.fail_checks("web-0", CheckFailure::Failing);
    assert_eq!(world.picked(), "web-1");
}

#[test]
fn the_queue_holds_as_many_as_configured() {
    let mut world = World::of(1);
    world.reconfigure(|upstream| upstream.queue_length = 2);
    let held = (world.cluster.enqueue(), world.cluster.enqueue());
    assert!(held.0.is_some() && held.1.is_some());
    assert!(world.cluster.enqueue().is_none());
    drop(held);
    assert!(world.cluster.enqueue().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_queued_request_gets_the_place_that_is_freed() {
    let mut world = World::of(1);
    world.reconfigure(|upstream| upstream.max_in_flight = 1);
    let held = world.pick();
    let place = world.cluster.enqueue().unwrap();
    let (waited, ()) = tokio::join!(place.pick(&[]), async move {
        tokio::task::yield_now().await;
        drop(held);
    });
    assert_eq!(waited.endpoint().in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_queued_request_may_return_to_the_only_endpoint_once_it_is_back() {
    let world = World::of(1);
    let tried = [world.endpoint("web-0")];
    world.suffer("web-0", Outcome::ConnectFailed, 1);
    let place = world.cluster.enqueue().unwrap();
    let (waited, ()) = tokio::join!(place.pick(&tried), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.cluster.check_passed(&tried[0], world.now);
    });
    assert_eq!(waited.endpoint().id(), "web-0");
}

#[tokio::test]
async fn idle_resolves_when_the_last_request_has_ended() {
    let world = World::of(1);
    let (first, second) = (world.pick(), world.pick());
    let endpoint = world.endpoint("web-0");
    let mut idle = std::pin::pin!(endpoint.idle());
    assert!(is_pending(idle.as_mut()).await);
    drop(first);
    assert!(is_pending(idle.as_mut()).await);
    drop(second);
    idle.await;
}

#[tokio::test]
async fn an_endpoint_that_goes_down_tells_the_requests_it_has() {
    let world = World::of(2);
    let endpoint = world.endpoint("web-0");
    assert!(endpoint.enter(1));
    let lease = Lease::new(Arc::clone(&endpoint));
    assert!(is_pending(std::pin::pin!(lease.down())).await);
    world.fail_checks("web-0", CheckFailure::Failing);
    lease.down().await;
    // A request that is sent there although it is down (nothing else is left) is not cut for what was known before.
    assert!(endpoint.enter(2));
    let later = Lease::new(endpoint);
    assert!(is_pending(std::pin::pin!(later.down())).await);
}

#[tokio::test]
async fn a_draining_endpoint_that_fails_its_checks_is_not_cut() {
    let mut world = World::of(2);
    let endpoint = world.endpoint("web-0");
    assert!(endpoint.enter(1));
    let lease = Lease::new(Arc::clone(&endpoint));
    world.reconfigure(|upstream| upstream.endpoints[0].draining = true);
    let mut down = std::pin::pin!(lease.down());
    assert!(is_pending(down.as_mut()).await);
    world.fail_checks("web-0", CheckFailure::Unreachable);
    assert!(is_pending(down.as_mut()).await);
    endpoint.close();
    down.await;
}

/// Polls once.
async fn is_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(move |context| {
        let future = future.take().expect("polled once");
        std::task::Poll::Ready(future.poll(context).is_pending())
    })
    .await
}
