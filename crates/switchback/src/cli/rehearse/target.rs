//! Whom a rehearsal asks, and whether it may.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

use local::machine::{ProcessKind, ProcessStatus, TlsStatus};
use rehearsal::load::{Origin, Protocol, Tls};

use super::in_use;
use crate::api::Status;
use crate::cli::connect::App;
use crate::cli::plan::agreed;
use crate::cli::say::{self, BOLD, Problem, Stream, paint};

/// Requests per second from others, beyond which an app is one that people use now.
const QUIET: f64 = 0.2;
/// Where systems keep the authorities that they trust, in one file.
const SYSTEM_AUTHORITIES: [&str; 5] = [
    // Debian, Ubuntu, Arch, Gentoo, Alpine.
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL.
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // openSUSE.
    "/etc/ssl/ca-bundle.pem",
    // Alpine, Void.
    "/etc/ssl/cert.pem",
];
const HTTPS_PORT: u16 = 443;

/// What a person has said of it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TargetArgs {
    /// Ask this app instead of the one that runs here, such as https://staging.example
    #[arg(long, value_name = "URL", requires = "yes_target")]
    target: Option<String>,
    /// The host of --target once more: you may load it, and nobody else will suffer
    #[arg(long, value_name = "HOST")]
    yes_target: Option<String>,
    /// Ask the app's TLS listener instead of the plain one
    #[arg(long, conflicts_with = "target")]
    tls: bool,
    /// PEM file of the authorities that are trusted [default: the app's own where `tls = "local"`, else the system's]
    #[arg(long, value_name = "FILE")]
    authorities: Option<PathBuf>,
    /// HTTP/2, one connection a visitor, instead of HTTP/1.1
    #[arg(long)]
    http2: bool,
    /// Do not ask whether the app may be loaded although others use it
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone)]
pub struct Target {
    pub origin: Origin,
    /// Such as `http://127.0.0.1:8080`.
    pub url: String,
    /// It is the app of this folder.
    pub is_ours: bool,
}

impl Target {
    /// The front door of the app, or what was named twice.
    ///
    /// # Errors
    /// When that is none that can be asked.
    pub fn of(args: &TargetArgs, status: &Status) -> Result<Target, Problem> {
        let protocol = if args.http2 { Protocol::Http2 } else { Protocol::Http1 };
        match &args.target {
            Some(url) => named(url, args, status, protocol),
            None if args.tls => ours_by_tls(args, status, protocol),
            None => ours(status, protocol),
        }
    }

    /// Asks for consent where others might suffer.
    ///
    /// # Errors
    /// When it is refused, or there is nobody to ask.
    pub fn consent(
        &self,
        args: &TargetArgs,
        app: &App,
        status: &Status,
        writes: bool,
    ) -> Result<(), Problem> {
        if writes {
            say::talk(&format!(
                "{} visits of this rehearsal send forms, as `[rehearsal]` of the manifest says: what they write stays in \
                 the app's database",
                paint(Stream::Err, BOLD, "note:")
            ));
        }
        if args.yes {
            return Ok(());
        }
        let reasons = self.reasons(app, status, writes);
        if reasons.is_empty() {
            return Ok(());
        }
        say::talk(&format!("{} {}", paint(Stream::Err, BOLD, "careful:"), reasons.join("; ")));
        if agreed("Load it all the same?")? {
            return Ok(());
        }
        Err(Problem::refused("nothing was asked of the app"))
    }

    fn reasons(&self, app: &App, status: &Status, writes: bool) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.origin.address.ip().is_loopback() {
            reasons.push(format!("{} is another machine", self.url));
        }
        if self.is_ours && listeners(status).any(|address| !is_private(address)) {
            reasons
                .push("the front door is open to other machines, so people may be using the app".to_owned());
        }
        let now = if self.is_ours { in_use::requests_per_second(app) } else { 0.0 };
        if now > QUIET {
            reasons.push(format!("somebody uses the app now ({now:.1} requests a second)"));
        }
        if writes && !self.is_ours {
            reasons.push("visits write there".to_owned());
        }
        reasons
    }
}

fn edges(status: &Status) -> impl Iterator<Item = &ProcessStatus> {
    status.machine.processes.iter().filter(|process| process.kind == ProcessKind::Edge)
}

/// All addresses of the front door.
fn listeners(status: &Status) -> impl Iterator<Item = &str> {
    edges(status).flat_map(|edge| {
        let tls = edge.tls.as_ref().map(|tls| tls.address.as_str());
        std::iter::once(edge.address.as_str()).chain(tls)
    })
}

/// Whether what listens at `edge` is asked by who connects to `address`.
fn answers_at(edge: &str, address: SocketAddr) -> bool {
    let Ok(edge) = edge.parse::<SocketAddr>() else { return false };
    let is_here = || match edge.ip().is_unspecified() {
        true => is_of_this_machine(address.ip()),
        false => edge.ip() == address.ip(),
    };
    edge.port() == address.port() && is_here()
}

/// The kernel gives sockets no other addresses.
fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

fn is_private(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

fn ours(status: &Status, protocol: Protocol) -> Result<Target, Problem> {
    let edge = edges(status).next().ok_or_else(|| Problem::failed("the app has no front door"))?;
    let address = reachable(&edge.address)?;
    let origin = Origin { authority: address.to_string(), address, protocol, tls: None };
    Ok(Target { url: format!("http://{address}"), origin, is_ours: true })
}

fn ours_by_tls(args: &TargetArgs, status: &Status, protocol: Protocol) -> Result<Target, Problem> {
    let tls = edges(status).find_map(|edge| edge.tls.as_ref()).ok_or_else(|| {
        Problem::usage("the app has no TLS listener")
            .hint("`tls` and `listen_tls` under `[edge]` give it one")
    })?;
    let server_name = tls.name.clone().ok_or_else(|| {
        Problem::usage("whom the app's certificate is for is not known")
            .hint("`domain` in the manifest says it; or ask for it by --target https://NAME:PORT")
    })?;
    let address = reachable(&tls.address)?;
    let authority = match address.port() {
        HTTPS_PORT => server_name.clone(),
        port => format!("{server_name}:{port}"),
    };
    let url = format!("https://{authority}");
    let tls = Some(Tls { server_name, authorities: authorities(args, Some(tls))? });
    Ok(Target { url, origin: Origin { authority, address, protocol, tls }, is_ours: true })
}

/// Where a listener is asked on this machine.
fn reachable(listener: &str) -> Result<SocketAddr, Problem> {
    let parsed: Result<SocketAddr, _> = listener.parse();
    let mut address = parsed.map_err(|_| Problem::failed(format!("`{listener}` cannot be asked")))?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(address)
}

/// What was typed; for the app of this folder, where it has an authority of its own, that; or the system's.
fn authorities(args: &TargetArgs, own: Option<&TlsStatus>) -> Result<PathBuf, Problem> {
    let named = args.authorities.clone().or_else(|| own?.authority.clone());
    let of_system = || SYSTEM_AUTHORITIES.into_iter().find(|path| Path::new(path).is_file());
    named.or_else(|| of_system().map(PathBuf::from)).ok_or_else(|| {
        Problem::failed("this system's authorities were not found").hint("--authorities FILE names them")
    })
}

fn named(url: &str, args: &TargetArgs, status: &Status, protocol: Protocol) -> Result<Target, Problem> {
    let again = args.yes_target.as_deref().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").ok_or_else(|| {
        Problem::usage(format!("`{url}` is no URL")).hint("such as https://staging.example")
    })?;
    let is_tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(Problem::usage(format!("`{scheme}` is not asked: only http and https are"))),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, port)| {
        if port.chars().all(|c| c.is_ascii_digit()) { host } else { authority }
    });
    if host.is_empty() || authority.contains('@') {
        return Err(Problem::usage(format!("`{url}` names no host")));
    }
    if again != host && again != authority {
        return Err(Problem::refused(format!(
            "--target names {host}, and --yes-target {again}: nothing was asked"
        ))
        .hint("the host is typed twice, because a rehearsal of somebody else's app is an attack on it"));
    }
    let with_port = if host == authority {
        format!("{authority}:{}", if is_tls { 443 } else { 80 })
    } else {
        authority.to_owned()
    };
    let found = with_port.to_socket_addrs().map_err(|error| Problem::failed(format!("{host}: {error}")))?;
    let address =
        found.into_iter().next().ok_or_else(|| Problem::failed(format!("{host} has no address")))?;
    let server_name = host.trim_matches(['[', ']']).to_owned();
    // Whoever names the app by its address loads the same app, and its users.
    let is_ours = listeners(status).any(|listener| answers_at(listener, address));
    let mut listening = edges(status).filter_map(|edge| edge.tls.as_ref());
    let own = listening.find(|tls| answers_at(&tls.address, address));
    let tls = match is_tls {
        true => Some(Tls { server_name, authorities: authorities(args, own)? }),
        false => None,
    };
    let origin = Origin { authority: authority.to_owned(), address, protocol, tls };
    Ok(Target { url: format!("{scheme}://{authority}"), origin, is_ours })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edge: &str, address: &str, expected: bool) {
        assert_eq!(answers_at(edge, address.parse().unwrap()), expected, "{edge} {address}");
    }

    #[test]
    fn an_app_is_known_by_each_address_that_it_answers_at() {
        check("127.0.0.1:8080", "127.0.0.1:8080", true);
        check("127.0.0.1:8080", "127.0.0.1:8081", false);
        check("127.0.0.1:8080", "127.0.0.2:8080", false);
        check("0.0.0.0:8080", "127.0.0.1:8080", true);
        check("0.0.0.0:8080", "127.0.0.2:8080", true);
        check("0.0.0.0:8080", "198.51.100.1:8080", false);
        check("nowhere", "127.0.0.1:8080", false);
    }
}
