//! Settings to the resource graph. Every value is there by now; this only puts them where the model has them.

use std::collections::BTreeMap;

use model::{
    AppName, BackupPolicy, CertificateFiles, CompareGate, DatabaseCluster, Engine, FrontTls, HealthProbe,
    LoadBalancer, PoolMode, PoolPolicy, Rehearsal, Resource, ResourceGraph, ResourceId, Service,
    ServiceProtocol, Size, WithoutStandby, Zone,
};

use crate::rules::database_name;
use crate::settings::Settings;
use crate::sizes;

/// The path of a value that nobody gave.
#[derive(Debug)]
pub(crate) struct Absent(pub &'static str);

const ZONES: [&str; 3] = ["a", "b", "c"];

/// # Errors
/// When neither the manifest nor the preset nor a default gives a value that the graph cannot do without.
pub(crate) fn expand(settings: &Settings) -> Result<ResourceGraph, Absent> {
    let app = settings.text("app").and_then(|name| AppName::new(name).ok()).ok_or(Absent("app"))?;
    let stage = settings.number("stage").ok_or(Absent("stage"))?;
    let wanted: usize = settings.number("zones").ok_or(Absent("zones"))?;
    let zones: Vec<Zone> = ZONES.iter().take(wanted).filter_map(|name| Zone::new(*name).ok()).collect();
    let [web, db, edge] = [id("web")?, id("db")?, id("edge")?];

    let mut resources = BTreeMap::new();
    let database = settings.has("db").then(|| db.clone());
    if settings.has("db") {
        resources.insert(db, Resource::DatabaseCluster(cluster(settings, &app)?));
    }
    resources.insert(edge, Resource::LoadBalancer(load_balancer(settings, web.clone())?));
    resources.insert(web, Resource::Service(service(settings, database)?));
    let rehearsal = if settings.has("rehearsal") { Some(rehearsal(settings)?) } else { None };
    Ok(ResourceGraph { app, stage, zones, resources, rehearsal })
}

fn rehearsal(settings: &Settings) -> Result<Rehearsal, Absent> {
    let written = settings.list("rehearsal.slo").ok_or(Absent("rehearsal.slo"))?;
    let slo = written.iter().map(|threshold| threshold.parse().map_err(|_| Absent("rehearsal.slo")));
    Ok(Rehearsal {
        slo: slo.collect::<Result<_, _>>()?,
        visits: settings.visits("rehearsal.visit").unwrap_or_default(),
    })
}

fn id(name: &'static str) -> Result<ResourceId, Absent> {
    ResourceId::new(name).map_err(|_| Absent(name))
}

fn cluster(settings: &Settings, app: &AppName) -> Result<DatabaseCluster, Absent> {
    let without_standby = match settings.text("db.without_standby").as_deref() {
        Some("degrade") => WithoutStandby::Degrade,
        _ => WithoutStandby::Block,
    };
    Ok(DatabaseCluster {
        engine: Engine::Postgres,
        size: size(settings, "db.size"),
        database: settings.text("db.name").unwrap_or_else(|| database_name(app.as_str())),
        standbys: settings.number("db.standbys").ok_or(Absent("db.standbys"))?,
        read_replicas: settings.number("db.read_replicas").ok_or(Absent("db.read_replicas"))?,
        without_standby,
        pool: pool(settings)?,
        backups: backups(settings)?,
    })
}

fn pool(settings: &Settings) -> Result<PoolPolicy, Absent> {
    let mode = match settings.text("db.pool.mode").as_deref() {
        Some("session") => PoolMode::Session,
        _ => PoolMode::Transaction,
    };
    let millis = |path| settings.millis(path).ok_or(Absent(path));
    Ok(PoolPolicy {
        mode,
        clients: settings.number("db.pool.clients").ok_or(Absent("db.pool.clients"))?,
        hold_ms: millis("db.pool.hold")?,
        max_replica_lag_ms: millis("db.pool.max_replica_lag")?,
    })
}

/// `None` for `backups = "off"`.
fn backups(settings: &Settings) -> Result<Option<BackupPolicy>, Absent> {
    if settings.text("db.backups").as_deref() == Some("off") {
        return Ok(None);
    }
    Ok(Some(BackupPolicy {
        to: settings.text("db.backups.to"),
        every_ms: settings.millis("db.backups.every").ok_or(Absent("db.backups.every"))?,
        keep: settings.number("db.backups.keep").ok_or(Absent("db.backups.keep"))?,
    }))
}

fn service(settings: &Settings, database: Option<ResourceId>) -> Result<Service, Absent> {
    let protocol = match settings.text("web.protocol").as_deref() {
        Some("h2c") => ServiceProtocol::H2c,
        _ => ServiceProtocol::Http1,
    };
    Ok(Service {
        run: settings.text("web.run").ok_or(Absent("web.run"))?,
        build: settings.text("web.build"),
        release: settings.text("web.release"),
        include: settings.list("web.include").ok_or(Absent("web.include"))?,
        instances: settings.number("web.instances").ok_or(Absent("web.instances"))?,
        size: size(settings, "web.size"),
        env: settings.environment("web.env").ok_or(Absent("web.env"))?,
        protocol,
        health: HealthProbe {
            path: settings.text("web.health"),
            start_timeout_ms: settings.millis("web.start_timeout").ok_or(Absent("web.start_timeout"))?,
        },
        grace_ms: settings.millis("web.grace").ok_or(Absent("web.grace"))?,
        user: settings.text("web.user"),
        database,
        compare: CompareGate {
            window_ms: settings.millis("web.deploy.window").ok_or(Absent("web.deploy.window"))?,
            max_worse_percent: settings
                .number("web.deploy.max_worse_percent")
                .ok_or(Absent("web.deploy.max_worse_percent"))?,
            min_answers: settings.number("web.deploy.min_answers").ok_or(Absent("web.deploy.min_answers"))?,
        },
        keep_releases: settings.number("web.keep_releases").ok_or(Absent("web.keep_releases"))?,
    })
}

fn load_balancer(settings: &Settings, default_service: ResourceId) -> Result<LoadBalancer, Absent> {
    let tls = match settings.has("edge.tls") {
        true => Some(FrontTls {
            listen: settings.address("edge.listen_tls").ok_or(Absent("edge.listen_tls"))?,
            certificate: certificate(settings),
        }),
        false => None,
    };
    Ok(LoadBalancer {
        listen: settings.address("edge.listen").ok_or(Absent("edge.listen"))?,
        tls,
        metrics: settings.address("edge.metrics"),
        domain: settings.text("domain"),
        default_service,
        threads: settings.number("edge.threads"),
        access_log: settings.flag("edge.access_log").ok_or(Absent("edge.access_log"))?,
        request_timeout_ms: settings.millis("edge.request_timeout").ok_or(Absent("edge.request_timeout"))?,
        max_body: settings.bytes("edge.max_body").ok_or(Absent("edge.max_body"))?,
        trusted_proxies: settings.list("edge.trusted_proxies").ok_or(Absent("edge.trusted_proxies"))?,
    })
}

/// `None` for `tls = "local"`.
fn certificate(settings: &Settings) -> Option<CertificateFiles> {
    Some(CertificateFiles {
        certificate_chain: settings.text("edge.tls.certificate_chain")?,
        private_key: settings.text("edge.tls.private_key")?,
    })
}

fn size(settings: &Settings, path: &str) -> Size {
    match settings.text(path).and_then(|name| sizes::named(&name)) {
        Some(size) => size,
        None => Size {
            cpu: settings.cores(&format!("{path}.cpu")),
            memory: settings.bytes(&format!("{path}.memory")),
        },
    }
}
