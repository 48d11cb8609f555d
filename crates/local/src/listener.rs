//! Who listens on an address, as far as the kernel tells us: of other users' processes only root may know.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::process::stat::Stat;

/// The state of a socket that listens, in the fourth column of `/proc/net/tcp` (`TCP_LISTEN`).
const LISTENS: &str = "0A";

/// A process that has a socket in the way of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub pid: u32,
    pub program: String,
    /// Of a daemon of Switchback: what it serves.
    pub app: Option<App>,
}

/// The folders that a daemon was given in its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct App {
    pub dir: PathBuf,
    pub state_dir: PathBuf,
}

/// Who has a socket that keeps `address` from being bound. `None`: nobody, or somebody whom we may not look at.
pub(crate) fn in_the_way_of(address: SocketAddr) -> Option<Listener> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines()
            .skip(1)
            .filter_map(listening)
            .find(|(at, _)| collide(*at, address))
            .map(|(_, inode)| inode)
    })?;
    let link = PathBuf::from(format!("socket:[{inode}]"));
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == link)
    };
    // Whoever opened it is older than those who inherited it.
    let pid = pids
        .filter(has_it)
        .min_by_key(|pid| Stat::of(*pid).map_or(u64::MAX, |stat| stat.start_time_ticks))?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Listener { pid, program: program.trim_end().to_owned(), app: app_of(pid) })
}

/// `None` of everything that is no daemon, and of one that is its own command (`up --supervised`).
fn app_of(pid: u32) -> Option<App> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<&str> = std::str::from_utf8(&line).ok()?.split('\0').collect();
    let given = |option: &str| {
        let at = arguments.iter().position(|argument| *argument == option)?;
        arguments.get(at + 1).map(PathBuf::from)
    };
    Some(App { dir: given("--app-dir")?, state_dir: given("--state-dir")? })
}

fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let all = |at: SocketAddr| at.ip().is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || all(one) || all(other))
}

/// Address and inode of a line of `/proc/net/tcp` or `tcp6`, of a socket that listens.
fn listening(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != LISTENS {
        return None;
    }
    Some((address(fields.get(1)?)?, fields.get(9)?.parse().ok()?))
}

/// `0100007F:1F90`: words of 32 bits as this machine has them in memory, and the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = words.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match words.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn whoever_listens_is_found_by_the_address_that_is_in_the_way() {
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let mut wanted = listener.local_addr().unwrap();
            if wanted.ip().is_unspecified() {
                wanted.set_ip([127, 0, 0, 1].into());
            }
            let found = in_the_way_of(wanted).unwrap_or_else(|| panic!("{bound}: nobody"));
            assert_eq!(found.pid, std::process::id(), "{bound}");
            assert!(!found.program.is_empty());
            drop(listener);
            assert_eq!(in_the_way_of(wanted), None, "{bound}");
        }
    }

    #[test]
    fn the_same_port_of_another_address_is_in_nobodys_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], listener.local_addr().unwrap().port()));
        assert_eq!(in_the_way_of(elsewhere), None);
    }

    #[test]
    fn a_line_that_is_none_is_passed_over() {
        for line in
            ["", "sl local_address", "0: 0100007F:1F90 00000000:0000 0A", "0: 7F:1F90 0 0A 0 0 0 0 0 12"]
        {
            assert_eq!(listening(line), None, "{line}");
        }
    }
}
