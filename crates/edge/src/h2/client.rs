//! HTTP/2 with prior knowledge to endpoints.
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::Endpoint;
use crate::exchange::{ConnectError, Connector, Freshness};
use crate::h1::Client;
use crate::server::{Thread, View};

/// A connection that carries many streams.
#[derive(Debug)]
pub(crate) struct Multiplexed;

impl Multiplexed {
    pub(crate) fn is_usable(&self) -> bool {
        false
    }
    pub(crate) fn has_room(&self) -> bool {
        false
    }
    pub(crate) fn streams(&self) -> usize {
        0
    }
    pub(crate) fn cut(&self) {}
}

/// Connections of the pool.
#[derive(Debug)]
pub(crate) struct ClientConnector;

impl Connector for ClientConnector {
    type Connection = Client;
    async fn take(_: &Rc<Thread>, _: &View, _: &Arc<Endpoint>, _: Freshness) -> Result<Client, ConnectError> {
        Err(ConnectError)
    }
    fn give_back(_: &Rc<Thread>, _: &View, _: &Arc<Endpoint>, _: Client) {}
}
