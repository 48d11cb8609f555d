//! What clients do.

use std::fmt;

use crate::failure::{Failure, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// 1 KB answers on 64 kept connections.
    KeepAlive,
    /// 1 KB answers, a new connection for each.
    NewConnection,
    /// 100 KB answers on 64 kept connections.
    Large,
    /// 1 KB answers over HTTP/2 without TLS: 16 connections with 8 streams each.
    Http2,
    /// Messages of 125 bytes there and back on 16 WebSockets.
    WebSocket,
}

impl Case {
    pub const ALL: [Case; 5] =
        [Case::KeepAlive, Case::NewConnection, Case::Large, Case::Http2, Case::WebSocket];

    pub fn name(self) -> &'static str {
        match self {
            Case::KeepAlive => "keep-alive",
            Case::NewConnection => "new-connection",
            Case::Large => "100k",
            Case::Http2 => "http2",
            Case::WebSocket => "websocket",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Case::KeepAlive => "1 KB, keep-alive, 64 connections",
            Case::NewConnection => "1 KB, a new connection for each request, 64 at once",
            Case::Large => "100 KB, keep-alive, 64 connections",
            Case::Http2 => "1 KB, HTTP/2 without TLS, 16 connections with 8 streams each",
            Case::WebSocket => {
                "WebSocket echo, 125 bytes, 16 connections (a request is a message there and back)"
            }
        }
    }

    pub fn named(name: &str) -> Result<Case> {
        let found = Case::ALL.into_iter().find(|case| case.name() == name);
        let names = Case::ALL.map(Case::name).join(", ");
        found.ok_or_else(|| Failure::usage(format!("no case `{name}`: there are {names}")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logging {
    Off,
    On,
}

impl fmt::Display for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Logging::Off => "access log off",
            Logging::On => "access log on",
        })
    }
}
