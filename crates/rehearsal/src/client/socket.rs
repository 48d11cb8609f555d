//! A TCP socket that knows when what it read had come, however late it is read.
//!
//! The kernel notes when it has received each packet (`SO_TIMESTAMPNS`, socket(7)), and tells it to whoever reads. So a thread
//! may look at its sockets when that is cheapest, and what it measures is still the app's time and not its own.

use std::cell::Cell;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    arrived: Arrived,
}

/// When the last bytes that were read from a socket had come.
#[derive(Debug, Clone)]
pub struct Arrived(Rc<Cell<Instant>>);

impl Arrived {
    /// Before anything was read: when the socket was connected.
    pub fn last(&self) -> Instant {
        self.0.get()
    }
}

impl Socket {
    /// # Errors
    /// When it cannot connect, or the kernel does not time what it receives.
    pub async fn connect(socket: TcpSocket, to: SocketAddr) -> io::Result<Socket> {
        let stream = socket.connect(to).await?;
        // Without it the kernel may hold small requests back.
        stream.set_nodelay(true)?;
        note_arrivals(&stream)?;
        Ok(Socket { stream, arrived: Arrived(Rc::new(Cell::new(Instant::now()))) })
    }

    pub fn arrived(&self) -> Arrived {
        self.arrived.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let mut received = None;
            let tried = self.stream.try_io(Interest::READABLE, || {
                let room = buffer.initialize_unfilled();
                let taken = received.insert(receive(&self.stream, room)?);
                // It is empty then, and another read would only say so: this one says it.
                let is_empty = taken.bytes > 0 && taken.bytes < room.len();
                if is_empty { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            if let Some(Received { bytes, at }) = received {
                buffer.advance(bytes);
                self.arrived.0.set(at);
                return Poll::Ready(Ok(()));
            }
            match tried {
                Err(error)
                    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Received {
    /// 0: the other side has ended, which the kernel does not time.
    bytes: usize,
    at: Instant,
}

/// Of a control message with a time, exactly as cmsg(3) lays it out.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    time: libc::timespec,
}

fn note_arrivals(stream: &TcpStream) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the kernel reads as many bytes of the option as there are.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const yes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn receive(stream: &TcpStream, room: &mut [u8]) -> io::Result<Received> {
    let mut pieces = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: both are numbers and pointers, which may be zero. What the message points to is borrowed by this function alone
    // and lives until it ends, and the lengths beside it are those of what it points to, so the kernel writes nowhere else.
    let (result, control_bytes, control) = unsafe {
        let mut control: Control = zeroed();
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut pieces;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        (libc::recvmsg(stream.as_raw_fd(), &raw mut message, 0), message.msg_controllen as usize, control)
    };
    let bytes = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    let is_timed = control_bytes >= size_of::<Control>()
        && control.header.cmsg_level == libc::SOL_SOCKET
        && control.header.cmsg_type == libc::SCM_TIMESTAMPNS;
    Ok(Received { bytes, at: if is_timed { moment(&control.time) } else { Instant::now() } })
}

/// The moment that was `time` by the clock on the wall, which it has to be told by its age: that clock may be set.
fn moment(time: &libc::timespec) -> Instant {
    let since_epoch = Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
    let age = SystemTime::now().duration_since(UNIX_EPOCH + since_epoch).unwrap_or_default();
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// How much too late everything is read.
    const LATE: Duration = Duration::from_millis(20);
    /// The kernel begins to time what it receives a moment after the first socket has asked for it.
    const EXCHANGES: u32 = 100;

    #[test]
    fn what_is_read_late_had_come_when_it_was_sent() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let mut socket = Socket::connect(TcpSocket::new_v4().unwrap(), address).await.unwrap();
            let arrived = socket.arrived();
            let (mut server, _) = listener.accept().unwrap();
            for exchange in 1.. {
                let before = Instant::now();
                server.write_all(b"two ").unwrap();
                server.write_all(b"pieces").unwrap();
                std::thread::sleep(LATE);
                let late = Instant::now();
                let mut piece = [0; 100];
                assert_eq!(socket.read(&mut piece).await.unwrap(), "two pieces".len());
                assert!(arrived.last() >= before && arrived.last() <= Instant::now());
                if arrived.last() < late {
                    break;
                }
                assert!(exchange < EXCHANGES, "the kernel times nothing");
            }
        });
    }

    #[test]
    fn what_came_is_read_to_its_end_in_pieces_of_any_size() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let mut socket = Socket::connect(TcpSocket::new_v4().unwrap(), address).await.unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let serving = std::thread::spawn(move || {
                let mut asked = [0; 3];
                server.read_exact(&mut asked).unwrap();
                for _ in 0..1_000 {
                    server.write_all(&[b'x'; 997]).unwrap();
                }
                asked
            });
            socket.write_all(b"all").await.unwrap();
            let mut bytes = 0;
            for size in (1..5_000).cycle() {
                let mut piece = vec![0; size];
                let read = socket.read(&mut piece).await.unwrap();
                assert!(piece[..read].iter().all(|byte| *byte == b'x'));
                bytes += read;
                if read == 0 {
                    break;
                }
            }
            assert_eq!((bytes, &serving.join().unwrap()), (997_000, b"all"));
        });
    }
}
