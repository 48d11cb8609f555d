//! The views: what each is made of. A column has the name that PgBouncer has for it where it means the same.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;

use super::DATABASE;
use super::table::Kind::{Number, Text};
use super::table::{Table, Value};
use crate::config::{PoolMode, Role, Upstream};
use crate::message::{Refusal, Severity, message};
use crate::server::CancelKey;
use crate::shared::{Doing, Served, Shared};

struct View {
    name: &'static str,
    shows: &'static str,
    make: fn(&Shared, &Served) -> Table,
}

const VIEWS: &[View] = &[
    View { name: "POOLS", shows: "clients, and the connections that they share", make: pools },
    View { name: "SERVERS", shows: "each connection to PostgreSQL", make: servers },
    View { name: "CLIENTS", shows: "each client", make: clients },
    View { name: "DATABASES", shows: "the nodes that the database consists of", make: databases },
    View { name: "STATS", shows: "what has been done since the proxy began", make: stats },
    View { name: "VERSION", shows: "the version of the proxy", make: version },
    View { name: "HELP", shows: "this", make: help },
];

/// Writes the whole answer but ReadyForQuery.
pub(super) fn answer(query: &[u8], shared: &Shared, served: &Served, out: &mut BytesMut) {
    let text = String::from_utf8_lossy(query);
    let text = text.trim().trim_end_matches(';').trim_end();
    if text.is_empty() {
        return message(out, b'I', |_| {});
    }
    let mut words = text.split_ascii_whitespace();
    let is_show = words.next().is_some_and(|word| word.eq_ignore_ascii_case("SHOW"));
    let named = words.next().filter(|_| is_show && words.next().is_none());
    let view = named.and_then(|name| VIEWS.iter().find(|view| view.name.eq_ignore_ascii_case(name)));
    match view {
        Some(view) => (view.make)(shared, served).write(out),
        None => {
            let message = format!("the database `{DATABASE}` has views of the proxy and nothing else");
            Refusal::new("0A000", message, "SHOW HELP lists them.").write(Severity::Error, out);
        }
    }
}

fn pools(shared: &Shared, served: &Served) -> Table {
    let mut table = Table::new(&[
        ("database", Text),
        ("user", Text),
        ("cl_active", Number),
        ("cl_waiting", Number),
        ("sv_active", Number),
        ("sv_idle", Number),
        ("maxwait", Number),
        ("maxwait_us", Number),
        ("pool_mode", Text),
        ("node", Text),
    ]);
    let status = shared.status(served);
    let doing: Vec<Doing> = shared.clients.all().iter().map(|slot| slot.doing()).collect();
    let waiting = doing.iter().filter_map(|doing| match doing {
        Doing::Waiting { since } => Some(since.elapsed()),
        Doing::Nothing | Doing::Served { .. } => None,
    });
    let longest = waiting.max().unwrap_or_default();
    let served_by = |name: &str| {
        let is_it = |doing: &&Doing| matches!(doing, Doing::Served { by } if by.target.node == name);
        doing.iter().filter(is_it).count() as u64
    };
    let mut row =
        |node: Option<&str>, active: u64, waiting: u64, longest: Duration, servers: u64, idle: u64| {
            table.row([
                shared.name.as_str().into(),
                served.credentials.role.as_str().into(),
                active.into(),
                waiting.into(),
                servers.saturating_sub(idle).into(),
                idle.into(),
                longest.as_secs().into(),
                u64::from(longest.subsec_micros()).into(),
                pool_mode(served).into(),
                node.into(),
            ]);
        };
    let replicas: Vec<_> = status.nodes.iter().filter(|(_, node)| node.role == Role::ReadReplica).collect();
    // Who asks nothing at the moment is counted with the primary, and so is who waits: also while there is none.
    let elsewhere = status.waiting + replicas.iter().map(|(name, _)| served_by(name)).sum::<u64>();
    let active = status.clients.saturating_sub(elsewhere);
    row(status.primary.as_deref(), active, status.waiting, longest, status.servers, status.servers_idle);
    for (name, node) in replicas {
        row(Some(name), served_by(name), 0, Duration::ZERO, node.servers, node.servers_idle);
    }
    table
}

fn servers(shared: &Shared, served: &Served) -> Table {
    let mut table = Table::new(&[
        ("type", Text),
        ("user", Text),
        ("database", Text),
        ("state", Text),
        ("addr", Text),
        ("port", Number),
        ("link", Number),
        ("remote_pid", Number),
        ("age_s", Number),
        ("node", Text),
    ]);
    let mut row = |state: &str, key: &CancelKey, client: Option<u32>| {
        let (addr, port) = address(&key.target.upstream);
        table.row([
            "S".into(),
            served.credentials.role.as_str().into(),
            served.credentials.database.as_str().into(),
            state.into(),
            addr.into(),
            port,
            client.map(u64::from).into(),
            key.pid().into(),
            key.opened.elapsed().as_secs().into(),
            key.target.node.as_str().into(),
        ]);
    };
    for slot in shared.clients.all() {
        if let Doing::Served { by } = slot.doing() {
            row("active", &by, Some(slot.id));
        }
    }
    for key in shared.idle_keys() {
        row("idle", &key, None);
    }
    table
}

fn clients(shared: &Shared, served: &Served) -> Table {
    let mut table = Table::new(&[
        ("type", Text),
        ("user", Text),
        ("database", Text),
        ("state", Text),
        ("addr", Text),
        ("port", Number),
        ("wait", Number),
        ("wait_us", Number),
        ("ptr", Number),
        ("link", Number),
        ("tls", Text),
        ("application_name", Text),
        ("age_s", Number),
        ("pinned", Text),
    ]);
    for slot in shared.clients.all() {
        let (state, wait, server) = match slot.doing() {
            Doing::Nothing => ("idle", Duration::ZERO, None),
            Doing::Waiting { since } => ("waiting", since.elapsed(), None),
            Doing::Served { by } => ("active", Duration::ZERO, by.pid()),
        };
        let arrival = &slot.arrival;
        table.row([
            "C".into(),
            served.credentials.role.as_str().into(),
            shared.name.as_str().into(),
            state.into(),
            arrival.address.map(|address| address.ip().to_string()).into(),
            arrival.address.map(|address| u64::from(address.port())).into(),
            wait.as_secs().into(),
            u64::from(wait.subsec_micros()).into(),
            u64::from(slot.id).into(),
            server.into(),
            if arrival.is_encrypted { "TLS" } else { "" }.into(),
            arrival.application_name.as_deref().into(),
            arrival.at.elapsed().as_secs().into(),
            if slot.is_pinned.load(Relaxed) { "pinned" } else { "" }.into(),
        ]);
    }
    table
}

fn databases(shared: &Shared, served: &Served) -> Table {
    let mut table = Table::new(&[
        ("name", Text),
        ("host", Text),
        ("port", Number),
        ("database", Text),
        ("force_user", Text),
        ("pool_size", Number),
        ("pool_mode", Text),
        ("current_connections", Number),
        ("node", Text),
        ("role", Text),
        ("zone", Text),
        ("epoch", Number),
    ]);
    let in_use = shared.clients.all().into_iter().filter_map(|slot| match slot.doing() {
        Doing::Served { by } => Some(by),
        Doing::Nothing | Doing::Waiting { .. } => None,
    });
    let connections: Vec<Arc<CancelKey>> = in_use.chain(shared.idle_keys()).collect();
    for (name, node) in &served.config.nodes {
        let (host, port) = address(&node.upstream);
        let role = match node.role {
            Role::Primary => "primary",
            Role::Standby => "standby",
            Role::ReadReplica => "read_replica",
        };
        table.row([
            shared.name.as_str().into(),
            host.into(),
            port,
            served.credentials.database.as_str().into(),
            served.credentials.role.as_str().into(),
            u64::from(served.config.pool_size).into(),
            pool_mode(served).into(),
            (connections.iter().filter(|key| key.target.node == *name).count() as u64).into(),
            name.as_str().into(),
            role.into(),
            node.zone.as_deref().into(),
            served.config.epoch.into(),
        ]);
    }
    table
}

fn stats(shared: &Shared, served: &Served) -> Table {
    let mut table = Table::new(&[
        ("database", Text),
        ("total_query_count", Number),
        ("total_received", Number),
        ("total_sent", Number),
        ("total_connections", Number),
        ("total_replays", Number),
        ("total_settled_commits", Number),
        ("total_unknown_outcomes", Number),
        ("total_pinned_lost", Number),
        ("total_refused_login", Number),
        ("total_refused_full", Number),
        ("total_refused_queue", Number),
        ("total_refused_unavailable", Number),
    ]);
    let status = shared.status(served);
    table.row([
        shared.name.as_str().into(),
        status.requests_total.into(),
        status.received_bytes_total.into(),
        status.sent_bytes_total.into(),
        status.connections_total.into(),
        status.replays_total.into(),
        status.settled_commits_total.into(),
        status.unknown_outcomes_total.into(),
        status.pinned_lost_total.into(),
        status.refused_login_total.into(),
        status.refused_full_total.into(),
        status.refused_queue_total.into(),
        status.refused_unavailable_total.into(),
    ]);
    table
}

fn version(_: &Shared, _: &Served) -> Table {
    let mut table = Table::new(&[("version", Text)]);
    table.row([concat!("switchback pgproxy ", env!("CARGO_PKG_VERSION")).into()]);
    table
}

fn help(_: &Shared, _: &Served) -> Table {
    let mut table = Table::new(&[("command", Text), ("shows", Text)]);
    for view in VIEWS {
        table.row([format!("SHOW {}", view.name).into(), view.shows.into()]);
    }
    table
}

fn pool_mode(served: &Served) -> &'static str {
    match served.config.pool_mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}

/// As in a connection's URL: of a socket the folder, and the number that its name ends with.
fn address(upstream: &Upstream) -> (String, Value) {
    match upstream {
        Upstream::Tcp(address) => (address.ip().to_string(), u64::from(address.port()).into()),
        Upstream::Unix(path) => {
            let folder = path.parent().unwrap_or(path).display().to_string();
            let port = path.extension().and_then(|port| port.to_str()?.parse::<u64>().ok());
            (folder, port.into())
        }
    }
}
