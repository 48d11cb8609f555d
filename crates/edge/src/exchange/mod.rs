//! One request and its response, from routing to the access log, whatever protocols the two sides speak.
//!
//! The relay knows its two sides only by their [seams](seam): a [`Downstream`] and, through a [`Connector`], an
//! [`Upstream`]. Everything that makes a front door (routing, balancing, retries, header rules, limits, counting) is
//! here once. Dispatch is static; there is one copy of this code for each pair of protocols.

mod attempt;
mod ongoing;
mod pump;
mod refusal;
mod relay;
mod reply;
mod scratch;
mod seam;
mod tunnel;

pub(crate) use refusal::{Known, refused};
pub(crate) use relay::{ConnectError, Connector, run};
pub(crate) use reply::{reason_phrase, reply};
pub(crate) use scratch::Scratch;
pub(crate) use seam::{
    Downstream, HeadError, Next, Piece, RequestSink, ResponseSink, ResponseSource, Sink, SinkError, Source,
    SourceError, Upstream,
};
