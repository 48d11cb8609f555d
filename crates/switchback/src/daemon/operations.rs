//! What each request does. One operation that changes things runs at a time; looking is always possible.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use local::machine::{ApplyError, Event, Report, StepError, StopMode};
use local::release::{DiskFloor, Releases};
use model::{DatabaseRole, NodeId, Release, ReleaseId, ResourceGraph, ResourceId, Service};
use plan::{FoundData, Plan, PlanError};
use serde::Serialize;
use serde_json::Value;

use local::chain;

use super::{Daemon, serving};
use crate::api::{
    Failure, FailureKind, Hello, Outcome, Planned, Request, Restarted, Status, StoredRelease, SwitchedOver,
};

/// Of what a rehearsal found. The figures of all tiers have less.
const MAX_REMEMBERED_CHARS: usize = 16_000;
/// Processes that whoever observes may name.
const MAX_NAMED: usize = 16;
/// Below the range that the kernel gives to outgoing connections by default (32768 and up), so that a port that is
/// remembered is not taken by a stray connection while its owner restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// More than any plan needs: instances of the largest service, twice, and the fixed ones.
const PORTS_OFFERED: usize = 160;
/// Stands for a release that was not made yet, in a plan that is only looked at.
const RELEASE_TO_COME: &str = "000000000000";

impl Daemon {
    pub(super) async fn answer(&self, request: Request, report: &Report) -> Result<Value, Failure> {
        match request {
            Request::Hello => value(&self.hello()),
            Request::Status => value(&self.status().await),
            Request::Why { limit } => {
                value(&self.machine.decisions(limit).map_err(|error| Failure::failed(chain(&error)))?)
            }
            Request::Releases => value(&self.releases()?),
            Request::Metrics => value(&self.machine.metrics().await),
            Request::Observe { named } => {
                value(&self.machine.observe(&named[..named.len().min(MAX_NAMED)]).await)
            }
            Request::Intervene { cpu_millis, lasts_ms } => {
                let _claim = self.claim_after_taking_over("an intervention of a rehearsal").await?;
                let lasts = Duration::from_millis(lasts_ms);
                let intervened = self.machine.intervene(&cpu_millis, lasts).await;
                value(&intervened.map_err(|error| Failure::refused(error.reason))?)
            }
            Request::Remember { decision, evidence } => {
                let short = |text: String| text.chars().take(MAX_REMEMBERED_CHARS).collect::<String>();
                self.machine.remember("rehearsal", short(decision), short(evidence));
                value(&())
            }
            Request::Plan { graph, destroy } => value(&self.planned(&graph, &destroy)?),
            Request::Up { graph, destroy } => {
                let _claim = self.claim_after_taking_over("up").await?;
                value(&self.up(&graph, &destroy, report).await?)
            }
            Request::Apply { plan } => {
                let _claim = self.claim_after_taking_over("apply").await?;
                self.must_run()?;
                self.finish_what_was_begun(report).await?;
                value(&self.apply(plan, Vec::new(), report).await?)
            }
            Request::Deploy { graph } => {
                let _claim = self.claim_after_taking_over("deploy").await?;
                self.must_run()?;
                self.finish_what_was_begun(report).await?;
                value(&self.deploy(&graph, report).await?)
            }
            Request::Rollback { graph, release } => {
                let _claim = self.claim_after_taking_over("rollback").await?;
                self.must_run()?;
                self.finish_what_was_begun(report).await?;
                value(&self.rollback(&graph, release, report).await?)
            }
            Request::ReplaceEdge => {
                let _claim = self.claim_after_taking_over("edge replacement").await?;
                self.machine.replace_edges().await.map_err(step_failed)?;
                value(&())
            }
            Request::ReplaceProxies => {
                let _claim = self.claim_after_taking_over("proxy replacement").await?;
                self.machine.replace_proxies().await.map_err(step_failed)?;
                value(&())
            }
            Request::Backup { cluster } => {
                self.must_run()?;
                value(&self.machine.take_backup(&cluster, report).await.map_err(step_failed)?)
            }
            Request::Backups { cluster, from } => {
                value(&self.machine.backups(&cluster, from.as_deref()).await.map_err(step_failed)?)
            }
            Request::ProveBackup { cluster } => {
                self.must_run()?;
                value(&self.machine.prove_backup(&cluster, report).await.map_err(step_failed)?)
            }
            Request::CheckRestore { cluster, to, from } => {
                self.must_run()?;
                value(&self.machine.check_restore(&cluster, to, from.as_deref()).await.map_err(step_refused)?)
            }
            Request::Restore { cluster, to, from } => {
                let _claim = self.claim_after_taking_over("restore").await?;
                self.must_run()?;
                self.finish_what_was_begun(report).await?;
                value(&self.restore(&cluster, to, from.as_deref(), report).await?)
            }
            Request::ForgetReplaced { cluster } => {
                // A restore that is not over may yet need what it has put aside.
                let _claim = self.claim_after_taking_over("deletion of what restores put aside").await?;
                self.must_run()?;
                self.finish_what_was_begun(report).await?;
                value(&self.machine.forget_replaced(&cluster).await.map_err(step_failed)?)
            }
            Request::SwitchOver { cluster, to } => {
                let _claim = self.claim_after_taking_over("failover").await?;
                self.must_run()?;
                value(&self.switch_over(&cluster, to, report).await?)
            }
            Request::RestartNodes { cluster } => {
                let _claim = self.claim_after_taking_over("restart").await?;
                self.must_run()?;
                value(&self.restart_nodes(&cluster, report).await?)
            }
            Request::Leave => {
                // A daemon may be asked for a plan, and then to leave, before it has looked at everything.
                self.taken_over.cancelled().await;
                if !self.machine.world().running && self.current_operation().is_none() {
                    self.leaving.cancel();
                }
                value(&())
            }
            Request::Down { mode, destroy } => self.down(mode, destroy, report).await,
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            supervised: self.is_supervised(),
        }
    }

    fn claim(&self, name: &str) -> Result<super::Claim, Failure> {
        self.begin(name).ok_or_else(|| {
            let current = self.current_operation();
            let doing = current.map_or_else(|| "another operation".to_owned(), |operation| operation.name);
            Failure::busy(format!("{doing} is in progress"))
                .hint("wait for it to end; `switchback status` shows it")
        })
    }

    /// As [`Daemon::claim`], but a daemon that has just begun is waited for.
    async fn claim_after_taking_over(&self, name: &str) -> Result<super::Claim, Failure> {
        self.taken_over.cancelled().await;
        self.claim(name)
    }

    async fn status(&self) -> Status {
        Status {
            machine: self.machine.status().await,
            daemon: self.hello(),
            operation: self.current_operation(),
        }
    }

    pub(super) async fn up(
        &self,
        graph: &ResourceGraph,
        destroy: &BTreeSet<ResourceId>,
        report: &Report,
    ) -> Result<Outcome, Failure> {
        // What runs already is left alone; what a reboot or a failure left down is started.
        let restored = self.machine.restore(report).await;
        self.finish_what_was_begun(report).await?;
        // Refused before anything is built.
        self.found(graph)?;
        let mut notes = Vec::new();
        let mut releases = self.current_releases();
        for (id, service) in graph.services() {
            if self.machine.setup().app_runs_as_root(service.user.as_deref()) {
                notes.push(format!(
                    "{id} runs as root, because its folder belongs to root; `user` under [{id}] names someone else"
                ));
            }
            match releases.get(id) {
                None => {
                    let first = self.machine.make_release(id, service, report).await.map_err(step_failed)?;
                    releases.insert(id.clone(), first);
                }
                Some(release) if !same_commands(release, service) => notes.push(format!(
                    "the commands of {id} changed in the manifest; `switchback deploy` makes a release with them"
                )),
                Some(_) => {}
            }
        }
        let plan = self.plan(graph, &releases, destroy)?;
        let Err(error) = restored else { return self.apply(plan, notes, report).await };
        // What cannot be started as it was may be what the manifest has changed since: another address, for one.
        if plan.is_empty() {
            return Err(step_failed(error));
        }
        let outcome = self.apply(plan, notes, report).await.map_err(|_| step_failed(error))?;
        self.machine.restore(report).await.map_err(step_failed)?;
        Ok(outcome)
    }

    async fn switch_over(
        &self,
        cluster: &ResourceId,
        to: Option<NodeId>,
        report: &Report,
    ) -> Result<SwitchedOver, Failure> {
        let topology = self.machine.world().topology;
        let Some(primary) = topology.primary_of(cluster) else {
            return Err(step_refused(self.machine.no_such_database(cluster)));
        };
        let standbys =
            || topology.followers_of(cluster).filter(|n| topology.role_of(&n.id) == DatabaseRole::Standby);
        let to = match to {
            Some(to) if topology.followers_of(cluster).any(|node| node.id == to) => to,
            Some(to) if to == primary.id => {
                return Err(Failure::refused(format!("{to} is the primary already")));
            }
            Some(to) => {
                let nodes: Vec<String> = topology.nodes_of(cluster).map(|node| node.id.to_string()).collect();
                return Err(Failure::refused(format!("{to} is no node of {cluster}")).hint(format!(
                    "it has {}; {} is the primary",
                    nodes.join(", "),
                    primary.id
                )));
            }
            None => standbys().next().map(|node| node.id.clone()).ok_or_else(|| {
                Failure::refused(format!("{cluster} has no standby that could take over"))
                    .hint("`switchback stage 2` adds one, or `standbys = 1` under [db]")
            })?,
        };
        let began = Instant::now();
        self.machine.switch_over(cluster, &to).await.map_err(step_failed)?;
        self.machine.followers_settle(report).await;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(SwitchedOver { from: primary.id.clone(), to, took_ms })
    }

    async fn restart_nodes(&self, cluster: &ResourceId, report: &Report) -> Result<Restarted, Failure> {
        if self.machine.world().topology.primary_of(cluster).is_none() {
            return Err(step_refused(self.machine.no_such_database(cluster)));
        }
        let began = Instant::now();
        let restarted = self.machine.restart_nodes(cluster, report).await.map_err(step_failed)?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let known = restarted.iter().filter_map(|(node, version)| Some((node.clone(), version.as_ref()?)));
        let versions = known.map(|(node, version)| (node, version.to_string())).collect();
        let nodes = restarted.into_iter().map(|(node, _)| node).collect();
        Ok(Restarted { nodes, versions, took_ms })
    }

    async fn deploy(&self, graph: &ResourceGraph, report: &Report) -> Result<Outcome, Failure> {
        let mut releases = self.current_releases();
        let mut notes = Vec::new();
        for (id, service) in graph.services() {
            let made = self.machine.make_release(id, service, report).await.map_err(step_failed)?;
            if releases.get(id) == Some(&made) {
                notes.push(format!("nothing changed: {id} serves release {} already", made.id));
            }
            releases.insert(id.clone(), made);
        }
        let plan = self.plan(graph, &releases, &BTreeSet::new())?;
        let outcome = self.apply(plan, notes, report).await;
        self.prune(graph, report).await;
        outcome
    }

    async fn rollback(
        &self,
        graph: &ResourceGraph,
        wanted: Option<ReleaseId>,
        report: &Report,
    ) -> Result<Outcome, Failure> {
        let mut releases = self.current_releases();
        for (id, _) in graph.services() {
            let target = match &wanted {
                Some(wanted) => {
                    let stored = self.stored().get(wanted).map_err(|error| failed(&error))?;
                    if let Some(before) = stored.as_ref().and_then(|stored| stored.failed.as_ref()) {
                        // Not refused: what it failed on may be mended by now, and it is tried as any other.
                        let text = format!("release {wanted} was taken back before: {}", before.because);
                        report(Event::Note { text });
                    }
                    stored.map(|stored| stored.release())
                }
                None => self.machine.world().topology.previous.get(id).cloned(),
            };
            let target = target.ok_or_else(|| {
                let refused = match &wanted {
                    Some(wanted) => Failure::refused(format!("there is no release {wanted}")),
                    None => Failure::refused("there is no earlier release to go back to"),
                };
                refused.hint("`switchback rollback --list` shows those that are kept")
            })?;
            let (stored, checked) = (self.stored(), target.id.clone());
            let verified = tokio::task::spawn_blocking(move || stored.verify(&checked)).await;
            verified.map_err(|error| failed(&error))?.map_err(|error| failed(&error).hint(error.hint()))?;
            releases.insert(id.clone(), target);
        }
        let plan = self.plan(graph, &releases, &BTreeSet::new())?;
        self.apply(plan, Vec::new(), report).await
    }

    fn stored(&self) -> Releases {
        Releases::at(self.machine.setup().state.releases())
    }

    fn releases(&self) -> Result<Vec<StoredRelease>, Failure> {
        StoredRelease::all(&self.stored(), &self.machine.world().topology).map_err(|error| failed(&error))
    }

    /// Keeps what serves, what a rollback would go to, and the newest others.
    async fn prune(&self, graph: &ResourceGraph, report: &Report) {
        let keep = graph.services().map(|(_, service)| service.keep_releases).max().unwrap_or(1);
        let topology = self.machine.world().topology;
        let instances = topology.instances.values().map(|instance| instance.release.clone());
        let previous = topology.previous.values().map(|release| release.id.clone());
        let in_use: BTreeSet<ReleaseId> = instances.chain(previous).collect();
        let stored = self.stored();
        let pruned =
            tokio::task::spawn_blocking(move || stored.prune(keep as usize, &in_use, DiskFloor::default()))
                .await;
        // A release that cannot be deleted is only disk space.
        let text = match pruned {
            Ok(Ok(pruned)) if pruned.removed.is_empty() => return,
            Ok(Ok(pruned)) => {
                let names: Vec<String> = pruned.removed.iter().map(ToString::to_string).collect();
                format!("deleted the oldest releases: {}", names.join(", "))
            }
            Ok(Err(error)) => format!("old releases could not be deleted: {}", chain(&error)),
            Err(error) => format!("old releases could not be deleted: {error}"),
        };
        report(Event::Note { text });
    }

    async fn apply(&self, plan: Plan, notes: Vec<String>, report: &Report) -> Result<Outcome, Failure> {
        let applied = self.machine.apply(plan, report).await.map_err(|error| apply_failed(&error))?;
        let front = self.machine.status().await.front;
        Ok(Outcome { steps: applied.steps, front, releases: serving(&self.machine), notes })
    }

    /// Takes up a plan that a full disk or a `down --now` interrupted. That it had to be taken back is said, and is no
    /// reason not to go on: what stood before it stands.
    pub(super) async fn finish_what_was_begun(&self, report: &Report) -> Result<(), Failure> {
        match self.machine.resume(report).await {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(error @ ApplyError::RolledBack { .. })) => {
                report(Event::Note {
                    text: format!("the plan that was interrupted was taken back: {error}"),
                });
                Ok(())
            }
            Some(Err(error)) => Err(apply_failed(&error)),
        }
    }

    pub(super) async fn down(
        &self,
        mode: StopMode,
        destroy: bool,
        report: &Report,
    ) -> Result<Value, Failure> {
        // `now` interrupts whatever is in progress: its journal is taken up by the next `up`.
        if mode == StopMode::Graceful {
            self.taken_over.cancelled().await;
        }
        let _claim = match (self.claim("down"), mode) {
            (Ok(claim), _) => Some(claim),
            (Err(_), StopMode::Now) => None,
            (Err(busy), StopMode::Graceful) => {
                return Err(busy.hint("wait for it to end, or `switchback down --now`"));
            }
        };
        let stopped = self.machine.stop(mode, report).await;
        if destroy && stopped.is_ok() {
            self.machine.destroy().await.map_err(step_failed)?;
        }
        self.leaving.cancel();
        stopped.map_err(|error| Failure::failed(chain(&error)))?;
        value(&())
    }

    fn planned(&self, graph: &ResourceGraph, destroy: &BTreeSet<ResourceId>) -> Result<Planned, Failure> {
        let mut releases = self.current_releases();
        let mut preview_because = None;
        let mut notes = Vec::new();
        for (id, service) in graph.services() {
            match releases.get(id) {
                Some(release) if !same_commands(release, service) => notes.push(format!(
                    "the commands of {id} changed in the manifest; `switchback deploy` makes a release with them"
                )),
                Some(_) => {}
                None => {
                    let to_come = ReleaseId::new(RELEASE_TO_COME).map_err(|error| failed(&error))?;
                    let release = Release {
                        id: to_come,
                        run: service.run.clone(),
                        release_command: service.release.clone(),
                    };
                    releases.insert(id.clone(), release);
                    preview_because = Some(format!(
                        "{id} has no release yet, so {RELEASE_TO_COME} stands for it; `switchback up` makes the first"
                    ));
                }
            }
        }
        let mut starts = Vec::new();
        if !self.machine.world().running {
            starts = self.machine.what_restore_starts();
            preview_because.get_or_insert_with(|| {
                "the app is down; `switchback up` brings it up as the manifest says".to_owned()
            });
        }
        Ok(Planned { plan: self.plan(graph, &releases, destroy)?, preview_because, starts, notes })
    }

    fn plan(
        &self,
        graph: &ResourceGraph,
        releases: &BTreeMap<ResourceId, Release>,
        destroy: &BTreeSet<ResourceId>,
    ) -> Result<Plan, Failure> {
        let world = self.machine.world();
        let free_ports = free_ports(&self.machine.setup().state.tag());
        let found = self.found(graph)?;
        let request = plan::Request {
            current: &world.topology,
            parent: world.generation,
            desired: graph,
            releases,
            free_ports: &free_ports,
            destroy,
            found: &found,
        };
        plan::plan(&request).map_err(|error| plan_failed(&error))
    }

    fn found(&self, graph: &ResourceGraph) -> Result<BTreeMap<ResourceId, FoundData>, Failure> {
        let found = self.machine.find_data(graph);
        found.map_err(step_refused)
    }

    fn current_releases(&self) -> BTreeMap<ResourceId, Release> {
        self.machine.world().topology.releases
    }

    fn must_run(&self) -> Result<(), Failure> {
        if self.machine.world().running {
            return Ok(());
        }
        Err(Failure::refused("the app is not up").hint("`switchback up` brings it up"))
    }
}

fn same_commands(release: &Release, service: &Service) -> bool {
    release.run == service.run && release.release_command == service.release
}

fn value(answer: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::failed(chain(error))
}

pub(super) fn step_failed(error: StepError) -> Failure {
    Failure { hint: error.hint, last_lines: error.last_lines, ..Failure::failed(error.reason) }
}

/// Of what was not begun.
pub(super) fn step_refused(error: StepError) -> Failure {
    Failure { kind: FailureKind::Refused, ..step_failed(error) }
}

pub(super) fn apply_failed(error: &ApplyError) -> Failure {
    let failure = match error {
        ApplyError::Stale { .. }
        | ApplyError::OtherApp(_)
        | ApplyError::Busy
        | ApplyError::BackupUnderWay(_)
        | ApplyError::DiskLow(_) => Failure::refused(error.to_string()),
        ApplyError::RolledBack { error: step, .. } => Failure {
            last_lines: step.last_lines.clone(),
            ..Failure::failed(format!("{error}. Everything was taken back"))
        },
        ApplyError::Store(_) | ApplyError::Interrupted => Failure::failed(chain(error)),
    };
    Failure { hint: error.hint(), ..failure }
}

fn plan_failed(error: &PlanError) -> Failure {
    match error {
        PlanError::WouldDestroy(ids) => {
            let flags: Vec<String> = ids.iter().map(|id| format!("--destroy {id}")).collect();
            Failure::refused(error.to_string())
                .hint(format!("put it back into the manifest, or delete its data with `{}`", flags.join(" ")))
        }
        PlanError::NothingToDestroy(id) => Failure::refused(error.to_string())
            .hint(format!("take [{id}] out of the manifest first, or leave `--destroy {id}` away")),
        PlanError::DatabaseRenamed(_) => Failure::refused(error.to_string())
            .hint("put the old `name` back; a database is renamed by hand, in psql, with the app down"),
        PlanError::NotEnoughPorts { .. } | PlanError::NoRelease(_) => Failure::failed(error.to_string()),
    }
}

/// Ports that nothing listens on now, from a place in the range that differs from app to app.
fn free_ports(tag: &str) -> Vec<u16> {
    let span = PORTS.end - PORTS.start;
    let offset = u16::from_str_radix(&tag[..4], 16).unwrap_or(0) % span;
    let candidates = (0..span).map(|step| PORTS.start + (offset + step) % span);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.filter(free).take(PORTS_OFFERED).collect()
}
