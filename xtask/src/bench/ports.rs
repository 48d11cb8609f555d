//! Ports for programs that open theirs themselves.

use std::net::TcpListener;

use crate::failure::{Failure, Result};

/// Ports that were free a moment ago.
///
/// # Errors
/// When there are none.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let listeners: std::io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let listeners = listeners.map_err(Failure::while_doing("free ports"))?;
    let ports: std::io::Result<Vec<u16>> =
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect();
    ports.map_err(Failure::while_doing("free ports"))
}
