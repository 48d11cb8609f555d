//! A configuration, checked and made ready for use: what requests read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::access_log::AccessLog;
use crate::balance::Cluster;
use crate::config::{self, UpstreamProtocol};
use crate::h1::HeadLimits;
use crate::marks::Marks;
use crate::watchdog::NEVER;

/// The configuration in force. Replaced as a whole.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) listeners: BTreeMap<String, Listener>,
    pub(crate) routes: Vec<Route>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) access_log_config: Option<config::AccessLog>,
    pub(crate) trusted: Vec<Network>,
    /// `None`: no database has marks.
    pub(crate) marks: Option<Marks>,
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) tls: Option<Certified>,
}

/// What was read from the files of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Certified {
    pub(crate) files: config::Tls,
    pub(crate) server: Arc<rustls::ServerConfig>,
}

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) host: Option<Box<[u8]>>,
    /// Without a trailing slash; empty takes every path.
    pub(crate) prefix: Box<[u8]>,
    /// Index into [`Snapshot::upstreams`].
    pub(crate) upstream: usize,
}

impl Route {
    pub(crate) fn matches(&self, authority: &[u8], path: &[u8]) -> bool {
        if let Some(host) = &self.host
            && !host_of(authority).eq_ignore_ascii_case(host)
        {
            return false;
        }
        match path.strip_prefix(&*self.prefix) {
            Some([]) | Some([b'/', ..]) => true,
            Some(_) => self.prefix.is_empty(),
            None => false,
        }
    }
}

/// The authority without its port.
fn host_of(authority: &[u8]) -> &[u8] {
    let after = memchr::memrchr(b']', authority).map_or(0, |at| at + 1);
    match memchr::memchr(b':', &authority[after..]) {
        Some(at) => &authority[..after + at],
        None => authority,
    }
}

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) protocol: UpstreamProtocol,
    pub(crate) queue_timeout: Duration,
    pub(crate) replay_body_bytes: usize,
    pub(crate) max_attempts: u32,
}

/// [`config::Timeouts`] as durations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) tls_handshake: Duration,
    pub(crate) request_head: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) request_body_idle: Duration,
    pub(crate) connect: Duration,
    pub(crate) response_head: Duration,
    pub(crate) response_body_idle: Duration,
    pub(crate) write_idle: Duration,
    pub(crate) tunnel_idle: Duration,
    pub(crate) upstream_idle: Duration,
}

impl Timeouts {
    pub(crate) fn new(timeouts: &config::Timeouts) -> Timeouts {
        let ms = Duration::from_millis;
        Timeouts {
            tls_handshake: ms(timeouts.tls_handshake_ms),
            request_head: ms(timeouts.request_head_ms),
            keep_alive: ms(timeouts.keep_alive_ms),
            request_body_idle: ms(timeouts.request_body_idle_ms),
            connect: ms(timeouts.connect_ms),
            response_head: ms(timeouts.response_head_ms),
            response_body_idle: match timeouts.response_body_idle_ms {
                0 => NEVER,
                limit => ms(limit),
            },
            write_idle: ms(timeouts.write_idle_ms),
            tunnel_idle: ms(timeouts.tunnel_idle_ms),
            upstream_idle: ms(timeouts.upstream_idle_ms),
        }
    }
}

/// [`config::Limits`] in the form they are checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_connections: u32,
    pub(crate) request_head: HeadLimits,
    pub(crate) response_head: HeadLimits,
    /// `u64::MAX`: no limit.
    pub(crate) request_body: u64,
    pub(crate) requests_per_connection: u64,
    pub(crate) h2_concurrent_streams: u32,
    pub(crate) h2_max_resets: usize,
    pub(crate) upstream_idle_connections: usize,
}

/// Fields of a response; far more than any server sends.
const MOST_RESPONSE_FIELDS: usize = 256;

impl Limits {
    pub(crate) fn new(limits: &config::Limits) -> Limits {
        Limits {
            max_connections: limits.max_connections,
            request_head: HeadLimits {
                bytes: limits.request_head_bytes,
                fields: limits.request_header_count,
                target: limits.request_target_bytes,
            },
            response_head: HeadLimits {
                bytes: limits.response_head_bytes,
                fields: MOST_RESPONSE_FIELDS,
                target: 0,
            },
            request_body: match limits.request_body_bytes {
                0 => u64::MAX,
                limit => limit,
            },
            requests_per_connection: limits.requests_per_connection,
            h2_concurrent_streams: limits.h2_concurrent_streams,
            h2_max_resets: limits.h2_max_resets,
            upstream_idle_connections: limits.upstream_idle_connections,
        }
    }
}

/// A CIDR block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: u128,
    mask: u128,
}

impl Network {
    /// `address/prefix`, or an address alone.
    pub(crate) fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return None;
        }
        // IPv4 stands in the mapped range, so that both kinds compare as one.
        let host_bits = width - prefix;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Network { base: mapped(address) & mask, mask })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        mapped(address) & self.mask == self.base
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_own_and_no_other_addresses() {
        let inside = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(inside("10.0.0.0/8", "10.255.0.1"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("0.0.0.0/0", "203.0.113.9"));
        assert!(!inside("0.0.0.0/0", "2001:db8::1"));
        assert!(inside("2001:db8::/32", "2001:db8:1::1"));
        assert!(inside("127.0.0.1", "::ffff:127.0.0.1"));
        assert_eq!(Network::parse("10.0.0.0/33"), None);
        assert_eq!(Network::parse("example.org/8"), None);
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        let route = |prefix: &str| Route {
            host: None,
            prefix: prefix.trim_end_matches('/').as_bytes().into(),
            upstream: 0,
        };
        assert!(route("/api").matches(b"h", b"/api"));
        assert!(route("/api").matches(b"h", b"/api/x"));
        assert!(!route("/api").matches(b"h", b"/apix"));
        assert!(route("/").matches(b"h", b"/anything"));
    }

    #[test]
    fn a_host_is_compared_without_port_and_case() {
        let route =
            Route { host: Some(b"example.org".as_slice().into()), prefix: Box::default(), upstream: 0 };
        assert!(route.matches(b"Example.ORG:8443", b"/"));
        assert!(!route.matches(b"example.org.evil", b"/"));
    }
}
