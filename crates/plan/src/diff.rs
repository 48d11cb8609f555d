//! From what stands to what is wished for: the order of the whole, resource by resource.
//!
//! What others need comes up first (databases, their proxies, the front door, then instances) and goes down last. New
//! before old everywhere, so that no step leaves fewer endpoints than there were. What deletes data is last of all:
//! nothing that could fail follows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::{
    EdgeProcess, FrontListener, LoadBalancer, NodeId, Release, Resource, ResourceGraph, ResourceId, Topology,
    Zone,
};

use crate::{Action, Change, ChangeKind, EdgeChange, Interruption, Plan, Step, databases, instances};

/// What the planner is given. All of it is values: the caller has looked for free ports and stored the releases.
pub struct Request<'a> {
    pub current: &'a Topology,
    /// The generation of `current`.
    pub parent: u64,
    pub desired: &'a ResourceGraph,
    /// What each service of `desired` is to serve.
    pub releases: &'a BTreeMap<ResourceId, Release>,
    /// Ports that nothing listens on now. Those the topology holds are skipped.
    pub free_ports: &'a [u16],
    /// Resources whose data may be deleted.
    pub destroy: &'a BTreeSet<ResourceId>,
    /// By database cluster that does not stand: data of it that is there all the same.
    pub found: &'a BTreeMap<ResourceId, FoundData>,
}

/// What is left of a cluster on the disk whose state was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundData {
    /// Of the node that took writes last.
    pub number: u32,
    /// The highest number that any folder of the cluster bears.
    pub spent: u32,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("{} holds data and is no longer in the manifest", list(.0))]
    WouldDestroy(Vec<ResourceId>),
    #[error("`--destroy {0}` names something that the manifest still asks for, or that does not exist")]
    NothingToDestroy(ResourceId),
    #[error("{needed} free ports are needed and {offered} were offered")]
    NotEnoughPorts { needed: usize, offered: usize },
    #[error("{0} has no release to serve")]
    NoRelease(ResourceId),
    #[error("the database of {0} cannot be renamed once it holds data")]
    DatabaseRenamed(ResourceId),
}

fn list(ids: &[ResourceId]) -> String {
    ids.iter().map(ResourceId::as_str).collect::<Vec<_>>().join(", ")
}

/// The steps from `request.current` to `request.desired`. Empty when they agree.
///
/// # Errors
/// See [`PlanError`]; nothing is planned then.
pub fn plan(request: &Request<'_>) -> Result<Plan, PlanError> {
    refuse_lost_data(request)?;
    let mut draft = Draft::new(request);
    draft.zones_in_use(ZonesPhase::Growing);
    let databases = databases::grow(&mut draft)?;
    draft.edges_opened_and_changed();
    for (id, service) in request.desired.services() {
        let release = request.releases.get(id).ok_or_else(|| PlanError::NoRelease(id.clone()))?;
        instances::roll(&mut draft, id, service, release);
    }
    draft.services_removed();
    draft.edges_closed();
    databases::shrink(&mut draft, databases);
    databases::destroy(&mut draft);
    draft.zones_in_use(ZonesPhase::Final);
    draft.finish()
}

fn refuse_lost_data(request: &Request<'_>) -> Result<(), PlanError> {
    let wished: BTreeSet<&ResourceId> = request.desired.databases().map(|(id, _)| id).collect();
    let held: BTreeSet<&ResourceId> = request.current.nodes.keys().map(NodeId::resource).collect();
    let lost = || held.difference(&wished).copied();
    if let Some(id) = request.destroy.iter().find(|id| !lost().any(|lost| lost == *id)) {
        return Err(PlanError::NothingToDestroy(id.clone()));
    }
    let refused: Vec<ResourceId> = lost().filter(|id| !request.destroy.contains(*id)).cloned().collect();
    if refused.is_empty() { Ok(()) } else { Err(PlanError::WouldDestroy(refused)) }
}

/// A plan being written. Steps are applied to `world` as they are added, so each is planned against what the ones
/// before it leave behind.
pub(crate) struct Draft<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) world: Topology,
    changes: Vec<Change>,
    steps: Vec<Step>,
    ports: Ports<'a>,
}

#[derive(PartialEq, Eq)]
enum ZonesPhase {
    /// Old and new zones together, while instances move.
    Growing,
    Final,
}

impl<'a> Draft<'a> {
    fn new(request: &'a Request<'a>) -> Self {
        let taken = request.current.ports().collect();
        Draft {
            request,
            world: request.current.clone(),
            changes: Vec::new(),
            steps: Vec::new(),
            ports: Ports { free: request.free_ports.iter(), taken, missing: 0 },
        }
    }

    pub(crate) fn push(&mut self, action: Action) {
        self.push_with(action, Interruption::None);
    }

    pub(crate) fn push_with(&mut self, action: Action, interruption: Interruption) {
        let applied = action.apply(&mut self.world);
        debug_assert_eq!(applied, Ok(()), "the planner wrote a step that cannot be taken: {action}");
        self.steps.push(Step { action, interruption });
    }

    pub(crate) fn note(&mut self, resource: &ResourceId, kind: ChangeKind, why: impl Into<String>) {
        self.note_with(resource, kind, why, Interruption::None);
    }

    pub(crate) fn note_with(
        &mut self,
        id: &ResourceId,
        kind: ChangeKind,
        why: impl Into<String>,
        interruption: Interruption,
    ) {
        self.changes.push(Change { resource: id.clone(), kind, why: why.into(), interruption });
    }

    /// A free port, or 0 with the lack counted: [`Draft::finish`] then refuses the plan.
    pub(crate) fn port(&mut self) -> u16 {
        self.ports.next()
    }

    pub(crate) fn first_zone(&self) -> Zone {
        // A graph has at least one zone; the manifest sees to that.
        self.request.desired.zones[0].clone()
    }

    fn zones_in_use(&mut self, phase: ZonesPhase) {
        let desired = self.request.desired;
        let (from, stage_from) = (self.world.zones.clone(), self.world.stage);
        let (to, stage_to) = match phase {
            ZonesPhase::Growing if desired.zones.iter().all(|zone| from.contains(zone)) => return,
            ZonesPhase::Growing => {
                let leaving = from.iter().filter(|zone| !desired.zones.contains(zone));
                let stage = if from.is_empty() { desired.stage } else { stage_from };
                (desired.zones.iter().chain(leaving).cloned().collect(), stage)
            }
            ZonesPhase::Final => (desired.zones.clone(), desired.stage),
        };
        if from != to || stage_from != stage_to {
            self.push(Action::SetZones { from, to, stage_from, stage_to });
        }
    }

    fn edges_opened_and_changed(&mut self) {
        for (id, settings) in self.request.desired.load_balancers() {
            match self.world.edges.get(id).cloned() {
                None => {
                    let edge = self.edge(id, settings, None);
                    self.note(id, ChangeKind::Create, format!("the front door, on {}", edge.front.address));
                    self.push(Action::StartEdge { edge });
                }
                Some(from) => {
                    let to = self.edge(id, settings, Some(&from));
                    if from != to {
                        let change = edge_change(&from, &to);
                        self.note(id, ChangeKind::Update, "its settings changed");
                        self.push(Action::ConfigureEdge { from, to, change });
                    }
                }
            }
        }
    }

    /// The edge with its ports settled. Port 0 keeps the port it has, or takes a free one.
    fn edge(
        &mut self,
        id: &ResourceId,
        settings: &LoadBalancer,
        current: Option<&EdgeProcess>,
    ) -> EdgeProcess {
        let mut settle = |wished: std::net::SocketAddr, kept: Option<&FrontListener>| {
            let mut address = wished;
            if address.port() == 0 {
                let kept = kept.filter(|kept| kept.address.ip() == address.ip());
                address.set_port(kept.map_or_else(|| self.ports.next(), |kept| kept.address.port()));
            }
            FrontListener { address }
        };
        let front = settle(settings.listen, current.map(|edge| &edge.front));
        let kept_tls = current.and_then(|edge| edge.front_tls.as_ref());
        let front_tls = settings.tls.as_ref().map(|tls| settle(tls.listen, kept_tls));
        EdgeProcess { id: id.clone(), zone: self.first_zone(), front, front_tls, settings: settings.clone() }
    }

    fn services_removed(&mut self) {
        let standing: BTreeSet<ResourceId> = self
            .world
            .instances
            .keys()
            .map(|id| id.resource().clone())
            .chain(self.world.releases.keys().cloned())
            .collect();
        for id in standing {
            if !matches!(self.request.desired.resources.get(&id), Some(Resource::Service(_))) {
                self.note(&id, ChangeKind::Delete, "no longer in the manifest");
                instances::remove_all(self, &id);
                let from = self.world.releases.get(&id).cloned();
                if from.is_some() {
                    let previous_from = self.world.previous.get(&id).cloned();
                    let (to, previous_to) = (None, None);
                    self.push(Action::SetRelease { service: id, from, to, previous_from, previous_to });
                }
            }
        }
    }

    fn edges_closed(&mut self) {
        let closed: Vec<EdgeProcess> = self
            .world
            .edges
            .values()
            .filter(|edge| !self.request.desired.resources.contains_key(&edge.id))
            .cloned()
            .collect();
        for edge in closed {
            self.note(&edge.id, ChangeKind::Delete, "no longer in the manifest");
            self.push(Action::StopEdge { edge });
        }
    }

    fn finish(self) -> Result<Plan, PlanError> {
        if self.ports.missing > 0 {
            let offered = self.request.free_ports.len();
            return Err(PlanError::NotEnoughPorts { needed: offered + self.ports.missing, offered });
        }
        let app = self.request.desired.app.clone();
        let parent = self.request.parent;
        let id = fingerprint(&(&app, parent, &self.steps));
        Ok(Plan { id, app, parent, changes: self.changes, steps: self.steps })
    }
}

/// Threads and sockets are fixed at the start of an edge process; all else it takes live.
fn edge_change(from: &EdgeProcess, to: &EdgeProcess) -> EdgeChange {
    let fixed = |edge: &EdgeProcess| {
        let (front, front_tls) = (edge.front.clone(), edge.front_tls.clone());
        (front, front_tls, edge.settings.metrics, edge.settings.threads)
    };
    if fixed(from) == fixed(to) { EdgeChange::Live } else { EdgeChange::Replace }
}

/// Hands out free ports, each once.
struct Ports<'a> {
    free: std::slice::Iter<'a, u16>,
    taken: BTreeSet<u16>,
    missing: usize,
}

impl Ports<'_> {
    fn next(&mut self) -> u16 {
        match self.free.find(|port| self.taken.insert(**port)) {
            Some(port) => *port,
            None => {
                self.missing += 1;
                0
            }
        }
    }
}

/// FNV-1a, 64 bits, over the JSON form: tells plans apart; nothing is protected by it.
pub(crate) fn fingerprint(value: &impl serde::Serialize) -> String {
    struct Fnv(u64);
    impl std::io::Write for Fnv {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    // Plain data with text keys: neither the writer nor the serialiser can fail.
    let written = serde_json::to_writer(&mut hash, value);
    debug_assert!(written.is_ok(), "a plan always serialises");
    format!("{:016x}", hash.0)
}

impl fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").field("steps", &self.steps).finish_non_exhaustive()
    }
}
