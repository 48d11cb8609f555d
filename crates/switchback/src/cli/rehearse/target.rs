//! Whom a rehearsal asks, and whether it may.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use local::machine::{ProcessKind, ProcessStatus};
use rehearsal::load::{Origin, Protocol, Tls};

use super::in_use;
use crate::api::Status;
use crate::cli::connect::App;
use crate::cli::plan::agreed;
use crate::cli::say::{self, BOLD, Problem, Stream, paint};

/// Requests per second from others, beyond which an app is one that people use now.
const QUIET: f64 = 0.2;
/// A bundle of authorities that every Debian has.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What a person has said of it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TargetArgs {
    /// Ask this app instead of the one that runs here, such as https://staging.example
    #[arg(long, value_name = "URL", requires = "yes_target")]
    target: Option<String>,
    /// The host of --target once more: you may load it, and nobody else will suffer
    #[arg(long, value_name = "HOST")]
    yes_target: Option<String>,
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
        let Some(url) = &args.target else { return ours(status, protocol) };
        let named = named(url, args.yes_target.as_deref().unwrap_or_default(), protocol)?;
        // Whoever names the app by its address loads the same app, and its users.
        let is_ours = edges(status).any(|edge| answers_at(&edge.address, named.origin.address));
        Ok(Target { is_ours, ..named })
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
        if self.is_ours && edges(status).any(|edge| !is_private(&edge.address)) {
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
    let address = edges(status).next().and_then(|edge| edge.address.parse::<SocketAddr>().ok());
    let mut address = address.ok_or_else(|| Problem::failed("the app has no front door"))?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let origin = Origin { authority: address.to_string(), address, protocol, tls: None };
    Ok(Target { url: format!("http://{address}"), origin, is_ours: true })
}

fn named(url: &str, again: &str, protocol: Protocol) -> Result<Target, Problem> {
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
    let tls = is_tls.then(|| Tls { server_name, authorities: SYSTEM_AUTHORITIES.into() });
    let origin = Origin { authority: authority.to_owned(), address, protocol, tls };
    Ok(Target { url: format!("{scheme}://{authority}"), origin, is_ours: false })
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
