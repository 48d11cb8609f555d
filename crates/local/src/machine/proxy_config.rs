//! From the topology and what is known of the nodes now to what a proxy is told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::{DatabaseNode, DatabaseRole, PoolMode, Promotion, ProxyProcess, Size, Topology};

use super::roles::proxy_unit;
use super::{Machine, StepError};
use crate::postgres::memory_settings;

/// How long a client waits while all connections are in use.
const QUEUE_WAIT_MS: u64 = 30_000;
/// A connection that nobody used for so long is closed.
const IDLE_TIMEOUT_MS: u64 = 600_000;
/// So is one of this age, when it is free.
const SERVER_LIFETIME_MS: u64 = 3_600_000;
/// How long a read waits for a replica to have what it must see, before the primary serves it.
const READ_WAIT_MS: u64 = 10;

impl Machine {
    /// The whole configuration of the proxy of one database, of generation 1; whoever sends it numbers it.
    pub(super) fn proxy_config(
        &self,
        proxy: &ProxyProcess,
        topology: &Topology,
    ) -> Result<pgproxy::Config, StepError> {
        let (id, pool) = (&proxy.id, &proxy.pool);
        let cluster =
            topology.clusters.get(id).ok_or_else(|| StepError::new(format!("{id} is no database")))?;
        let holds = self.holds(id);
        let node = |node: &DatabaseNode| {
            let role = match topology.role_of(&node.id) {
                // Nobody is the primary for as long as everybody is to wait.
                DatabaseRole::Primary if holds => pgproxy::Role::Standby,
                DatabaseRole::Primary => pgproxy::Role::Primary,
                DatabaseRole::Standby => pgproxy::Role::Standby,
                DatabaseRole::ReadReplica => pgproxy::Role::ReadReplica,
            };
            let upstream = pgproxy::Upstream::Unix(self.node_socket(node));
            (node.id.to_string(), pgproxy::Node { upstream, zone: Some(node.zone.to_string()), role })
        };
        let is_told = |node: &&DatabaseNode| {
            topology.role_of(&node.id) != DatabaseRole::ReadReplica || self.serves_reads(&node.id)
        };
        let promotion = |(epoch, promotion): (&u64, &Promotion)| {
            let Promotion { timeline, first_xid } = *promotion;
            (*epoch, pgproxy::Promotion { timeline, first_xid })
        };
        let size = topology.primary_of(id).map_or(Size::UNLIMITED, |primary| primary.size);
        let setup = &self.inner.setup;
        let processes = 1 + self.departing_of(&proxy_unit(id)).len() as u32;
        let settings = memory_settings(&size, setup.memory, u32::from(setup.cores));
        let database = pgproxy::Database {
            listener: id.to_string(),
            epoch: cluster.epoch,
            promotions: cluster.promotions.iter().map(promotion).collect(),
            nodes: topology.nodes_of(id).filter(is_told).map(node).collect(),
            credentials: setup.state.database_credentials(id),
            freshness: self.marks(id),
            cancels: Some(setup.state.cancels(id)),
            admin: None,
            tls: None,
            pool_mode: match pool.mode {
                PoolMode::Transaction => pgproxy::PoolMode::Transaction,
                PoolMode::Session => pgproxy::PoolMode::Session,
            },
            // Shared with those that were replaced and still have sessions.
            pool_size: (settings.busy_connections / processes).max(1),
            max_clients: pool.clients,
            queue_wait_ms: QUEUE_WAIT_MS,
            // All of them may wait at once.
            max_queue: pool.clients,
            hold_ms: pool.hold_ms,
            idle_timeout_ms: IDLE_TIMEOUT_MS,
            server_lifetime_ms: SERVER_LIFETIME_MS,
            is_shared: processes > 1,
            zone: Some(proxy.zone.to_string()),
            max_replica_lag_ms: pool.max_replica_lag_ms,
            max_replica_lag_bytes: None,
            read_wait_ms: READ_WAIT_MS,
        };
        Ok(pgproxy::Config { generation: 1, databases: BTreeMap::from([(id.to_string(), database)]) })
    }

    pub(super) fn node_socket(&self, node: &DatabaseNode) -> PathBuf {
        self.inner.setup.state.sockets().join(format!(".s.PGSQL.{}", node.port))
    }
}
