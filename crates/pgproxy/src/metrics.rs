//! Prometheus text of the counters.

use std::fmt::Write;

use crate::status::{DatabaseStatus, Status};

type Read = fn(&DatabaseStatus) -> u64;

const SERIES: &[(&str, &str, &str, Read)] = &[
    ("switchback_pgproxy_clients", "gauge", "Sessions open or waiting.", |d| d.clients),
    ("switchback_pgproxy_clients_waiting", "gauge", "Clients waiting for their database.", |d| d.waiting),
    ("switchback_pgproxy_connections_total", "counter", "Client connections accepted.", |d| {
        d.connections_total
    }),
    ("switchback_pgproxy_cancel_requests_total", "counter", "Cancel requests passed on.", |d| {
        d.cancel_requests_total
    }),
    ("switchback_pgproxy_received_bytes_total", "counter", "Bytes from clients.", |d| d.received_bytes_total),
    ("switchback_pgproxy_sent_bytes_total", "counter", "Bytes to clients.", |d| d.sent_bytes_total),
];

const REFUSED: &[(&str, Read)] = &[
    ("full", |d| d.refused_full_total),
    ("unavailable", |d| d.refused_unavailable_total),
    ("protocol", |d| d.refused_protocol_total),
];

/// Appends the exposition of `status` to `text`.
pub(crate) fn expose(status: &Status, text: &mut String) {
    // Writing to a String cannot fail.
    for (name, kind, help, read) in SERIES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (database, figures) in &status.databases {
            let _ = writeln!(text, "{name}{{database=\"{}\"}} {}", escaped(database), read(figures));
        }
    }
    let name = "switchback_pgproxy_refused_total";
    let _ = writeln!(text, "# HELP {name} Clients refused, by reason.\n# TYPE {name} counter");
    for (database, figures) in &status.databases {
        for (reason, read) in REFUSED {
            let database = escaped(database);
            let _ = writeln!(text, "{name}{{database=\"{database}\",reason=\"{reason}\"}} {}", read(figures));
        }
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
