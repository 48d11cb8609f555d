//! The rollout of one service: which instances stay, which are resized, which are replaced, and in which order.
//!
//! Zones are filled evenly. A new instance always serves before an old one leaves, so a rollout never has fewer
//! endpoints than it began with and runs at most one instance more than the larger of old and new.

use std::collections::BTreeMap;

use model::{Instance, InstanceId, Release, ResourceId, Service, Topology, Zone, counted};

use crate::diff::Draft;
use crate::{Action, ChangeKind};

pub(crate) fn roll(draft: &mut Draft<'_>, id: &ResourceId, service: &Service, release: &Release) {
    let like = template(id, service, release, &draft.request.desired.zones[0]);
    let before = draft.world.clone();
    let was_served = before.releases.get(id).cloned();
    let moves = moves(&before, id, &like, service.instances, &draft.request.desired.zones);

    note_change(draft, id, service, release, &before, &moves);
    for (instance, to) in &moves.resized {
        draft.push(Action::ResizeInstance {
            id: instance.clone(),
            from: before.instances[instance].size,
            to: *to,
        });
    }
    if release.release_command.is_some() && !draft.world.prepared.contains(&release.id) {
        let (service, release, like) = (id.clone(), release.clone(), Box::new(like.clone()));
        draft.push(Action::RunReleaseCommand { service, release, like });
    }
    let mut leaving = moves.leaving.into_iter();
    let mut judged = was_served.as_ref().is_none_or(|served| served.id == release.id);
    for zone in moves.arriving {
        let new = start(draft, &like, zone);
        let old: Vec<InstanceId> = serving_other_release(&draft.world, id, release);
        if !judged && !old.is_empty() {
            draft.push(Action::Compare { new, old, gate: service.compare.clone() });
            judged = true;
        }
        if let Some(old) = leaving.next() {
            stop(draft, &old);
        }
    }
    for old in leaving {
        stop(draft, &old);
    }
    if was_served.as_ref() != Some(release) {
        let previous_from = before.previous.get(id).cloned();
        let replaced = was_served.clone().filter(|served| served.id != release.id);
        let previous_to = replaced.or_else(|| previous_from.clone());
        let (service, to) = (id.clone(), Some(release.clone()));
        draft.push(Action::SetRelease { service, from: was_served, to, previous_from, previous_to });
    }
}

pub(crate) fn remove_all(draft: &mut Draft<'_>, service: &ResourceId) {
    let all: Vec<InstanceId> =
        draft.world.instances_of(service).map(|instance| instance.id.clone()).collect();
    for id in all {
        stop(draft, &id);
    }
}

/// An instance of the service as it should be, but for its number, port and zone.
fn template(id: &ResourceId, service: &Service, release: &Release, zone: &Zone) -> Instance {
    Instance {
        id: InstanceId::new(id.clone(), 0),
        zone: zone.clone(),
        port: 0,
        release: release.id.clone(),
        run: release.run.clone(),
        env: service.env.clone(),
        size: service.size,
        protocol: service.protocol,
        health: service.health.clone(),
        grace_ms: service.grace_ms,
        user: service.user.clone(),
        database: service.database.clone(),
        in_rotation: false,
    }
}

/// What becomes of the instances of one service.
struct Moves {
    /// The zone of each new instance, in order.
    arriving: Vec<Zone>,
    /// Replaced ones before those that are simply too many.
    leaving: Vec<InstanceId>,
    resized: Vec<(InstanceId, model::Size)>,
}

fn moves(world: &Topology, id: &ResourceId, like: &Instance, count: u32, zones: &[Zone]) -> Moves {
    let mut wanted: BTreeMap<&Zone, u32> = zones.iter().map(|zone| (zone, 0)).collect();
    for zone in zones.iter().cycle().take(count as usize) {
        *wanted.entry(zone).or_default() += 1;
    }
    let mut moves = Moves { arriving: Vec::new(), leaving: Vec::new(), resized: Vec::new() };
    let mut surplus = Vec::new();
    for instance in world.instances_of(id) {
        let fits = serves_as(instance, like);
        match wanted.get_mut(&instance.zone) {
            Some(open) if fits && *open > 0 => {
                *open -= 1;
                if instance.size != like.size {
                    moves.resized.push((instance.id.clone(), like.size));
                }
            }
            _ if fits => surplus.push(instance.id.clone()),
            _ => moves.leaving.push(instance.id.clone()),
        }
    }
    moves.leaving.extend(surplus);
    // Zone by zone in turn, so that the first new instances already stand apart.
    while let Some(zone) = zones.iter().rev().filter(|zone| wanted[zone] > 0).max_by_key(|zone| wanted[zone])
    {
        moves.arriving.push(zone.clone());
        *wanted.entry(zone).or_default() -= 1;
    }
    moves
}

/// Whether a running instance can stay, its size apart, which changes live.
fn serves_as(instance: &Instance, like: &Instance) -> bool {
    let same = Instance {
        id: instance.id.clone(),
        zone: instance.zone.clone(),
        port: instance.port,
        size: instance.size,
        in_rotation: instance.in_rotation,
        ..like.clone()
    };
    *instance == same && instance.in_rotation
}

fn start(draft: &mut Draft<'_>, like: &Instance, zone: Zone) -> InstanceId {
    let service = like.id.resource().clone();
    let number = draft.world.next_instance.get(&service).copied().unwrap_or(1);
    let id = InstanceId::new(service, number);
    let instance = Instance { id: id.clone(), zone, port: draft.port(), ..like.clone() };
    draft.push(Action::StartInstance { instance });
    draft.push(Action::AddEndpoint { id: id.clone() });
    id
}

fn stop(draft: &mut Draft<'_>, id: &InstanceId) {
    if draft.world.instances[id].in_rotation {
        draft.push(Action::RemoveEndpoint { id: id.clone() });
    }
    let instance = draft.world.instances[id].clone();
    draft.push(Action::StopInstance { instance });
}

fn serving_other_release(world: &Topology, service: &ResourceId, release: &Release) -> Vec<InstanceId> {
    let old = world.instances_of(service).filter(|i| i.in_rotation && i.release != release.id);
    old.map(|instance| instance.id.clone()).collect()
}

fn note_change(
    draft: &mut Draft<'_>,
    id: &ResourceId,
    service: &Service,
    release: &Release,
    before: &Topology,
    moves: &Moves,
) {
    let standing = before.instances_of(id).count();
    if standing == 0 {
        let why = format!("{} of release {}", counted(moves.arriving.len(), "instance"), release.id);
        return draft.note(id, ChangeKind::Create, why);
    }
    if !moves.resized.is_empty() {
        let why = format!("size of {} to {}, live", counted(moves.resized.len(), "instance"), service.size);
        draft.note(id, ChangeKind::Update, why);
    }
    let (arriving, leaving) = (moves.arriving.len(), moves.leaving.len());
    let replaced = arriving.min(leaving);
    if replaced > 0 {
        let why = match before.releases.get(id) {
            Some(old) if old.id != release.id => format!("release {} to {}", old.id, release.id),
            _ => "its settings or its zones changed".to_owned(),
        };
        draft.note(id, ChangeKind::Replace, format!("{}: {why}", counted(replaced, "instance")));
    }
    if arriving > leaving {
        draft.note(id, ChangeKind::Update, format!("{} more", counted(arriving - leaving, "instance")));
    }
    if leaving > arriving {
        draft.note(id, ChangeKind::Update, format!("{} fewer", counted(leaving - arriving, "instance")));
    }
}
