//! The page that Prometheus reads: every series of the edge, in one place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use telemetry::metrics::{Counter, Exposition, Gauge, HistogramTotals, Kind};

use super::words::{Method, StatusClass};
use super::{ConnectionReject, DURATION_BOUNDS, Metrics, Recorder, Reject, UpstreamRecorder};
use crate::balance::{Cluster, Endpoint};
use crate::status::{EndpointStatus, Health};

impl Metrics {
    /// The Prometheus text format. Takes short locks and some time; call it from the control runtime.
    pub fn expose(&self, clusters: &[Arc<Cluster>], access_log_dropped: u64, now: Instant) -> String {
        let recorders = self.recorders().clone();
        let mut page = Exposition::new();
        connections(&mut page, &recorders);
        upstreams(&mut page, &by_upstream(&recorders), clusters);
        endpoints(&mut page, clusters, now);
        page.family(
            "switchback_edge_access_log_dropped_entries_total",
            Kind::Counter,
            "Access log entries lost because the disk was full or the writer behind.",
        )
        .sample(&[], access_log_dropped);
        page.finish()
    }
}

fn connections(page: &mut Exposition, recorders: &[Arc<Recorder>]) {
    let counted = |read: fn(&Recorder) -> &Counter| sum(recorders.iter().map(|of| read(of).value()));
    let gauged = |read: fn(&Recorder) -> &Gauge| -> i64 { recorders.iter().map(|of| read(of).value()).sum() };

    page.family("switchback_edge_connections_accepted_total", Kind::Counter, "Client connections accepted.")
        .sample(&[], counted(|of| &of.accepted));
    page.family("switchback_edge_connections_open", Kind::Gauge, "Client connections open now.")
        .sample(&[], gauged(|of| &of.open));
    page.family("switchback_edge_tunnels_open", Kind::Gauge, "Upgraded connections (WebSocket) open now.")
        .sample(&[], gauged(|of| &of.tunnels));

    let mut family = page.family(
        "switchback_edge_connections_rejected_total",
        Kind::Counter,
        "Client connections closed unserved, by reason.",
    );
    for reason in ConnectionReject::ALL {
        let count = recorders.iter().map(|of| of.connection_rejects[*reason as usize].value());
        family.sample(&[("reason", reason.as_str())], sum(count));
    }
    let mut family = page.family(
        "switchback_edge_rejects_total",
        Kind::Counter,
        "Requests that the edge answered by itself, by reason.",
    );
    for reason in Reject::ALL {
        let count = recorders.iter().map(|of| of.rejects[*reason as usize].value());
        family.sample(&[("reason", reason.as_str())], sum(count));
    }

    page.family("switchback_edge_tls_handshakes_total", Kind::Counter, "TLS handshakes that succeeded.")
        .sample(&[], counted(|of| &of.tls_handshakes));
    page.family(
        "switchback_edge_tls_handshake_failures_total",
        Kind::Counter,
        "TLS handshakes that failed or took too long.",
    )
    .sample(&[], counted(|of| &of.tls_failures));
    page.family(
        "switchback_edge_received_bytes_total",
        Kind::Counter,
        "Bytes read from clients, heads included.",
    )
    .sample(&[], counted(|of| &of.received));
    page.family(
        "switchback_edge_sent_bytes_total",
        Kind::Counter,
        "Bytes written to clients, heads included.",
    )
    .sample(&[], counted(|of| &of.sent));
}

type ByUpstream = BTreeMap<String, Vec<Arc<UpstreamRecorder>>>;

fn by_upstream(recorders: &[Arc<Recorder>]) -> ByUpstream {
    let mut all = ByUpstream::new();
    for recorder in recorders {
        for (name, of_thread) in recorder.upstreams().iter() {
            all.entry(name.clone()).or_default().push(Arc::clone(of_thread));
        }
    }
    all
}

fn upstreams(page: &mut Exposition, upstreams: &ByUpstream, clusters: &[Arc<Cluster>]) {
    let mut family = page.family(
        "switchback_edge_requests_total",
        Kind::Counter,
        "Requests that ended, by the status class the client got.",
    );
    for (name, threads) in upstreams {
        for method in Method::ALL {
            for class in StatusClass::ALL {
                let cell =
                    |of: &Arc<UpstreamRecorder>| of.requests[*method as usize][*class as usize].value();
                let count = sum(threads.iter().map(cell));
                // Most of the grid stays empty for ever; what never happened needs no series.
                if count > 0 {
                    let labels =
                        [("upstream", &**name), ("method", method.as_str()), ("class", class.as_str())];
                    family.sample(&labels, count);
                }
            }
        }
    }
    let mut family = page.family(
        "switchback_edge_request_duration_seconds",
        Kind::Histogram,
        "From the request head to the end of the answer.",
    );
    for (name, threads) in upstreams {
        let mut totals = HistogramTotals::none(DURATION_BOUNDS);
        for of_thread in threads {
            totals.add(&of_thread.durations.totals());
        }
        family.histogram(&[("upstream", name)], &totals);
    }
    let mut family = page.family(
        "switchback_edge_requests_in_flight",
        Kind::Gauge,
        "Requests being served now, those that wait included.",
    );
    for (name, threads) in upstreams {
        let count: i64 = threads.iter().map(|of| of.in_flight.value()).sum();
        family.sample(&[("upstream", name)], count);
    }
    let mut family = page.family(
        "switchback_edge_requests_queued",
        Kind::Gauge,
        "Requests that wait for a free or healthy endpoint now.",
    );
    for cluster in clusters {
        family.sample(&[("upstream", cluster.name())], cluster.queued());
    }
    let mut family = page.family("switchback_edge_retries_total", Kind::Counter, "Attempts after the first.");
    for (name, threads) in upstreams {
        family.sample(&[("upstream", name)], sum(threads.iter().map(|of| of.retries.value())));
    }
    let mut family = page.family(
        "switchback_edge_requests_shed_total",
        Kind::Counter,
        "Requests refused because the queue was full or the wait too long.",
    );
    for (name, threads) in upstreams {
        family.sample(&[("upstream", name)], sum(threads.iter().map(|of| of.shed.value())));
    }
}

/// An endpoint with what labels its series.
struct Row {
    endpoint: Arc<Endpoint>,
    status: EndpointStatus,
    release: String,
}

impl Row {
    fn labels(&self) -> [(&str, &str); 3] {
        [("upstream", &self.status.upstream), ("endpoint", self.endpoint.id()), ("release", &self.release)]
    }
}

fn endpoints(page: &mut Exposition, clusters: &[Arc<Cluster>], now: Instant) {
    let mut rows: Vec<Row> = Vec::new();
    for endpoint in clusters.iter().flat_map(|cluster| cluster.endpoints()) {
        // One that moved to another address is there twice while its old requests end; a series must not be.
        if rows.iter().any(|row| row.endpoint.id() == endpoint.id()) {
            continue;
        }
        rows.push(Row {
            status: endpoint.status(now),
            release: endpoint.release().map(|release| release.to_string()).unwrap_or_default(),
            endpoint,
        });
    }

    let mut family = page.family(
        "switchback_edge_endpoint_responses_total",
        Kind::Counter,
        "Answers of the endpoint by class.",
    );
    for row in &rows {
        let [upstream, endpoint, release] = row.labels();
        let status = &row.status;
        for (class, count) in [
            ("2xx", status.responses_2xx_total),
            ("3xx", status.responses_3xx_total),
            ("4xx", status.responses_4xx_total),
            ("5xx", status.responses_5xx_total),
        ] {
            family.sample(&[upstream, endpoint, release, ("class", class)], count);
        }
    }
    type Read = fn(&Row) -> u64;
    let rest: [(&str, Kind, &str, Read); 5] = [
        (
            "switchback_edge_endpoint_requests_total",
            Kind::Counter,
            "Requests to the endpoint that ended.",
            |row| row.status.requests_total,
        ),
        (
            "switchback_edge_endpoint_failures_total",
            Kind::Counter,
            "Failed connects, lost connections and timeouts.",
            |row| row.status.failures_total,
        ),
        (
            "switchback_edge_endpoint_ejections_total",
            Kind::Counter,
            "How often traffic had the endpoint ejected.",
            |row| row.endpoint.ejections(),
        ),
        (
            "switchback_edge_endpoint_requests_in_flight",
            Kind::Gauge,
            "Requests at the endpoint now.",
            |row| row.status.in_flight,
        ),
        (
            "switchback_edge_endpoint_draining",
            Kind::Gauge,
            "1 while the endpoint gets no new requests.",
            |row| u64::from(row.status.draining),
        ),
    ];
    for (name, kind, help, read) in rest {
        let mut family = page.family(name, kind, help);
        for row in &rows {
            family.sample(&row.labels(), read(row));
        }
    }
    let mut family = page.family(
        "switchback_edge_endpoint_latency_seconds_total",
        Kind::Counter,
        "Sum of the times from the first byte sent to the last received.",
    );
    for row in &rows {
        family.sample(&row.labels(), row.status.latency_us_total as f64 / 1e6);
    }
    let mut family =
        page.family("switchback_edge_endpoint_health", Kind::Gauge, "1 for the state the endpoint is in.");
    for row in &rows {
        let [upstream, endpoint, release] = row.labels();
        for (state, label) in
            [(Health::Healthy, "healthy"), (Health::Unhealthy, "unhealthy"), (Health::Ejected, "ejected")]
        {
            let is = u8::from(row.status.health == state);
            family.sample(&[upstream, endpoint, release, ("state", label)], is);
        }
    }
}

fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::balance::{Outcome, Pick};

    fn page() -> String {
        let now = Instant::now();
        let upstream = serde_json::from_value(serde_json::json!({
            "protocol": "http1",
            "endpoints": [{ "id": "web-1", "address": "127.0.0.1:9000", "release": "r7" }],
        }))
        .unwrap();
        let cluster = Cluster::new("web", &upstream, None, now);
        let Pick::Endpoint(lease) = cluster.pick(now, &[]) else {
            panic!("one endpoint is ready");
        };
        lease.finish(Outcome::Status(200), Duration::from_millis(2), now);

        let metrics = Metrics::new();
        for _ in 0..2 {
            let recorder = metrics.recorder();
            recorder.connection_accepted();
            recorder.rejected(Reject::BadRequest);
            let web = recorder.upstream("web");
            web.request_started();
            web.request_ended(b"GET", 200, Duration::from_millis(3));
            web.request_started();
            web.request_ended(b"BREW", 418, Duration::from_micros(20));
        }
        metrics.expose(&[cluster], 4, now)
    }

    #[test]
    fn the_counts_of_all_threads_are_added() {
        let page = page();
        for line in [
            r#"switchback_edge_connections_accepted_total 2"#,
            r#"switchback_edge_connections_open 2"#,
            r#"switchback_edge_rejects_total{reason="bad_request"} 2"#,
            r#"switchback_edge_requests_total{upstream="web",method="get",class="2xx"} 2"#,
            r#"switchback_edge_requests_total{upstream="web",method="other",class="4xx"} 2"#,
            r#"switchback_edge_requests_in_flight{upstream="web"} 0"#,
            r#"switchback_edge_request_duration_seconds_bucket{upstream="web",le="0.0005"} 2"#,
            r#"switchback_edge_request_duration_seconds_bucket{upstream="web",le="0.005"} 4"#,
            r#"switchback_edge_request_duration_seconds_count{upstream="web"} 4"#,
            r#"switchback_edge_endpoint_responses_total{upstream="web",endpoint="web-1",release="r7",class="2xx"} 1"#,
            r#"switchback_edge_endpoint_health{upstream="web",endpoint="web-1",release="r7",state="healthy"} 1"#,
            r#"switchback_edge_endpoint_latency_seconds_total{upstream="web",endpoint="web-1",release="r7"} 0.002"#,
            r#"switchback_edge_access_log_dropped_entries_total 4"#,
        ] {
            assert!(page.lines().any(|of_page| of_page == line), "{line} is not in\n{page}");
        }
    }

    /// What `promtool check metrics` asks of names: the prefix, `_total` for counters and only for them, one TYPE each.
    #[test]
    fn every_family_is_named_as_prometheus_wants() {
        let page = page();
        let mut types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        for family in &types {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(name.starts_with("switchback_edge_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        }
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count);
    }
}
