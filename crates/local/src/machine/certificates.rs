//! Certificates that are renewed while the app serves.
//!
//! Whoever renews a certificate writes two files and tells nobody. So the daemon looks at them every now and then. What
//! holds something else than the edge has read, and has stood still since the look before, is tried; only what loads is
//! given to the edge, as another revision. What does not load is said once, and the certificate in use stays.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::PoisonError;

use edge::config::Tls;
use model::{EdgeProcess, Topology};

use super::Machine;
use super::roles::{edge_unit, encode};

/// The name of the listener with a certificate, in an edge's configuration.
pub(super) const FRONT_TLS: &str = "front-tls";

/// What the files held at the last look, by unit. Nothing where that is what the edge has.
pub(super) type Looks = BTreeMap<String, Look>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Perhaps somebody was still writing.
    Seen(u64),
    /// It does not load, and that was said.
    Refused(u64),
}

/// Differs when the files hold something else.
pub(super) fn revision(files: &Tls) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in [&files.certificate_chain, &files.private_key] {
        // What cannot be read is something else than what can be.
        std::fs::read(path).ok().hash(&mut hasher);
    }
    hasher.finish()
}

impl Machine {
    /// One look at the certificates of every edge. Those of the local authority are renewed by it when it is time.
    pub(super) async fn look_at_certificates(&self, looks: &mut Looks) {
        let topology = self.topology();
        for edge in topology.edges.values() {
            let unit = edge_unit(&edge.id);
            let Some(in_use) = self.certificate_in_use(&unit) else { continue };
            let config = match self.edge_config(edge, &topology) {
                Ok(config) => config,
                Err(error) => {
                    tracing::warn!(error = error.reason, "the certificates could not be looked at");
                    continue;
                }
            };
            let Some(wanted) = config.listeners.get(FRONT_TLS).and_then(|front| front.tls.clone()) else {
                continue;
            };
            let found = revision(&wanted);
            if found == in_use.revision {
                looks.remove(&unit);
            } else if looks.get(&unit) == Some(&Look::Seen(found)) {
                let renewed = Tls { revision: found, ..wanted };
                match edge::tls::server_config(&renewed) {
                    Ok(_) => self.take_up(edge, &topology, renewed).await,
                    Err(error) => {
                        looks.insert(unit.clone(), Look::Refused(found));
                        tracing::warn!(
                            edge = unit,
                            error = crate::chain(&error),
                            "a certificate does not load"
                        );
                        self.remember(&unit, "keep the certificate in use", crate::chain(&error));
                    }
                }
            } else if looks.get(&unit) != Some(&Look::Refused(found)) {
                looks.insert(unit, Look::Seen(found));
            }
        }
    }

    async fn take_up(&self, edge: &EdgeProcess, topology: &Topology, renewed: Tls) {
        let unit = edge_unit(&edge.id);
        let evidence = format!("{} has changed", renewed.certificate_chain.display());
        let pushed = async {
            let _in_order = self.inner.pushing.lock().await;
            let mut config = self.edge_config(edge, topology)?;
            if let Some(front) = config.listeners.get_mut(FRONT_TLS) {
                front.tls = Some(renewed);
            }
            self.push_role(&unit, encode(&config)?).await
        };
        match pushed.await {
            Ok(()) => self.remember(&unit, "take the renewed certificate into use", evidence),
            Err(error) => {
                tracing::warn!(edge = unit, error = error.reason, "a renewed certificate was not taken yet");
                // It is told again as every change is, until it takes it.
                self.inner.changed.send_modify(|count| *count += 1);
            }
        }
    }

    /// What the edge was told last.
    pub(super) fn certificate_in_use(&self, unit: &str) -> Option<Tls> {
        let units = self.units();
        let config = units.roles.get(unit)?.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        serde_json::from_value(config.get("listeners")?.get(FRONT_TLS)?.get("tls")?.clone()).ok()
    }
}
