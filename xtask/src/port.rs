//! Whether the demo can open its front door, and who stands in it where it cannot. Asked before anything is built, when
//! there may be no `switchback` yet that could say it.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

/// Where an app listens whose manifest does not say it.
const USUAL: &str = "127.0.0.1:8080";
/// The state of a socket that listens, in the fourth column of `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// What `listen` under `[edge]` of a manifest names. `None`: nothing that this can read.
pub fn listen(manifest: &str) -> Option<SocketAddr> {
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[edge]").skip(1);
    let mut edge = lines.take_while(|line| !line.starts_with('['));
    let named = edge.find_map(|line| {
        let value = line.strip_prefix("listen")?.trim_start().strip_prefix('=')?;
        value.trim_start().strip_prefix('"')?.split('"').next()
    });
    let address = named.unwrap_or(USUAL);
    if address.starts_with(':') { format!("0.0.0.0{address}").parse().ok() } else { address.parse().ok() }
}

/// Who has the address, such as `python3 (pid 12)`. `None`: nobody.
pub fn taken_by(address: SocketAddr) -> Option<String> {
    let error = TcpListener::bind(address).err()?;
    let port = address.port();
    let somebody = || format!("another program (`ss -ltnp 'sport = :{port}'` shows which)");
    (error.kind() == ErrorKind::AddrInUse).then(|| listener(port).unwrap_or_else(somebody))
}

/// Of other users' processes only root may know.
fn listener(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, at) = fields.get(1)?.split_once(':')?;
            let is_it = *fields.get(3)? == LISTENS && u16::from_str_radix(at, 16) == Ok(port);
            fields.get(9).filter(|_| is_it).map(ToString::to_string)
        })
    })?;
    let link = PathBuf::from(format!("socket:[{inode}]"));
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        if !descriptors.any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == link)) {
            return None;
        }
        let program = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("{} (pid {pid})", program.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_the_manifest_or_the_usual_one() {
        let listens = |manifest: &str| listen(manifest).map(|address| address.to_string());
        assert_eq!(listens("app = \"a\"\n[web]\nlisten = \":1\"").as_deref(), Some(USUAL));
        assert_eq!(
            listens("[edge]\nlisten_tls = \":8443\"\nlisten = \":80\" # all\n[db]").as_deref(),
            Some("0.0.0.0:80")
        );
        assert_eq!(listens("[edge]\nlisten=\"127.0.0.2:81\"").as_deref(), Some("127.0.0.2:81"));
        assert_eq!(listens("[edge]\nlisten = \"nowhere\""), None);
    }

    #[test]
    fn whoever_listens_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let who = taken_by(address).unwrap();
        assert!(who.ends_with(&format!("(pid {})", std::process::id())), "{who}");
        drop(taken);
        assert_eq!(taken_by(address), None);
    }
}
