//! HTTP/2 connections to endpoints: a few for all the requests of a thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::client::ClientStream;
use super::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use crate::balance::Endpoint;
use crate::exchange::{ConnectError, Connector};
use crate::server::{Thread, View};

/// Streams on one connection before another is opened, if the endpoint allows as many.
const STREAMS_PER_CONNECTION: usize = 128;

/// A connection that carries many streams. Its own task drives it.
#[derive(Debug)]
pub(crate) struct Multiplexed {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

/// What the connection, its streams and its task know together.
#[derive(Debug)]
struct State {
    streams: Cell<usize>,
    /// It failed, ended or said GOAWAY: no further stream.
    over: Cell<bool>,
    cut: CancellationToken,
}

impl Multiplexed {
    pub(crate) fn is_usable(&self) -> bool {
        !self.state.over.get()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.streams() < STREAMS_PER_CONNECTION.min(self.sender.current_max_send_streams())
    }

    pub(crate) fn streams(&self) -> usize {
        self.state.streams.get()
    }

    /// Ends it with all its streams.
    pub(crate) fn cut(&self) {
        self.state.cut.cancel();
    }

    /// No further stream on it; those open go on.
    pub(super) fn retire(&self) {
        self.state.over.set(true);
    }

    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// Counts a stream until the guard is dropped.
    pub(super) fn stream(self: &Rc<Self>) -> OnConnection {
        self.state.streams.set(self.streams() + 1);
        OnConnection(Rc::clone(self))
    }
}

/// A stream's place on its connection.
#[derive(Debug)]
pub(super) struct OnConnection(Rc<Multiplexed>);

impl OnConnection {
    pub(super) fn connection(&self) -> &Multiplexed {
        &self.0
    }
}

impl Drop for OnConnection {
    fn drop(&mut self) {
        let state = &self.0.state;
        state.streams.set(state.streams.get() - 1);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ClientConnector;

impl Connector for ClientConnector {
    type Connection = ClientStream;

    fn pooled(thread: &Rc<Thread>, _: &View, endpoint: &Arc<Endpoint>) -> Option<ClientStream> {
        thread.pool.multiplexed(endpoint).map(|connection| ClientStream::new(connection.stream(), true))
    }

    async fn connect(
        thread: &Rc<Thread>,
        view: &View,
        endpoint: &Arc<Endpoint>,
    ) -> Result<ClientStream, ConnectError> {
        // One connects, the others wait and find what it got.
        let gate = thread.pool.gate(endpoint);
        let _turn = gate.lock().await;
        if let Some(stream) = ClientConnector::pooled(thread, view, endpoint) {
            return Ok(stream);
        }
        let connection = connect(thread, view, endpoint).await?;
        thread.pool.share(endpoint, Rc::clone(&connection));
        Ok(ClientStream::new(connection.stream(), false))
    }

    fn give_back(_: &Rc<Thread>, _: &View, _: &Arc<Endpoint>, _: ClientStream) {}
}

async fn connect(
    thread: &Rc<Thread>,
    view: &View,
    endpoint: &Endpoint,
) -> Result<Rc<Multiplexed>, ConnectError> {
    let stream = TcpStream::connect(endpoint.address()).await.map_err(|_| ConnectError)?;
    // Without it the kernel may hold small frames back; failing to set it only costs time.
    let _ = stream.set_nodelay(true);
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .max_header_list_size(u32::try_from(view.limits.response_head.bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(|_| ConnectError)?;
    let state =
        Rc::new(State { streams: Cell::new(0), over: Cell::new(false), cut: CancellationToken::new() });
    let driven = Rc::clone(&state);
    thread.drivers.spawn_local(async move {
        tokio::select! {
            // An error reaches every stream by itself.
            _ = connection => {}
            () = driven.cut.cancelled() => {}
        }
        driven.over.set(true);
    });
    Ok(Rc::new(Multiplexed { sender, state }))
}
