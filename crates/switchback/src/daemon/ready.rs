//! Telling the service manager that the app answers: `sd_notify(3)`, without its library.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says it where somebody asked to be told.
pub(super) fn say() {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> io::Result<()> {
        let address = match address.as_bytes() {
            // systemd spells the first byte of an abstract name, which is NUL, as `@`.
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&address)?,
        };
        UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address)?;
        Ok(())
    };
    if let Err(error) = send() {
        tracing::warn!(%error, "the service manager could not be told that the app answers");
    }
}
