//! A client's HTTP/2 connection.
use std::rc::Rc;

use crate::h1::Stream;
use crate::server::{Peer, Thread};

/// Serves it.
pub(crate) async fn serve<S: Stream + 'static>(_: &Rc<Thread>, _: S, _: Vec<u8>, _: &Peer) {}
