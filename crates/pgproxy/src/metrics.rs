//! What the counters are called for Prometheus.

use telemetry::metrics::{Exposition, Kind};

use crate::status::{DatabaseStatus, Status};

type Read = fn(&DatabaseStatus) -> u64;

const FAMILIES: &[(&str, Kind, &str, Read)] = &[
    ("switchback_pgproxy_clients", Kind::Gauge, "Sessions open or waiting.", |db| db.clients),
    ("switchback_pgproxy_clients_waiting", Kind::Gauge, "Clients waiting for their database.", |db| {
        db.waiting
    }),
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
    text.push_str(&page.finish());
}
