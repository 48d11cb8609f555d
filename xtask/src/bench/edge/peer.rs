//! Those who are measured: how each is configured and started.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::case::Logging;
use crate::bench::machine;
use crate::bench::processes::Program;
use crate::failure::{Failure, Result};
use crate::house;
use crate::setup;
use crate::shell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Edge,
    HAProxy,
    Nginx,
    /// A cache, here one that keeps nothing.
    Varnish,
}

pub const ALL: [Peer; 4] = [Peer::Edge, Peer::HAProxy, Peer::Nginx, Peer::Varnish];

/// With whom the edge is compared.
pub const OTHERS: [Peer; 3] = [Peer::HAProxy, Peer::Nginx, Peer::Varnish];

/// Ports and files of one peer.
pub struct Place<'a> {
    pub dir: &'a Path,
    pub port: u16,
    /// Where HTTP/2 without TLS is spoken, by those who do not speak both on one port.
    pub port_h2: u16,
    pub metrics: u16,
    pub backends: [u16; 2],
    pub echo: u16,
    pub threads: usize,
    pub logging: Logging,
    /// The `switchback` whose edge is measured.
    pub switchback: &'a Path,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Edge => "edge",
            Peer::HAProxy => "HAProxy",
            Peer::Nginx => "nginx",
            Peer::Varnish => "Varnish",
        }
    }

    /// Whether one port takes HTTP/1.1 and HTTP/2 without TLS.
    pub fn tells_http2_by_itself(self) -> bool {
        matches!(self, Peer::Edge | Peer::Varnish)
    }

    pub fn version(self, switchback: &Path) -> String {
        match self {
            Peer::Edge => machine::said(Command::new(switchback).arg("--version")),
            Peer::HAProxy => machine::said(Command::new(program("haproxy")).arg("-v")),
            Peer::Nginx => machine::said(Command::new(program("nginx")).arg("-v")),
            Peer::Varnish => machine::said(Command::new(program("varnishd")).arg("-V")),
        }
    }

    /// Where its access log goes, when it is on. HAProxy has no log file of its own: it is what it says on stdout.
    pub fn access_log(self, dir: &Path) -> PathBuf {
        match self {
            Peer::Edge => dir.join("edge.json.access.log"),
            Peer::HAProxy => dir.join("HAProxy.out"),
            Peer::Nginx => dir.join("nginx.conf.access.log"),
            Peer::Varnish => dir.join("varnish.access.log"),
        }
    }

    /// All that it consists of.
    ///
    /// # Errors
    /// When it cannot be configured or started.
    pub fn start(self, place: &Place<'_>) -> Result<Vec<Program>> {
        let log = place.dir.join(format!("{}.out", self.name()));
        let one = match self {
            Peer::Edge => start_edge(place, &log),
            Peer::HAProxy => {
                let config = configure("haproxy.cfg", place)?;
                let mut command = Command::new(program("haproxy"));
                Program::start(command.arg("-db").arg("-f").arg(config).stdin(Stdio::null()), &log)
            }
            Peer::Nginx => start_nginx("nginx.conf", place),
            Peer::Varnish => return start_varnish(place, &log),
        };
        Ok(vec![one?])
    }
}

/// The backend is an nginx too.
///
/// # Errors
/// When it cannot be started.
pub fn start_backend(place: &Place<'_>) -> Result<Program> {
    start_nginx("backend.conf", place)
}

fn start_nginx(config: &str, place: &Place<'_>) -> Result<Program> {
    let path = configure(config, place)?;
    let mut command = Command::new(program("nginx"));
    command
        .arg("-p")
        .arg(place.dir)
        .arg("-c")
        .arg(&path)
        .arg("-e")
        .arg(place.dir.join(format!("{config}.error")));
    Program::start(command.stdin(Stdio::null()), &place.dir.join(format!("{config}.out")))
}

/// It cannot be told how many threads to work with, as it gives one to each request; so it gets that number of processors. What it
/// logs stands in memory that it shares, from where a second program writes it to a file.
fn start_varnish(place: &Place<'_>, log: &Path) -> Result<Vec<Program>> {
    let (vcl, cli) = (configure("varnish.vcl", place)?, configure("varnish.cli", place)?);
    let work = place.dir.join("varnish");
    let mut command = Command::new("taskset");
    command.args(["-c", &format!("0-{}", place.threads - 1)]).arg(program("varnishd"));
    // A jail would make it another user, who may not enter our folder.
    command.args(["-F", "-j", "none", "-T", "none", "-a", &format!("127.0.0.1:{}", place.port)]);
    command.arg("-n").arg(&work).arg("-f").arg(vcl).arg("-I").arg(cli);
    let mut programs = vec![Program::start(command.stdin(Stdio::null()), log)?];
    if place.logging == Logging::On {
        let mut command = Command::new(program("varnishncsa"));
        // It waits for the other to begin.
        command.args(["-t", "20", "-n"]).arg(&work).arg("-w").arg(Peer::Varnish.access_log(place.dir));
        let log = place.dir.join("varnishncsa.out");
        programs.push(Program::start(command.stdin(Stdio::null()), &log)?);
    }
    Ok(programs)
}

fn start_edge(place: &Place<'_>, log: &Path) -> Result<Program> {
    let config = configure("edge.json", place)?;
    let front =
        TcpListener::bind(("127.0.0.1", place.port)).map_err(Failure::while_doing("the edge's port"))?;
    // The socket and the configuration are inherited as descriptors 3 and 4, as the daemon hands them over; a shell
    // moves the one there from its input, and opens the other.
    let mut command = Command::new("sh");
    command.args(["-c", "config=$1; shift; exec \"$0\" \"$@\" 3<&0 4<\"$config\" < /dev/null"]);
    command.arg(place.switchback).arg(config);
    command.args(["role", "edge", "--socket", "front=3", "--config-fd", "4"]);
    command.args(["--threads", &place.threads.to_string()]);
    command.arg("--control").arg(place.dir.join("edge.sock"));
    Program::start(command.stdin(Stdio::from(OwnedFd::from(front))), log)
}

/// Fills in a file of `bench/edge/` and gives the path of the result.
fn configure(name: &str, place: &Place<'_>) -> Result<PathBuf> {
    let source = house::root().join("bench/edge").join(format!("{name}.in"));
    let mut text = std::fs::read_to_string(&source).map_err(Failure::while_doing(source.display()))?;
    let access_log = place.dir.join(format!("{name}.access.log"));
    let is_on = place.logging == Logging::On;
    let access_log = match (name, is_on) {
        ("edge.json", true) => {
            format!(r#"{{ "path": "{}", "rotate_bytes": 1073741824 }}"#, access_log.display())
        }
        ("edge.json", false) => "null".to_owned(),
        (_, true) => access_log.display().to_string(),
        (_, false) => "off".to_owned(),
    };
    let values = [
        ("DIR", place.dir.display().to_string()),
        // As root, workers would be another user by default, who may not enter our folder.
        ("USER", if setup::is_root() { "user root;" } else { "" }.to_owned()),
        ("THREADS", place.threads.to_string()),
        ("PORT", place.port.to_string()),
        ("PORT_H2", place.port_h2.to_string()),
        ("METRICS", place.metrics.to_string()),
        ("BACKEND_1", place.backends[0].to_string()),
        ("BACKEND_2", place.backends[1].to_string()),
        ("ECHO", place.echo.to_string()),
        ("ACCESS_LOG", access_log),
        ("GLOBAL_LOG", if is_on { "log stdout format raw local0" } else { "" }.to_owned()),
        ("LOG", if is_on { "log global\n    option httplog" } else { "" }.to_owned()),
    ];
    for (key, value) in &values {
        text = text.replace(&format!("@{key}@"), value);
    }
    let path = place.dir.join(name);
    std::fs::write(&path, text).map_err(Failure::while_doing(path.display()))?;
    Ok(path)
}

fn program(name: &str) -> PathBuf {
    shell::find(name).unwrap_or_else(|| name.into())
}
