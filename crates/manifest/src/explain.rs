//! What a manifest expands to, for people: every value and who said it.

use std::collections::BTreeMap;
use std::fmt::Write;

use model::{
    DatabaseCluster, Engine, LoadBalancer, PoolMode, Rehearsal, RehearsedMethod, RehearsedVisit,
    ResourceGraph, Service, ServiceProtocol, WithoutStandby,
};
use serde_json::{Value, json};

use crate::settings::{Source, Value as Setting};
use crate::units::duration_text;
use crate::{Manifest, PRESETS};

impl Manifest {
    /// The graph as a readable table, each value with whether it comes from the manifest, the Procfile, the preset of
    /// the stage or a default.
    pub fn explain(&self) -> String {
        render(&self.graph, &|path| match self.source_of(path) {
            Source::Preset => format!("stage {}", self.graph.stage),
            Source::Procfile => "Procfile".to_owned(),
            source => source.as_str().to_owned(),
        })
    }

    /// `{ "graph": .., "sources": { "web.instances": "preset", .. } }`.
    pub fn explain_json(&self) -> Value {
        let sources: BTreeMap<String, &str> =
            self.settings.sources().map(|(path, source)| (path.to_owned(), source.as_str())).collect();
        json!({ "graph": self.graph, "sources": sources })
    }

    fn source_of(&self, path: &str) -> Source {
        // A size or a certificate may be said as a whole or in parts.
        let said = |path: &str| self.settings.get(path).map(|setting| setting.source);
        let below = || {
            let prefix = format!("{path}.");
            self.settings.sources().find(|(path, _)| path.starts_with(&prefix)).map(|(_, source)| source)
        };
        // Of visits each has a row, and all of them are one value.
        let above = || {
            let (table, _) = path.rsplit_once('.')?;
            let setting = self.settings.get(table)?;
            matches!(setting.value, Some(Setting::Visits(_))).then_some(setting.source)
        };
        said(path).or_else(below).or_else(above).unwrap_or(Source::Default)
    }
}

/// The graph as a readable table, without saying where its values come from: for a graph that no manifest is at hand
/// for. [`Manifest::explain`] says it.
pub fn explain_text(graph: &ResourceGraph) -> String {
    render(graph, &|_| String::new())
}

struct Row {
    path: String,
    value: String,
}

fn render(graph: &ResourceGraph, source_of: &dyn Fn(&str) -> String) -> String {
    let preset = PRESETS.iter().find(|preset| preset.stage == graph.stage);
    let title = preset.map(|preset| format!(" ({})", preset.title)).unwrap_or_default();
    let mut text = format!("{}, stage {}{title}\n", graph.app, graph.stage);
    for (heading, rows) in sections(graph) {
        let _ = writeln!(text, "\n{heading}");
        for row in rows {
            let key = row.path.split_once('.').map_or(row.path.as_str(), |(_, key)| key);
            let line = format!("  {key:<26}{:<34} {}", row.value, source_of(&row.path));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

fn sections(graph: &ResourceGraph) -> Vec<(String, Vec<Row>)> {
    let zones: Vec<&str> = graph.zones.iter().map(|zone| zone.as_str()).collect();
    let mut app = vec![row("zones", zones.join(", "))];
    let domain = graph.load_balancers().find_map(|(_, edge)| edge.domain.clone());
    app.push(row("domain", domain.unwrap_or_else(|| "none".to_owned())));
    let mut sections = vec![("app".to_owned(), app)];
    // In the order a request takes.
    for (id, edge) in graph.load_balancers() {
        sections
            .push((format!("{id}: load balancer in front of {}", edge.default_service), load_balancer(edge)));
    }
    for (id, service) in graph.services() {
        let database =
            service.database.as_ref().map(|database| format!(", using {database}")).unwrap_or_default();
        sections.push((format!("{id}: service{database}"), service_rows(service)));
    }
    for (id, cluster) in graph.databases() {
        sections.push((format!("{id}: database cluster"), database(cluster)));
    }
    debug_assert_eq!(sections.len(), graph.resources.len() + 1, "a kind of resource is not explained");
    if let Some(rehearsal) = &graph.rehearsal {
        let writes = if rehearsal.writes() { "writes data into the app" } else { "only reads" };
        sections.push((format!("rehearsal: {writes}"), rehearsal_rows(rehearsal)));
    }
    sections
}

fn row(path: &str, value: impl ToString) -> Row {
    // A command of several lines stays one row.
    let value = value.to_string().replace(char::is_control, " ");
    Row { path: path.to_owned(), value }
}

fn or<T: ToString>(value: Option<T>, absent: &str) -> String {
    value.map_or_else(|| absent.to_owned(), |value| value.to_string())
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn load_balancer(edge: &LoadBalancer) -> Vec<Row> {
    let mut rows = vec![row("edge.listen", edge.listen)];
    match &edge.tls {
        None => rows.push(row("edge.tls", "none")),
        Some(tls) => {
            rows.push(row(
                "edge.tls",
                or(tls.certificate.as_ref().map(|files| &files.certificate_chain), "local"),
            ));
            rows.push(row("edge.listen_tls", tls.listen));
        }
    }
    rows.extend([
        row("edge.metrics", or(edge.metrics, "closed")),
        row("edge.threads", or(edge.threads, "one for each core")),
        row("edge.access_log", edge.access_log),
        row("edge.request_timeout", duration_text(edge.request_timeout_ms)),
        row("edge.max_body", edge.max_body),
        row("edge.trusted_proxies", list(&edge.trusted_proxies)),
    ]);
    rows
}

fn service_rows(service: &Service) -> Vec<Row> {
    let protocol = match service.protocol {
        ServiceProtocol::Http1 => "http1",
        ServiceProtocol::H2c => "h2c",
    };
    let variables: Vec<String> = service.env.keys().cloned().collect();
    vec![
        row("web.run", &service.run),
        row("web.build", or(service.build.as_ref(), "none")),
        row("web.release", or(service.release.as_ref(), "none")),
        row("web.include", list(&service.include)),
        row("web.instances", service.instances),
        row("web.size", service.size),
        row("web.protocol", protocol),
        row("web.health", or(service.health.path.as_ref(), "/healthz, /up, /health, then TCP")),
        row("web.start_timeout", duration_text(service.health.start_timeout_ms)),
        row("web.grace", duration_text(service.grace_ms)),
        row("web.user", or(service.user.as_ref(), "owner of the app's folder")),
        row("web.env", list(&variables)),
        row("web.keep_releases", service.keep_releases),
        row("web.deploy.window", duration_text(service.compare.window_ms)),
        row("web.deploy.max_worse_percent", service.compare.max_worse_percent),
        row("web.deploy.min_answers", service.compare.min_answers),
    ]
}

fn rehearsal_rows(rehearsal: &Rehearsal) -> Vec<Row> {
    let slo: Vec<String> = rehearsal.slo.iter().map(ToString::to_string).collect();
    let mut rows = vec![row("rehearsal.slo", list(&slo))];
    for (name, visit) in &rehearsal.visits {
        rows.push(row(&format!("rehearsal.visit.{name}"), visit_text(visit)));
    }
    rows
}

fn visit_text(visit: &RehearsedVisit) -> String {
    let steps = visit.steps.iter().map(|step| match step.method {
        RehearsedMethod::Get => step.path.clone(),
        RehearsedMethod::Post => format!("POST {}", step.path),
    });
    format!("{} of 100: {}", visit.weight, steps.collect::<Vec<_>>().join(", "))
}

fn database(cluster: &DatabaseCluster) -> Vec<Row> {
    let engine = match cluster.engine {
        Engine::Postgres => "postgres",
    };
    let without_standby = match cluster.without_standby {
        WithoutStandby::Block => "block",
        WithoutStandby::Degrade => "degrade",
    };
    let mut rows = vec![
        row("db.engine", engine),
        row("db.size", cluster.size),
        row("db.standbys", cluster.standbys),
        row("db.without_standby", without_standby),
        row("db.read_replicas", cluster.read_replicas),
    ];
    let mode = match cluster.pool.mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    };
    rows.extend([
        row("db.pool.mode", mode),
        row("db.pool.clients", cluster.pool.clients),
        row("db.pool.hold", duration_text(cluster.pool.hold_ms)),
        row("db.pool.max_replica_lag", duration_text(cluster.pool.max_replica_lag_ms)),
    ]);
    match &cluster.backups {
        Some(backups) => rows.extend([
            row("db.backups.to", backups.to.as_deref().unwrap_or("the state folder")),
            row("db.backups.every", duration_text(backups.every_ms)),
            row("db.backups.keep", backups.keep),
        ]),
        None => rows.push(row("db.backups", "off")),
    }
    rows.push(row("db.name", &cluster.database));
    rows
}
