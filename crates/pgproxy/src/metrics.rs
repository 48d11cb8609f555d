//! What the counters are called for Prometheus.

use telemetry::metrics::{Exposition, Kind};

use crate::config::Role;
use crate::status::{DatabaseStatus, NodeStatus, Status};

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
    (
        "switchback_pgproxy_clients_pinned",
        Kind::Gauge,
        "Clients with state that only their connection to PostgreSQL has.",
        |db| db.pinned,
    ),
    (
        "switchback_pgproxy_clients_pinned_lost_total",
        Kind::Counter,
        "Of those, whose connection was lost: they were disconnected, 57P01.",
        |db| db.pinned_lost_total,
    ),
    (
        "switchback_pgproxy_reads_waited_total",
        Kind::Counter,
        "Reads that waited for a read replica to have what they must see.",
        |db| db.reads_waited_total,
    ),
    (
        "switchback_pgproxy_reads_too_late_total",
        Kind::Counter,
        "Reads that no read replica was fresh enough for in time.",
        |db| db.reads_too_late_total,
    ),
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

type ReadNode = fn(&NodeStatus) -> Option<u64>;

/// Of read replicas.
const REPLICAS: &[(&str, Kind, &str, ReadNode)] = &[
    ("switchback_pgproxy_replica_servers", Kind::Gauge, "Connections to the read replica.", |node| {
        Some(node.servers)
    }),
    (
        "switchback_pgproxy_replica_repaired_total",
        Kind::Counter,
        "Requests that the read replica could not answer, and the primary did.",
        |node| Some(node.repaired_total),
    ),
    (
        "switchback_pgproxy_replica_fresh_age_milliseconds",
        Kind::Gauge,
        "How long ago the time is as of which it is known to have everything.",
        |node| node.fresh_age_ms,
    ),
    (
        "switchback_pgproxy_replica_lag_bytes",
        Kind::Gauge,
        "What it had not replayed when it was last asked.",
        |node| node.lag_bytes,
    ),
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
            family.sample(&[("database", database), ("user", &figures.user)], read(figures));
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
        for (node, of_node) in &figures.nodes {
            for (class, &sent) in &of_node.statements_total {
                let labels = [
                    ("database", database.as_str()),
                    ("user", &figures.user),
                    ("node", node),
                    ("class", class),
                ];
                statements.sample(&labels, sent);
            }
        }
    }
    let mut states =
        page.family("switchback_pgproxy_node_state", Kind::Gauge, "1 for the state that the node is in.");
    for (database, figures) in &status.databases {
        for (node, of_node) in &figures.nodes {
            states.sample(&[("database", database), ("node", node), ("state", of_node.state.name())], 1);
        }
    }
    for (name, kind, help, read) in REPLICAS {
        let mut family = page.family(name, *kind, help);
        for (database, figures) in &status.databases {
            let replicas = figures.nodes.iter().filter(|(_, node)| node.role == Role::ReadReplica);
            for (node, of_node) in replicas {
                if let Some(value) = read(of_node) {
                    family.sample(&[("database", database), ("node", node)], value);
                }
            }
        }
    }
    text.push_str(&page.finish());
}
