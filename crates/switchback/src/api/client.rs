//! The command line's side of the API.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use local::machine::Event;
use serde::de::DeserializeOwned;

use super::{Failure, Message, Request};

/// How a request ended badly.
#[derive(Debug)]
pub enum CallError {
    /// No daemon listens, or it may not be asked by us.
    NoDaemon(io::Error),
    /// The daemon went away in the middle.
    Lost(io::Error),
    Failed(Failure),
}

/// Sends `request` and hears events until it is done. Blocks as long as the work takes.
///
/// # Errors
/// See [`CallError`].
pub fn call<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    mut heard: impl FnMut(Event),
) -> Result<T, CallError> {
    let mut stream = UnixStream::connect(socket).map_err(CallError::NoDaemon)?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).map_err(CallError::Lost)?;
    if *request == Request::Hello {
        // A daemon that does not even say hello is hung.
        stream.set_read_timeout(Some(Duration::from_secs(3))).map_err(CallError::Lost)?;
    }
    let mut line = serde_json::to_vec(request).map_err(io::Error::from).map_err(CallError::Lost)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(CallError::Lost)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(CallError::Lost)?;
        match serde_json::from_str(&line).map_err(io::Error::from).map_err(CallError::Lost)? {
            Message::Event { event } => heard(event),
            Message::Done { value } => {
                return serde_json::from_value(value).map_err(io::Error::from).map_err(CallError::Lost);
            }
            Message::Failed(failure) => return Err(CallError::Failed(failure)),
        }
    }
    Err(CallError::Lost(io::ErrorKind::UnexpectedEof.into()))
}
