//! What Switchback promises, tried on the real binary with real processes.
//!
//! Modules named `drill_` put load on a whole app and break things; they run one at a time, apart from the quick ones.

mod backup;
mod certificates;
mod changes;
mod cluster;
mod commands;
mod data;
mod drill_backup;
mod drill_consistency;
mod drill_costs;
mod drill_crashes;
mod drill_diagnosis;
mod drill_journey;
mod drill_scaling;
mod elsewhere;
mod example;
mod faults;
mod full_disk;
mod generate;
mod http2;
mod hung;
mod journey;
mod minor;
mod observe;
mod owners;
mod rehearse;
mod replicas;
mod service;
mod standalone;
mod stopped;
mod stuck_disk;
mod switchover;
mod terminal;

use testkit::{App, Switchback};

fn up(app: App) -> Switchback {
    Switchback::up(env!("CARGO_BIN_EXE_switchback"), app)
}

fn prepare(app: App) -> Switchback {
    Switchback::prepare(env!("CARGO_BIN_EXE_switchback"), app)
}
