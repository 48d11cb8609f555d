//! What no driver sends: the protocol spoken by hand, and bytes that are none of it.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use pgproxy::Database;

use crate::cluster::{Cluster, PASSWORD};
use crate::properties;
use crate::proxy::{Proxy, of, running, start, value, within};

fn message() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![4 => 0..40usize, 1 => 8_000..20_000usize];
    (any::<u8>(), body).prop_map(|(tag, length)| {
        let mut message = vec![tag];
        message.extend((length as u32 + 4).to_be_bytes());
        message.resize(message.len() + length, b'x');
        message
    })
}

proptest! {
    #[test]
    fn a_stream_is_cut_the_same_however_it_arrives(
        step in any::<u8>(),
        messages in prop::collection::vec(message(), 0..8),
        rest in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        properties::framer(&[vec![step], messages.concat(), rest].concat());
    }
}

/// For an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Its type, and its body.
pub type Message = (u8, Vec<u8>);

/// A client that is logged in and says what it likes.
pub struct Raw(Box<dyn Stream>, Vec<Message>);

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A message that is to be said: its type and its body.
pub type ToSay<'a> = (u8, &'a [u8]);

fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    [&[tag], &length[..], body].concat()
}

impl Raw {
    pub async fn connect(proxy: &Proxy) -> Raw {
        Raw::connect_with(proxy, b"").await
    }

    /// With parameters of its own, each with its end and that of its value.
    pub async fn connect_with(proxy: &Proxy, parameters: &[u8]) -> Raw {
        Raw::log_in(Box::new(TcpStream::connect(proxy.address).await.unwrap()), parameters).await
    }

    /// It resets its connection when it is dropped.
    pub async fn connect_abrupt(proxy: &Proxy) -> Raw {
        let stream = TcpStream::connect(proxy.address).await.unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        Raw::log_in(Box::new(stream), b"").await
    }

    /// Its socket takes little that it has not read.
    async fn connect_narrow(proxy: &Proxy) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        Raw::log_in(Box::new(socket.connect(proxy.address).await.unwrap()), b"").await
    }

    pub async fn connect_directly(cluster: &Cluster) -> Raw {
        Raw::log_in(Box::new(UnixStream::connect(cluster.socket()).await.unwrap()), b"").await
    }

    async fn log_in(stream: Box<dyn Stream>, parameters: &[u8]) -> Raw {
        use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
        let mut raw = Raw(stream, Vec::new());
        let startup = [&b"\0\x03\0\0user\0app\0"[..], parameters, b"\0"].concat();
        raw.0.write_all(&(startup.len() as u32 + 4).to_be_bytes()).await.unwrap();
        raw.0.write_all(&startup).await.unwrap();
        let mut scram = ScramSha256::new(PASSWORD.as_bytes(), ChannelBinding::unsupported());
        assert_eq!(raw.read().await.0, b'R');
        let length = (scram.message().len() as u32).to_be_bytes();
        raw.say(b'p', &[b"SCRAM-SHA-256\0", &length[..], scram.message()].concat()).await;
        scram.update(&raw.read().await.1[4..]).unwrap();
        raw.say(b'p', scram.message()).await;
        raw.1 = raw.whole_answer().await;
        raw
    }

    /// Its connection, and what it was told when it came in.
    pub fn into_parts(self) -> (Box<dyn Stream>, Vec<Message>) {
        (self.0, self.1)
    }

    /// All messages until the server is ready.
    pub async fn whole_answer(&mut self) -> Vec<Message> {
        let mut answer = Vec::new();
        while answer.last().is_none_or(|(tag, _)| *tag != b'Z') {
            answer.push(self.read().await);
        }
        answer
    }

    pub async fn say(&mut self, tag: u8, body: &[u8]) {
        self.say_again(tag, body, 1).await;
    }

    /// So many times, without waiting for an answer.
    pub async fn say_again(&mut self, tag: u8, body: &[u8], times: usize) {
        self.0.write_all(&framed(tag, body).repeat(times)).await.unwrap();
    }

    /// In one write, without waiting for an answer.
    pub async fn say_at_once(&mut self, messages: &[ToSay<'_>]) {
        let said: Vec<u8> = messages.iter().flat_map(|(tag, body)| framed(*tag, body)).collect();
        self.0.write_all(&said).await.unwrap();
    }

    /// Says that nothing more will be said, and can still read.
    pub async fn end(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    pub async fn read(&mut self) -> Message {
        let mut header = [0; 5];
        self.0.read_exact(&mut header).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
        self.0.read_exact(&mut body).await.unwrap();
        (header[0], body)
    }

    /// Everything up to the end of the session. `meanwhile` happens after the first of it has come.
    pub async fn rest_after(&mut self, meanwhile: impl AsyncFnOnce()) -> Vec<u8> {
        let mut rest = vec![self.0.read_u8().await.unwrap()];
        meanwhile().await;
        self.0.read_to_end(&mut rest).await.unwrap();
        rest
    }

    /// The types of the messages until the server is ready, and what that says.
    pub async fn answer(&mut self) -> String {
        let mut answer = String::new();
        loop {
            let (tag, body) = self.read().await;
            answer.push(tag.into());
            if tag == b'Z' {
                answer.push(body[0].into());
                return answer;
            }
        }
    }
}

/// Parse and Bind in requests of their own: the connection in between serves others.
#[tokio::test]
async fn the_unnamed_statement_is_the_clients_own_on_any_connection() {
    let (_cluster, proxy) = running();
    let (mut one, mut other) = (Raw::connect(&proxy).await, Raw::connect(&proxy).await);
    one.say(b'P', b"\0select 'one'\0\0\0").await;
    one.say(b'S', b"").await;
    assert_eq!(one.answer().await, "1ZI");
    other.say(b'B', b"\0\0\0\0\0\0\0\0").await;
    other.say(b'S', b"").await;
    assert_eq!(other.answer().await, "EZI", "it has no statement, and gets nobody else's");
    other.say(b'P', b"\0select 'other', 2\0\0\0").await;
    other.say(b'S', b"").await;
    assert_eq!(other.answer().await, "1ZI");
    one.say(b'B', b"\0\0\0\0\0\0\0\0").await;
    one.say(b'D', b"P\0").await;
    one.say(b'E', b"\0\0\0\0\0").await;
    one.say(b'S', b"").await;
    assert_eq!(one.answer().await, "2TDCZI");
}

/// Only its own answer waits for its commit, and it is a Query's.
#[tokio::test]
async fn a_write_is_answered_alike_with_and_without_requests_before_it() {
    const READ: (u8, &[u8]) = (b'Q', b"select 1\0");
    const INSERT: (u8, &[u8]) = (b'Q', b"insert into t values (1) returning a\0");
    let bound = |sql: &'static [u8]| {
        let steps: [(u8, &[u8]); 4] =
            [(b'P', sql), (b'B', b"\0\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), (b'S', b"")];
        steps
    };
    let (_cluster, proxy) = running();
    let mut raw = Raw::connect(&proxy).await;
    raw.say(b'Q', b"create table t (a int)\0").await;
    assert_eq!(raw.answer().await, "CZI");
    raw.say_at_once(&[READ, INSERT, READ, READ, INSERT, INSERT, READ]).await;
    for _ in 0..7 {
        assert_eq!(raw.answer().await, "TDCZI");
    }
    let read = bound(b"\0select 1\0\0\0");
    let insert = bound(b"\0insert into t values (1)\0\0\0");
    raw.say_at_once(&[&read[..], &insert, &[INSERT], &read, &read, &insert].concat()).await;
    for expected in ["12DCZI", "12CZI", "TDCZI", "12DCZI", "12DCZI", "12CZI"] {
        assert_eq!(raw.answer().await, expected);
    }
    let rows = proxy.connect().await.unwrap();
    assert_eq!(value(&rows, "select count(*) from t").await, "6");
}

/// What is sent behind a DISCARD ALL belongs to the session after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_behind_a_discard_all_keeps_its_connection() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 2, ..of(&cluster) });
    let (mut raw, other) = (Raw::connect(&proxy).await, proxy.connect().await.unwrap());
    let pipelined: [&[&[u8]]; 2] =
        [&[b"discard all\0", b"listen news\0"], &[b"listen old\0", b"discard all\0"]];
    for (requests, listening) in pipelined.into_iter().zip([1, 0]) {
        for request in requests {
            raw.say(b'Q', request).await;
        }
        for _ in requests {
            assert_eq!(raw.answer().await, "CZI");
        }
        proxy.until(|db| db.servers - db.servers_idle == listening).await;
        assert_eq!(value(&other, "select count(*) from pg_listening_channels()").await, "0");
    }
    // Within one group.
    for statement in [&b"\0discard all\0\0\0"[..], b"\0listen news\0\0\0"] {
        raw.say(b'P', statement).await;
        raw.say(b'B', b"\0\0\0\0\0\0\0\0").await;
        raw.say(b'E', b"\0\0\0\0\0").await;
    }
    raw.say(b'S', b"").await;
    assert_eq!(raw.answer().await, "12C12CZI");
    proxy.until(|db| db.servers - db.servers_idle == 1).await;
    assert_eq!(value(&other, "select count(*) from pg_listening_channels()").await, "0");
}

/// PostgreSQL reads it in its turn.
#[tokio::test]
async fn what_was_asked_before_a_terminate_is_done_and_answered() {
    let (_cluster, proxy) = running();
    let rows = proxy.connect().await.unwrap();
    rows.simple_query("create table t (a int)").await.unwrap();
    let mut raw = Raw::connect(&proxy).await;
    let insert: (u8, &[u8]) = (b'Q', b"insert into t values (1)\0");
    raw.say_at_once(&[insert, (b'Q', b"select 1\0"), insert, (b'X', b""), insert]).await;
    for expected in ["CZI", "TDCZI", "CZI"] {
        assert_eq!(raw.answer().await, expected);
    }
    assert_eq!(raw.0.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(value(&rows, "select count(*) from t").await, "2");
}

/// As a pipe does, and some pools.
#[tokio::test]
async fn a_client_that_says_no_more_behind_its_first_request_is_answered() {
    let (_cluster, proxy) = running();
    let holder = proxy.connect().await.unwrap();
    holder.batch_execute("begin").await.unwrap();
    let mut raw = Raw::connect(&proxy).await;
    // For which a connection is to be made.
    raw.say(b'Q', b"select 1\0").await;
    raw.end().await;
    assert_eq!(raw.answer().await, "TDCZI");
    assert_eq!(raw.0.read(&mut [0]).await.unwrap(), 0);
}

/// The last of its answer stays with the proxy for as long as the sockets take no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_no_more_and_reads_much_later_gets_its_answer_to_the_end() {
    let (_cluster, proxy) = running();
    let mut unread = Raw::connect_narrow(&proxy).await;
    let sent = || proxy.db().sent_bytes_total;
    let before = sent();
    unread.say(b'Q', b"select repeat('x', 64 * 1024 * 1024)\0").await;
    let mut taken = 0;
    within("the sockets take no more", async {
        while taken == 0 || sent() - before > taken {
            taken = sent() - before;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    let length = taken + 64 * 1024;
    let mut raw = Raw::connect_narrow(&proxy).await;
    raw.say(b'Q', format!("select repeat('x', {length})\0").as_bytes()).await;
    raw.end().await;
    // Longer than anybody is waited for who has ended.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let answer = raw.whole_answer().await;
    assert_eq!(answer[1].1.len() as u64, length + 6);
    assert_eq!(raw.0.read(&mut [0]).await.unwrap(), 0);
}

/// Its group has no end, and PostgreSQL would wait for that.
#[tokio::test]
async fn a_client_that_leaves_within_a_group_or_a_message_leaves_nothing_behind() {
    let (_cluster, proxy) = running();
    let long = [b"select '".to_vec(), vec![b'x'; 300_000]].concat();
    let mut begun = vec![b'Q'];
    begun.extend(400_000_u32.to_be_bytes());
    begun.extend(long);
    for (said, terminates) in [
        (&framed(b'P', b"\0select 1\0\0\0")[..], false),
        (&framed(b'P', b"\0select 1\0\0\0"), true),
        (&begun, false),
    ] {
        let mut raw = Raw::connect(&proxy).await;
        raw.0.write_all(said).await.unwrap();
        if terminates {
            raw.say(b'X', b"").await;
        }
        raw.0.shutdown().await.unwrap();
        proxy.until(|db| db.clients == 0 && db.servers == db.servers_idle).await;
    }
}

/// The answer to a statement that the server knows already comes from us, in its place.
#[tokio::test]
async fn answers_of_our_own_stand_where_the_servers_would() {
    let (_cluster, proxy) = running();
    let mut raw = Raw::connect(&proxy).await;
    for _ in 0..2 {
        raw.say(b'P', b"a\0select 1\0\0\0").await;
        raw.say(b'B', b"\0a\0\0\0\0\0\0\0").await;
        raw.say(b'E', b"\0\0\0\0\0").await;
        raw.say(b'P', b"b\0select 2\0\0\0").await;
        raw.say(b'C', b"Sa\0").await;
        raw.say(b'C', b"Sb\0").await;
        raw.say(b'S', b"").await;
        assert_eq!(raw.answer().await, "12DC133ZI");
    }
    // It flushes what was answered so far, too.
    raw.say(b'P', b"a\0select 1\0\0\0").await;
    raw.say(b'H', b"").await;
    assert_eq!(raw.read().await.0, b'1');
    raw.say(b'C', b"Sa\0").await;
    raw.say(b'S', b"").await;
    assert_eq!(raw.answer().await, "3ZI");
    // The second of a name fails, as it does at PostgreSQL, and everything up to the Sync with it.
    raw.say(b'P', b"a\0select 1\0\0\0").await;
    raw.say(b'P', b"a\0select 2\0\0\0").await;
    raw.say(b'B', b"\0a\0\0\0\0\0\0\0").await;
    raw.say(b'S', b"").await;
    assert_eq!(raw.answer().await, "1EZI");
}

/// The server has failed and reads over everything up to the Sync, and we have heard of it before we have sent that.
#[tokio::test]
async fn what_is_sent_behind_an_error_is_skipped_up_to_its_sync() {
    let (_cluster, proxy) = running();
    let mut raw = Raw::connect(&proxy).await;
    raw.say(b'P', b"\0selected\0\0\0").await;
    raw.say(b'H', b"").await;
    assert_eq!(raw.read().await.0, b'E');
    raw.say(b'B', &[0; 8]).await;
    raw.say(b'E', &[0; 5]).await;
    raw.say(b'S', b"").await;
    assert_eq!(raw.answer().await, "ZI");
    proxy.until(|db| db.servers == db.servers_idle).await;
    raw.say(b'Q', b"select 1\0").await;
    assert_eq!(raw.answer().await, "TDCZI");
}

/// A Query among it looks like the end of a request, and has no answer that could be waited for.
#[tokio::test]
async fn what_is_sent_behind_a_query_that_is_skipped_does_not_wait_for_it() {
    const SYNC: ToSay<'_> = (b'S', b"");
    const PARSE: ToSay<'_> = (b'P', b"a\0select 1\0\0\0");
    let (_cluster, proxy) = running();
    let mut raw = Raw::connect(&proxy).await;
    raw.say_at_once(&[(b'Q', b"create table t (a int)\0"), PARSE, SYNC]).await;
    for expected in ["CZI", "1ZI"] {
        assert_eq!(raw.answer().await, expected);
    }
    for (before, skipped, [begun, ended, rolled_back]) in [
        (&b"select 1\0"[..], &b"select 1\0"[..], ["TDCZI", "ZI", "NCZI"]),
        (b"begin; insert into t values (1)\0", b"commit\0", ["CCZT", "ZE", "CZI"]),
    ] {
        raw.say(b'Q', before).await;
        assert_eq!(raw.answer().await, begun);
        raw.say_at_once(&[(b'P', b"\0selected\0\0\0"), (b'H', b"")]).await;
        assert_eq!(raw.read().await.0, b'E');
        raw.say_at_once(&[(b'Q', skipped), PARSE, SYNC]).await;
        assert_eq!(timeout(PATIENCE, raw.answer()).await.expect("no answer"), ended);
        raw.say(b'Q', b"rollback\0").await;
        assert_eq!(raw.answer().await, rolled_back);
    }
}

/// Whoever writes and does not end the group may yet wait for what is wrong with it.
#[tokio::test]
async fn an_error_in_a_group_without_an_end_is_told_at_once() {
    let (_cluster, proxy) = running();
    let mut raw = Raw::connect(&proxy).await;
    raw.say(b'Q', b"create table t (a int)\0").await;
    assert_eq!(raw.answer().await, "CZI");
    raw.say(b'P', b"\0insert into t values ($1)\0\0\0").await;
    // It lacks a value.
    raw.say(b'B', b"\0\0\0\0\0\0\0\0").await;
    for expected in *b"1E" {
        assert_eq!(raw.read().await.0, expected);
    }
    raw.say(b'S', b"").await;
    assert_eq!(raw.answer().await, "ZI");
}

/// PostgreSQL commits what stands before it, unless that has failed: then it reads over the Query as well.
#[tokio::test]
async fn a_query_ends_the_group_that_it_stands_in_and_is_skipped_in_one_that_has_failed() {
    const QUERY: (u8, &[u8]) = (b'Q', b"select 1\0");
    const SYNC: (u8, &[u8]) = (b'S', b"");
    let (_cluster, proxy) = running();
    let mut raw = Raw::connect(&proxy).await;
    let group = |sql: &'static [u8]| -> [(u8, &[u8]); 3] {
        [(b'P', sql), (b'B', b"\0\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0")]
    };
    raw.say_at_once(&[&group(b"\0select 2\0\0\0")[..], &[QUERY]].concat()).await;
    assert_eq!(raw.answer().await, "12DCTDCZI");
    // It waits for nothing more.
    proxy.until(|db| db.servers == db.servers_idle).await;

    raw.say_at_once(&[&group(b"\0selected\0\0\0")[..], &[QUERY, QUERY, SYNC, QUERY]].concat()).await;
    for expected in ["EZI", "TDCZI"] {
        assert_eq!(raw.answer().await, expected);
    }
    // Also when the error is known before the Query is sent.
    raw.say(b'P', b"\0selected\0\0\0").await;
    raw.say(b'H', b"").await;
    assert_eq!(raw.read().await.0, b'E');
    raw.say_at_once(&[QUERY, SYNC, QUERY]).await;
    for expected in ["ZI", "TDCZI"] {
        assert_eq!(raw.answer().await, expected);
    }
    proxy.until(|db| db.servers == db.servers_idle).await;
}

#[tokio::test]
async fn an_unnamed_statement_that_was_closed_is_gone() {
    let (_cluster, proxy) = running();
    let mut raw = Raw::connect(&proxy).await;
    raw.say_at_once(&[(b'P', b"\0select 1\0\0\0"), (b'S', b"")]).await;
    assert_eq!(raw.answer().await, "1ZI");
    raw.say_at_once(&[(b'C', b"S\0"), (b'S', b"")]).await;
    assert_eq!(raw.answer().await, "3ZI");
    raw.say_at_once(&[(b'B', b"\0\0\0\0\0\0\0\0"), (b'S', b"")]).await;
    assert_eq!(raw.answer().await, "EZI");
}

#[tokio::test]
async fn messages_that_are_none_end_the_session_with_08p01() {
    let (_cluster, proxy) = running();
    for said in [&b"?\0\0\0\x04"[..], b"Q\0\0\0\x03", b"Q\xff\xff\xff\xff", b"B\0\0\0\x06xx"] {
        let mut raw = Raw::connect(&proxy).await;
        raw.0.write_all(said).await.unwrap();
        let (tag, body) = raw.read().await;
        assert_eq!(tag, b'E', "{said:?}");
        assert!(body.windows(6).any(|field| field == b"C08P01"), "{said:?}");
        assert_eq!(raw.0.read(&mut [0]).await.unwrap(), 0);
    }
    proxy.until(|db| db.clients == 0 && db.servers == db.servers_idle).await;
}

/// It is looked into at its beginning only, and passes as it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_many_megabytes_passes() {
    let (_cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    let text = "x".repeat(20_000_000);
    let select = client.prepare("select length($1::text)").await.unwrap();
    assert_eq!(client.query_one(&select, &[&text]).await.unwrap().get::<_, i32>(0), 20_000_000);
    let query = format!("select length('{text}')");
    assert_eq!(crate::proxy::value(&client, &query).await, "20000000");
    assert_eq!(client.query_one(&query, &[]).await.unwrap().get::<_, i32>(0), 20_000_000);
}
