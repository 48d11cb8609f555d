//! What two keys must have to do with each other; each key alone was checked by its card.

use std::net::SocketAddr;

use crate::check;
use crate::keys::{Card, TOP, Table};
use crate::problems::{At, Problems};
use crate::settings::{Settings, Source};

pub(crate) fn check(settings: &Settings, problems: &mut Problems) {
    tls_address_needs_tls(settings, problems);
    addresses_differ(settings, problems);
    metrics_address_is_known(settings, problems);
    database_name_is_free(settings, problems);
}

fn card_at(path: &str) -> Option<(&'static Table, &'static Card)> {
    TOP.all().into_iter().find_map(|table| {
        let card = table.cards.iter().find(|card| table.path(card.key) == path)?;
        Some((table, card))
    })
}

fn tls_address_needs_tls(settings: &Settings, problems: &mut Problems) {
    let Some(written) = settings.get("edge.listen_tls").and_then(|setting| setting.span.clone()) else {
        return;
    };
    if let (false, Some((_, tls))) = (settings.has("edge.tls"), card_at("edge.tls")) {
        problems.needs(written, "listen_tls", tls);
    }
}

fn addresses_differ(settings: &Settings, problems: &mut Problems) {
    let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
    for key in ["listen", "listen_tls", "metrics"] {
        let unused = key == "listen_tls" && !settings.has("edge.tls");
        let Some(address) = settings.address(&format!("edge.{key}")).filter(|_| !unused) else {
            continue;
        };
        let span = |key: &str| settings.get(&format!("edge.{key}")).and_then(|setting| setting.span.clone());
        if let Some((other, _)) = taken.iter().find(|(_, other)| overlap(*other, address)) {
            match (span(key), span(other)) {
                (Some(here), there) => problems.same_address(key, here, other, there),
                (None, Some(there)) => problems.same_address(other, there, key, None),
                // Two defaults: a test of the cards sees to it that they differ.
                (None, None) => {}
            }
        }
        taken.push((key, address));
    }
}

/// Port 0 is a free port each time it is asked for.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (everywhere || a.ip() == b.ip())
}

/// A scraper is configured with an address; a port that is chosen later is of no use to it.
fn metrics_address_is_known(settings: &Settings, problems: &mut Problems) {
    let chosen_later = settings.address("edge.metrics").is_some_and(|address| address.port() == 0);
    let span = settings.get("edge.metrics").and_then(|setting| setting.span.clone());
    if let (true, Some(span), Some((table, card))) = (chosen_later, span, card_at("edge.metrics")) {
        problems.malformed(&At { table, card, span }, "a scraper must know the port beforehand", None);
    }
}

/// A name in `[db]` was checked by its card; this is the one that is made from the app's.
fn database_name_is_free(settings: &Settings, problems: &mut Problems) {
    let app = settings.get("app").filter(|app| app.source == Source::Manifest);
    let (Some(app), Some(name)) = (app, settings.text("app")) else {
        return;
    };
    let database = database_name(&name);
    if settings.has("db") && !settings.has("db.name") && check::reserved_database_name(&database) {
        problems.reserved_database_name(app.span.clone().unwrap_or(0..0), &database);
    }
}

/// The database of an app that does not name one.
pub(crate) fn database_name(app: &str) -> String {
    app.replace('-', "_")
}
