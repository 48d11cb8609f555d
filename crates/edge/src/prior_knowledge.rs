//! One question in HTTP/2 without TLS and without asking first whether the other side speaks it: what health checks of an
//! h2c upstream are. Public, so that whoever starts such an instance asks in the same way.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http::header::USER_AGENT;
use tokio::net::TcpStream;

/// Of an answer whose status alone is of interest.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;

/// The status of the answer to a `GET`; `None` when it is not HTTP/2, or the request was refused by a reset. Sets no time
/// limit. Cancel safe.
///
/// # Errors
/// When there is no connection, or it breaks.
pub async fn status_of(address: SocketAddr, path: &str, user_agent: &str) -> io::Result<Option<u16>> {
    let request = Request::get(format!("http://{address}{path}")).header(USER_AGENT, user_agent).body(());
    let request = request.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TcpStream::connect(address).await?;
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(MAX_HEADER_LIST_BYTES);
    let answer = async {
        let (client, connection) = builder.handshake::<_, Bytes>(stream).await?;
        let answer = async {
            let (answer, _) = client.ready().await?.send_request(request, true)?;
            answer.await
        };
        // The connection must be driven for the answer to come; should it end first, there is none.
        tokio::select! {
            biased;
            answer = answer => Ok(Some(answer?)),
            ended = connection => ended.map(|()| None),
        }
    };
    match answer.await {
        Ok(Some(answer)) => Ok(Some(answer.status().as_u16())),
        Ok(None) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer")),
        Err(error) if error.is_io() => Err(error.into_io().unwrap_or_else(|| io::ErrorKind::Other.into())),
        Err(_) => Ok(None),
    }
}
