//! The vocabulary that the rooms share: names, units, the wished-for [`ResourceGraph`] and the exact [`Topology`].
//!
//! Values only: nothing here reads a clock, a file, an environment or a socket. A type enters when two crates need
//! it, not before.

mod graph;
mod names;
mod size;
mod threshold;
mod topology;
mod words;

pub use graph::{
    BackupPolicy, CertificateFiles, CompareGate, DatabaseCluster, Engine, FrontTls, HealthProbe,
    LoadBalancer, PoolMode, PoolPolicy, Rehearsal, RehearsedMethod, RehearsedStep, RehearsedVisit, Resource,
    ResourceGraph, Service, ServiceProtocol, WithoutStandby,
};
pub use names::{AppName, InstanceId, InvalidName, NodeId, ReleaseId, ResourceId, Zone};
pub use size::{ByteSize, Cpu, InvalidSize, Size};
pub use threshold::{Comparison, InvalidThreshold, MAX_THRESHOLD_BYTES, Metric, REQUEST_CLASSES, Threshold};
pub use topology::{
    ClusterState, DatabaseNode, DatabaseRole, EdgeProcess, FrontListener, Instance, Lsn, Promotion,
    ProxyProcess, RecoveryTarget, Release, Topology,
};
pub use words::counted;
