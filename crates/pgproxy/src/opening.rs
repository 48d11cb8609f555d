//! How a PostgreSQL connection begins, from the client's side.
//!
//! The first packets have no type byte: a length and a code. A client may first ask for encryption (SSLRequest,
//! GSSENCRequest), which is answered `N`: the proxy listens on the loopback address and its upstream is a Unix socket,
//! where PostgreSQL itself answers `N`. Then comes a StartupMessage, or a CancelRequest, which is a connection of its
//! own that carries a key and gets no answer.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A client that has not sent its startup packet by then is closed.
pub(crate) const OPENING_TIMEOUT: Duration = Duration::from_secs(20);
/// PostgreSQL's own MAX_STARTUP_PACKET_LENGTH.
const MAX_PACKET_BYTES: usize = 10_000;
/// One SSLRequest and one GSSENCRequest.
const MAX_ENCRYPTION_REQUESTS: usize = 2;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// What a client came for; the packet as it was sent.
#[derive(Debug)]
pub(crate) enum Opening {
    Session(Vec<u8>),
    Cancel(Vec<u8>),
}

/// Why there is no [`Opening`].
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// Came and left without a word, as a TCP health check does.
    Silent,
    /// Sent something else, too much, or too slowly.
    Protocol,
}

/// Reads what a client came for and no byte more.
pub(crate) async fn read_opening<S>(client: &mut S) -> Result<Opening, NotOpened>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(OPENING_TIMEOUT, read_untimed(client)).await.unwrap_or(Err(NotOpened::Protocol))
}

async fn read_untimed<S>(client: &mut S) -> Result<Opening, NotOpened>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..=MAX_ENCRYPTION_REQUESTS {
        let mut head = [0; 8];
        match client.read(&mut head[..1]).await {
            Ok(0) => return Err(NotOpened::Silent),
            Ok(_) => {}
            Err(_) => return Err(NotOpened::Silent),
        }
        client.read_exact(&mut head[1..]).await.map_err(|_| NotOpened::Protocol)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let code = u32::from_be_bytes([c0, c1, c2, c3]);
        if !(head.len()..=MAX_PACKET_BYTES).contains(&length) {
            return Err(NotOpened::Protocol);
        }
        if code == SSL_REQUEST || code == GSSENC_REQUEST {
            if length != head.len() {
                return Err(NotOpened::Protocol);
            }
            client.write_all(b"N").await.map_err(|_| NotOpened::Silent)?;
            continue;
        }
        let mut packet = vec![0; length];
        packet[..head.len()].copy_from_slice(&head);
        client.read_exact(&mut packet[head.len()..]).await.map_err(|_| NotOpened::Protocol)?;
        return Ok(match code {
            CANCEL_REQUEST => Opening::Cancel(packet),
            // Any version: PostgreSQL answers those it does not know.
            _ => Opening::Session(packet),
        });
    }
    Err(NotOpened::Protocol)
}

/// An ErrorResponse that ends a session before it began.
pub(crate) fn fatal(sqlstate: &str, message: &str, hint: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.len() + hint.len() + 48);
    for (field, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', sqlstate), (b'M', message), (b'H', hint)] {
        body.push(field);
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut packet = vec![b'E'];
    packet.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    packet.extend_from_slice(&body);
    packet
}

/// The SQLSTATE in the body of an ErrorResponse.
pub(crate) fn sqlstate(body: &[u8]) -> Option<&[u8]> {
    body.split(|&b| b == 0).find_map(|field| field.strip_prefix(b"C"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        let mut packet = (8 + rest.len() as u32).to_be_bytes().to_vec();
        packet.extend_from_slice(&code.to_be_bytes());
        packet.extend_from_slice(rest);
        packet
    }

    async fn open(sent: &[u8]) -> (Result<Opening, NotOpened>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(sent).await.unwrap();
        far.shutdown().await.unwrap();
        let opening = read_opening(&mut near).await;
        drop(near);
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        (opening, answer)
    }

    #[tokio::test]
    async fn requests_for_encryption_are_declined_and_the_startup_packet_is_kept_as_sent() {
        let startup = packet(196_608, b"user\0app\0\0");
        let sent = [packet(SSL_REQUEST, b""), packet(GSSENC_REQUEST, b""), startup.clone()].concat();
        let (opening, answer) = open(&sent).await;
        assert!(matches!(opening, Ok(Opening::Session(packet)) if packet == startup));
        assert_eq!(answer, b"NN");
    }

    #[tokio::test]
    async fn what_is_no_beginning_of_a_session_is_refused_within_bounds() {
        let endless_encryption = packet(SSL_REQUEST, b"").repeat(3);
        for sent in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0; 64],
            [&[0x16, 3, 1][..], &[0; 64]].concat(),
            packet(196_608, &vec![0; MAX_PACKET_BYTES]),
            packet(SSL_REQUEST, b"more"),
            packet(196_608, b"cut short")[..10].to_vec(),
            endless_encryption,
        ] {
            let (opening, _) = open(&sent).await;
            assert!(matches!(opening, Err(NotOpened::Protocol)), "{sent:?} was accepted");
        }
        assert!(matches!(open(b"").await.0, Err(NotOpened::Silent)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_not_waited_for_for_ever() {
        let (mut near, _far) = tokio::io::duplex(64);
        assert!(matches!(read_opening(&mut near).await, Err(NotOpened::Protocol)));
    }

    #[test]
    fn the_sqlstate_of_our_own_error_reads_back() {
        let packet = fatal("57P03", "no Cats here", "Come back");
        assert_eq!(packet[0], b'E');
        assert_eq!(sqlstate(&packet[5..]), Some(&b"57P03"[..]));
    }
}
