//! What is kept running, one kind a file: how it is started, when it is ready, how one sees that it lives.

pub(crate) mod instance;
pub(crate) mod node;
pub(crate) mod role;
