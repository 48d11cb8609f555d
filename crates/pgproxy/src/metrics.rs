//! What the counters are called for Prometheus.

use telemetry::metrics::{Exposition, Kind};

use crate::status::{DatabaseStatus, Status};

type Read = fn(&DatabaseStatus) -> u64;

const FAMILIES: &[(&str, Kind, &str, Read)] = &[
    ("switchback_pgproxy_clients", Kind::Gauge, "Sessions open or waiting.", |db| db.clients),
    ("switchback_pgproxy_clients_waiting", Kind::Gauge, "Clients waiting for a connection.", |db| db.waiting),
    (
        "switchback_pgproxy_clients_held",
        Kind::Gauge,
        "Clients whose connection was lost under a request.",
        |db| db.held,
    ),
    ("switchback_pgproxy_servers", Kind::Gauge, "Connections to the primary.", |db| db.servers),
    ("switchback_pgproxy_servers_idle", Kind::Gauge, "Of those, unused.", |db| db.servers_idle),
    ("switchback_pgproxy_requests_total", Kind::Counter, "Requests answered.", |db| db.requests_total),
    ("switchback_pgproxy_replays_total", Kind::Counter, "Requests and transactions run again.", |db| {
        db.replays_total
    }),
    ("switchback_pgproxy_settled_commits_total", Kind::Counter, "Lost answers of commits found out.", |db| {
        db.settled_commits_total
    }),
    ("switchback_pgproxy_unknown_outcomes_total", Kind::Counter, "Errors 08007.", |db| {
        db.unknown_outcomes_total
    }),
    ("switchback_pgproxy_epoch", Kind::Gauge, "Grows with every change of primary.", |db| db.epoch),
    ("switchback_pgproxy_connections_total", Kind::Counter, "Client connections accepted.", |db| {
        db.connections_total
    }),
    ("switchback_pgproxy_cancel_requests_total", Kind::Counter, "Cancel requests passed on.", |db| {
        db.cancel_requests_total
    }),
    ("switchback_pgproxy_received_bytes_total", Kind::Counter, "Bytes from clients.", |db| {
        db.received_bytes_total
    }),
    ("switchback_pgproxy_sent_bytes_total", Kind::Counter, "Bytes to clients.", |db| db.sent_bytes_total),
];

const REFUSED: &[(&str, Read)] = &[
    ("full", |db| db.refused_full_total),
    ("login", |db| db.refused_login_total),
    ("queue", |db| db.refused_queue_total),
    ("unavailable", |db| db.refused_unavailable_total),
    ("protocol", |db| db.refused_protocol_total),
];

/// Appends the exposition of `status` to `text`.
pub(crate) fn expose(status: &Status, text: &mut String) {
    let mut page = Exposition::new();
    for (name, kind, help, read) in FAMILIES {
        let mut family = page.family(name, *kind, help);
        for (database, figures) in &status.databases {
            family.sample(&[("database", database)], read(figures));
        }
    }
    let mut refused =
        page.family("switchback_pgproxy_refused_total", Kind::Counter, "Clients refused, by reason.");
    for (database, figures) in &status.databases {
        for (reason, read) in REFUSED {
            refused.sample(&[("database", database), ("reason", reason)], read(figures));
        }
    }
    let mut statements = page.family(
        "switchback_pgproxy_statements_total",
        Kind::Counter,
        "Statements sent, by node and by what they may do.",
    );
    for (database, figures) in &status.databases {
        let node = figures.primary.as_deref().unwrap_or_default();
        for (class, &sent) in &figures.statements_total {
            statements.sample(&[("database", database), ("node", node), ("class", class)], sent);
        }
    }
    text.push_str(&page.finish());
}
