//! A whole Switchback in a test: a small app in a folder of its own, the real binary, real processes, and clients that
//! count every failure.
//!
//! ```no_run
//! use testkit::{App, Load, Mix, Switchback};
//!
//! let app = App::python("shop").instances(2);
//! // In a test of the `switchback` crate: env!("CARGO_BIN_EXE_switchback").
//! let switchback = Switchback::up("switchback", app);
//! let load = Load::start(&switchback.url("/"), Mix::both());
//! switchback.must(&["stage", "2", "--yes"]);
//! load.stop().assert_nothing_failed(1_000);
//! ```
//!
//! Nothing is left behind: when a [`Switchback`] is dropped, in a panic too, everything it started is stopped, and a
//! guardian does the same when the test's process itself is killed.

mod app;
mod disk;
mod folder;
mod get;
mod guardian;
mod load;
mod output;
mod status;
mod switchback;
mod terminal;

pub use app::App;
pub use disk::{Disk, or_skip};
pub use get::{Answer, get, request};
pub use load::{Load, LoadReport, Mix};
pub use output::Output;
pub use status::{Process, Status};
pub use switchback::Switchback;
pub use terminal::{Keys, Terminal};
