//! HTTP/1.1 connections to endpoints: from the pool, or new.

use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Client;
use crate::balance::Endpoint;
use crate::exchange::{ConnectError, Connector};
use crate::server::{Thread, View};

/// See the module.
#[derive(Debug)]
pub(crate) struct ClientConnector;

impl Connector for ClientConnector {
    type Connection = Client;

    const SAYS_WHAT_IT_DID_NOT_BEGIN: bool = false;

    fn pooled(thread: &Rc<Thread>, view: &View, endpoint: &Arc<Endpoint>) -> Option<Client> {
        thread.pool.take(endpoint, view.timeouts.upstream_idle)
    }

    async fn connect(
        thread: &Rc<Thread>,
        view: &View,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Client, ConnectError> {
        let stream = TcpStream::connect(endpoint.address()).await.map_err(|_| ConnectError)?;
        // Without it the kernel may hold a small request back; failing to set it only costs time.
        let _ = stream.set_nodelay(true);
        let client = Client::new(stream, view.limits.response_head);
        thread.pool.opened(endpoint, client.stream());
        Ok(client)
    }

    fn give_back(thread: &Rc<Thread>, view: &View, endpoint: &Arc<Endpoint>, mut client: Client) {
        if client.is_reusable() {
            client.mark_reused();
            thread.pool.give_back(endpoint, client, view.limits.upstream_idle_connections);
        }
    }
}
