//! How a PostgreSQL connection begins, from the client's side.
//!
//! The first packets have no type byte: a length and a code. A client may first ask for encryption (SSLRequest,
//! GSSENCRequest). GSS is declined, TLS where it is not configured. Then comes a StartupMessage, or a CancelRequest,
//! which is a connection of its own that carries a key and gets no answer.
//!
//! Not a byte more than a packet is read: what follows a request for encryption must go through the encryption, and
//! must not be taken for something that was said inside of it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// PostgreSQL's own MAX_STARTUP_PACKET_LENGTH.
const MAX_PACKET_BYTES: usize = 10_000;
/// One SSLRequest and one GSSENCRequest.
const MAX_ENCRYPTION_REQUESTS: usize = 2;

pub(crate) const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// What a client came for. Of a packet, what follows its length.
#[derive(Debug)]
pub(crate) enum Opening {
    Session(Vec<u8>),
    Cancel(Vec<u8>),
    /// It waits for a handshake; what it came for follows that.
    Tls,
}

/// What an SSLRequest is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Offered,
    Declined,
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
pub(crate) async fn read_opening<S>(client: &mut S, encryption: Encryption) -> Result<Opening, NotOpened>
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
            if code == SSL_REQUEST && encryption == Encryption::Offered {
                client.write_all(b"S").await.map_err(|_| NotOpened::Silent)?;
                return Ok(Opening::Tls);
            }
            client.write_all(b"N").await.map_err(|_| NotOpened::Silent)?;
            continue;
        }
        let mut packet = vec![0; length - 4];
        packet[..4].copy_from_slice(&head[4..]);
        client.read_exact(&mut packet[4..]).await.map_err(|_| NotOpened::Protocol)?;
        return Ok(match code {
            CANCEL_REQUEST => Opening::Cancel(packet),
            _ => Opening::Session(packet),
        });
    }
    Err(NotOpened::Protocol)
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
        let opening = read_opening(&mut near, Encryption::Declined).await;
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
        assert!(matches!(opening, Ok(Opening::Session(packet)) if packet == startup[4..]));
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

    #[tokio::test]
    async fn where_tls_is_offered_not_a_byte_of_the_handshake_is_taken_away() {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&[packet(SSL_REQUEST, b""), b"hello".to_vec()].concat()).await.unwrap();
        assert!(matches!(read_opening(&mut near, Encryption::Offered).await, Ok(Opening::Tls)));
        let mut rest = [0; 5];
        near.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"hello");
    }
}
