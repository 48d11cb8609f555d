//! The command line's side of the API.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use local::machine::Event;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde::de::DeserializeOwned;
use tokio::io::AsyncBufReadExt;

use super::{Failure, Message, Request};

/// A daemon that does not even say hello for so long is hung.
const HELLO_LIMIT: Duration = Duration::from_secs(3);
/// One that does not say what is, either. A busy disk may hold it up for some seconds.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// How a request ended badly.
#[derive(Debug)]
pub enum CallError {
    /// No daemon listens, or it may not be asked by us, or it takes no connections any more (`WouldBlock`).
    NoDaemon(io::Error),
    /// The daemon went away in the middle, or said nothing for as long as there is to wait (`WouldBlock`).
    Lost(io::Error),
    Failed(Failure),
}

/// Sends `request` and hears events until it is done. Blocks as long as the work takes; what only looks is no work.
///
/// # Errors
/// See [`CallError`].
pub fn call<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    heard: impl FnMut(Event),
) -> Result<T, CallError> {
    send(socket, request)?.finish(heard)
}

/// The first half of [`call`].
///
/// # Errors
/// See [`CallError`].
pub fn send(socket: &Path, request: &Request) -> Result<Call, CallError> {
    let stream = connect_at_once(socket).map_err(CallError::NoDaemon)?;
    let limit = match request {
        Request::Hello => Some(HELLO_LIMIT),
        looks if looks.only_looks() => Some(LOOK_LIMIT),
        _ => None,
    };
    Call::send(stream, request, limit)
}

/// As [`call`], of what takes no time: a daemon that is silent for `limit` is left, and one that takes no connections as well.
///
/// # Errors
/// See [`CallError`].
pub fn call_within<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    limit: Duration,
) -> Result<T, CallError> {
    Call::begin(socket, request, limit)?.finish(|_| {})
}

/// As [`call`], of work that says how far it is: a daemon that has said nothing for `silence` is left.
///
/// # Errors
/// See [`CallError`].
pub fn call_while_heard<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    silence: Duration,
    heard: impl FnMut(Event),
) -> Result<T, CallError> {
    Call::begin(socket, request, silence)?.finish(heard)
}

/// Which process listens at `socket`, as the kernel says. It need not answer.
///
/// # Errors
/// When nobody does.
pub fn listener(socket: &Path) -> io::Result<u32> {
    let credentials = socket_peercred(connect_at_once(socket)?)?;
    u32::try_from(credentials.pid.as_raw_nonzero().get()).map_err(io::Error::other)
}

/// A request that was sent. The daemon works on it, whether or not its answer is waited for.
pub struct Call {
    stream: UnixStream,
}

impl Call {
    /// Sends `request`. A daemon that says nothing for `limit` is left.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn begin(socket: &Path, request: &Request, limit: Duration) -> Result<Call, CallError> {
        let stream = connect_at_once(socket).map_err(CallError::NoDaemon)?;
        Call::send(stream, request, Some(limit))
    }

    fn send(stream: UnixStream, request: &Request, limit: Option<Duration>) -> Result<Call, CallError> {
        let mut stream = stream;
        stream.set_write_timeout(Some(Duration::from_secs(10))).map_err(CallError::Lost)?;
        stream.set_read_timeout(limit).map_err(CallError::Lost)?;
        let mut line = serde_json::to_vec(request).map_err(io::Error::from).map_err(CallError::Lost)?;
        line.push(b'\n');
        stream.write_all(&line).map_err(CallError::Lost)?;
        Ok(Call { stream })
    }

    /// Hears events until it is done.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn finish<T: DeserializeOwned>(self, mut heard: impl FnMut(Event)) -> Result<T, CallError> {
        for line in BufReader::new(self.stream).lines() {
            if let Some(answer) = answer(&line.map_err(CallError::Lost)?, &mut heard)? {
                return Ok(answer);
            }
        }
        Err(CallError::Lost(io::ErrorKind::UnexpectedEof.into()))
    }

    /// As [`Call::finish`], for who has something else to hear meanwhile. Dropped, it is left. A daemon that is silent for
    /// `limit` is left, too.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn answered<T: DeserializeOwned>(self, limit: Duration) -> Result<T, CallError> {
        self.stream.set_nonblocking(true).map_err(CallError::Lost)?;
        let stream = tokio::net::UnixStream::from_std(self.stream).map_err(CallError::Lost)?;
        let mut lines = tokio::io::BufReader::new(stream).lines();
        loop {
            let line = tokio::time::timeout(limit, lines.next_line()).await;
            let line =
                line.unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into())).map_err(CallError::Lost)?;
            let line = line.ok_or_else(|| CallError::Lost(io::ErrorKind::UnexpectedEof.into()))?;
            if let Some(answer) = answer(&line, &mut |_| {})? {
                return Ok(answer);
            }
        }
    }
}

/// `None`: it goes on.
fn answer<T: DeserializeOwned>(line: &str, heard: &mut impl FnMut(Event)) -> Result<Option<T>, CallError> {
    match serde_json::from_str(line).map_err(io::Error::from).map_err(CallError::Lost)? {
        Message::Event { event } => {
            heard(event);
            Ok(None)
        }
        Message::Done { value } => {
            serde_json::from_value(value).map(Some).map_err(io::Error::from).map_err(CallError::Lost)
        }
        Message::Failed(failure) => Err(CallError::Failed(failure)),
    }
}

/// A listener whose queue is full would hold up a connect for ever: nobody takes from it.
fn connect_at_once(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connecting = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&connecting, &SocketAddrUnix::new(socket)?)?;
    let stream = UnixStream::from(connecting);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use local::machine::StopMode;
    use rustix::net::{bind, listen};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);
    const SILENCE: Duration = Duration::from_secs(1);

    /// Whoever waits within a runtime hears an interrupt meanwhile.
    #[tokio::test]
    async fn an_answer_that_is_not_waited_for_any_more_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("daemon.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let call = || Call::begin(&socket, &Request::Status, Duration::from_secs(30)).unwrap();
        let began = Instant::now();
        tokio::select! {
            answered = call().answered::<()>(Duration::from_secs(30)) => panic!("{answered:?}"),
            () = tokio::time::sleep(LIMIT) => {}
        }
        let silent = call().answered::<()>(LIMIT).await;
        assert!(matches!(&silent, Err(CallError::Lost(error)) if error.kind() == io::ErrorKind::WouldBlock));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

        let asked = call();
        // Those before it are left.
        let mut daemon = listener.incoming().nth(2).unwrap().unwrap();
        daemon.write_all(b"{\"type\":\"done\",\"value\":7}\n").unwrap();
        assert_eq!(asked.answered::<u32>(LIMIT).await.unwrap(), 7);
    }

    /// A daemon that was stopped, or hangs, still has its socket: the kernel takes connections until its queue is full.
    #[test]
    fn a_daemon_that_hangs_is_left_when_the_limit_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("daemon.sock");
        // With a short queue, so that it is soon full.
        let flags = SocketFlags::CLOEXEC;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        listen(&listener, 2).unwrap();
        let began = Instant::now();
        let silent = call_within::<()>(&socket, &Request::Status, LIMIT);
        assert!(matches!(silent, Err(CallError::Lost(_))), "{silent:?}");
        assert!(
            began.elapsed() >= LIMIT && began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );

        let mut waiting = Vec::new();
        let full = loop {
            match connect_at_once(&socket) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        for refused in [
            call_within::<()>(&socket, &Request::Status, LIMIT),
            call::<()>(&socket, &Request::Status, |_| {}),
        ] {
            assert!(matches!(refused, Err(CallError::NoDaemon(_))), "{refused:?}");
        }
    }

    /// However long the work takes; and one that has hung in the middle of it is found to.
    #[test]
    fn a_daemon_is_waited_for_as_long_as_it_says_how_far_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("daemon.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in 0..5 {
                std::thread::sleep(SILENCE / 3);
                let event = Event::Note { text: "stopping db.1".to_owned() };
                let line = serde_json::to_string(&Message::Event { event }).unwrap();
                writeln!(stream, "{line}").unwrap();
            }
            stream
        });
        let (began, mut heard) = (Instant::now(), 0);
        let down = Request::Down { mode: StopMode::Now, destroy: true };
        let hangs = call_while_heard::<()>(&socket, &down, SILENCE, |_| heard += 1);
        assert!(matches!(&hangs, Err(CallError::Lost(error)) if error.kind() == io::ErrorKind::WouldBlock));
        assert_eq!(heard, 5);
        assert!(began.elapsed() > SILENCE * 2 && began.elapsed() < SILENCE * 20, "{:?}", began.elapsed());
        drop(daemon.join().unwrap());
    }

    #[test]
    fn who_listens_is_known_without_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("daemon.sock");
        assert!(listener(&socket).is_err());
        let listens = UnixListener::bind(&socket).unwrap();
        assert_eq!(listener(&socket).unwrap(), std::process::id());
        drop(listens);
        assert!(listener(&socket).is_err());
    }
}
