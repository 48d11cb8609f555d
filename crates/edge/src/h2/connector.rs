//! HTTP/2 connections to endpoints: a few for all the requests of a thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::client::ClientStream;
use super::{SEND_BUFFER, STREAM_WINDOW};
use crate::balance::Endpoint;
use crate::exchange::{ConnectError, Connector};
use crate::server::{Thread, View};

/// Streams on one connection before another is opened, if the endpoint allows as many.
const STREAMS_PER_CONNECTION: usize = 128;

/// Of a whole connection: room for every stream's own window. With less, a few clients that read slowly would hold up all
/// others whose answers come by the same connection.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_PER_CONNECTION as u32;

/// A connection that carries many streams. Its own task drives it.
#[derive(Debug)]
pub(crate) struct Multiplexed {
    /// Sends nothing itself; its clones do.
    sender: RefCell<SendRequest<Bytes>>,
    opened: Instant,
    state: Rc<State>,
}

/// What the connection, its streams and its task know together.
#[derive(Debug)]
struct State {
    streams: Cell<usize>,
    /// It failed, ended or refused a stream: no further one.
    over: Cell<bool>,
    cut: CancellationToken,
}

impl Multiplexed {
    /// Whether it takes further streams, as far as is known: the instance may have said GOAWAY.
    pub(crate) fn is_usable(&self) -> bool {
        // Never pending, as nothing was sent by this handle.
        let cx = &mut Context::from_waker(Waker::noop());
        !self.state.over.get() && matches!(self.sender.borrow_mut().poll_ready(cx), Poll::Ready(Ok(())))
    }

    pub(crate) fn has_room(&self) -> bool {
        self.streams() < STREAMS_PER_CONNECTION.min(self.sender.borrow().current_max_send_streams())
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
        self.sender.borrow().clone()
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

    const SAYS_WHAT_IT_DID_NOT_BEGIN: bool = true;

    fn pooled(thread: &Rc<Thread>, _: &View, endpoint: &Arc<Endpoint>) -> Option<ClientStream> {
        let connection = thread.pool.multiplexed(endpoint, |_| true)?;
        Some(ClientStream::new(connection.stream(), true))
    }

    async fn connect(
        thread: &Rc<Thread>,
        view: &View,
        endpoint: &Arc<Endpoint>,
    ) -> Result<ClientStream, ConnectError> {
        // One connects, the others wait and find what it got. What was there before is no new connection.
        let asked = Instant::now();
        let gate = thread.pool.gate(endpoint);
        let _turn = gate.lock().await;
        let new = thread.pool.multiplexed(endpoint, |connection| connection.opened >= asked);
        if let Some(connection) = new {
            return Ok(ClientStream::new(connection.stream(), true));
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
    Ok(Rc::new(Multiplexed { sender: RefCell::new(sender), opened: Instant::now(), state }))
}
