//! Where to listen, and whom to believe.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::de::DeInteger;

use super::integer;
use crate::problems::{At, Problems};
use crate::settings::Value;

/// A bare port is for trying things out: only this machine reaches it.
pub(super) fn port(at: &At, written: &DeInteger<'_>, problems: &mut Problems) -> Option<Value> {
    let port = integer(written).and_then(|port| u16::try_from(port).ok());
    if port.is_none() {
        problems.malformed(at, "a port is a number from 0 to 65535", None);
    }
    port.map(|port| Value::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
}

pub(super) fn text(at: &At, text: &str, problems: &mut Problems) -> Option<Value> {
    let address = match text.strip_prefix(':') {
        Some(port) => whole_port(port).map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        None => text.parse().ok(),
    };
    if address.is_none() {
        let why = match text.rsplit_once(':') {
            Some((host, _)) if host.parse::<IpAddr>().is_err() && !host.starts_with('[') => {
                "an address is an IP address and a port; names are not looked up"
            }
            _ => "not an address with a port",
        };
        problems.malformed(at, why, suggestion(at, text));
    }
    address.map(Value::Address)
}

/// A network in CIDR notation.
pub(super) fn network(at: &At, text: &str, problems: &mut Problems) -> Option<String> {
    let parsed = text.split_once('/').and_then(|(ip, bits)| {
        let ip: IpAddr = ip.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= widest(ip)).then_some(())
    });
    if parsed.is_some() {
        return Some(text.to_owned());
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => {
            problems.malformed(
                at,
                "the length is missing",
                Some(format!("{} = [\"{ip}/{}\"]", at.card.key, widest(ip))),
            );
        }
        Err(_) => problems.malformed(at, "not a network such as \"10.0.0.0/8\"", None),
    }
    None
}

fn widest(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// `str::parse` alone would take `+80`.
fn whole_port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn suggestion(at: &At, text: &str) -> Option<String> {
    let key = at.card.key;
    if let Some(port) = whole_port(text.trim()) {
        return Some(format!("{key} = {port}"));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(format!("{key} = \"{}\"", SocketAddr::new(ip, 8080)));
    }
    match text.rsplit_once(':') {
        Some(("localhost", port)) => whole_port(port).map(|port| format!("{key} = \"127.0.0.1:{port}\"")),
        Some(("*", port)) => whole_port(port).map(|port| format!("{key} = \":{port}\"")),
        _ => None,
    }
}
