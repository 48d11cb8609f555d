//! What a session says, and what it is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::said::{self, Message, Session};
use crate::cluster::Cluster;
use crate::proxy::Proxy;
use crate::wire::{self, Raw, Stream};

/// For an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(3);
/// PostgreSQL has no more to say for now: it need not be so, since less is then asked of the proxy.
const QUIET: Duration = Duration::from_millis(20);
/// Ends whatever a session may have left open, and is answered by nothing that a session says.
const LAST: &str = "select 'the end of the session'";

/// All of a session.
pub struct Exchange {
    /// The answers up to the end, in order.
    answers: Vec<wire::Message>,
    /// What the server has said last of its parameters.
    parameters: BTreeMap<String, String>,
    /// How many of the answers the client had when it said more.
    waited_for: Vec<usize>,
}

impl Exchange {
    pub async fn directly(cluster: &Cluster, session: &Session) -> Result<Exchange, String> {
        Exchange::of(Raw::connect_directly(cluster).await, session, None).await
    }

    /// Reads as much as it was told by PostgreSQL before it says more.
    pub async fn through(proxy: &Proxy, session: &Session, direct: &Exchange) -> Result<Exchange, String> {
        Exchange::of(Raw::connect(proxy).await, session, Some(&direct.waited_for)).await
    }

    async fn of(mut raw: Raw, session: &Session, wait_for: Option<&[usize]>) -> Result<Exchange, String> {
        raw.say(b'Q', &[said::RESET.as_bytes(), b"\0"].concat()).await;
        for (tag, body) in raw.whole_answer().await {
            assert_ne!(tag, b'E', "{}", body.escape_ascii());
        }
        let (stream, told) = raw.into_parts();
        let mut conversation = Conversation::begin(stream, told);
        conversation.hold(session, wait_for).await?;
        Ok(conversation.end().await)
    }

    /// # Errors
    /// The first difference, with what stands around it.
    pub fn compare(&self, through: &Exchange) -> Result<(), String> {
        let (expected, got) = (readable(&self.answers), readable(&through.answers));
        let equal = expected.iter().zip(&got).take_while(|(expected, got)| expected == got).count();
        if equal < expected.len().max(got.len()) {
            let mark = |lines: &[String]| {
                let of = |(at, line): (usize, &String)| {
                    let mark = if at == equal { '>' } else { ' ' };
                    format!("{mark} {}\n", shortened(line))
                };
                let around = lines.iter().enumerate().skip(equal.saturating_sub(6)).take(12);
                around.map(of).collect::<String>()
            };
            return Err(format!("PostgreSQL:\n{}the proxy:\n{}", mark(&expected), mark(&got)));
        }
        if self.parameters != through.parameters {
            return Err(format!(
                "the parameters of PostgreSQL: {:?}\nof the proxy: {:?}",
                self.parameters, through.parameters
            ));
        }
        Ok(())
    }
}

struct Conversation {
    writer: WriteHalf<Box<dyn Stream>>,
    reader: JoinHandle<()>,
    said: UnboundedReceiver<wire::Message>,
    exchange: Exchange,
    /// So many requests were not answered one by one, because of an error or a COPY before them.
    unanswered: usize,
    requests: usize,
    has_ended: bool,
}

impl Conversation {
    fn begin(stream: Box<dyn Stream>, told: Vec<wire::Message>) -> Conversation {
        let (reader, writer) = split(stream);
        let (tell, said) = unbounded_channel();
        let exchange = Exchange { answers: Vec::new(), parameters: BTreeMap::new(), waited_for: Vec::new() };
        let mut conversation = Conversation {
            writer,
            reader: tokio::spawn(read(reader, tell)),
            said,
            exchange,
            unanswered: 0,
            requests: 0,
            has_ended: false,
        };
        told.into_iter().filter(|(tag, _)| *tag == b'S').for_each(|message| conversation.note(message));
        conversation
    }

    async fn hold(&mut self, session: &Session, wait_for: Option<&[usize]>) -> Result<(), String> {
        let mut unsaid = Vec::new();
        let mut lengths = session.writes.iter().copied().cycle();
        let mut wait_for = wait_for.map(|counts| counts.iter());
        for said in &session.said {
            said.message.encode(&mut unsaid);
            self.requests += usize::from(matches!(said.message, Message::Query(_) | Message::Sync));
            if !said.waits {
                continue;
            }
            self.write(&std::mem::take(&mut unsaid), &mut lengths).await;
            match &mut wait_for {
                Some(counts) => {
                    let count = counts.next().copied().unwrap_or_default();
                    if !self.hear_until(PATIENCE, |answers| answers.len() >= count).await {
                        return Err(format!(
                            "the proxy waits behind {:?}, having said\n{}",
                            said.message,
                            self.so_far()
                        ));
                    }
                }
                None => {
                    let ready = self.requests - self.unanswered;
                    if !self.hear_until(QUIET, |answers| ready_count(answers) >= ready).await {
                        self.unanswered = self.requests - ready_count(&self.exchange.answers);
                    }
                    self.exchange.waited_for.push(self.exchange.answers.len());
                }
            }
        }
        let ends = [Message::CopyFail, Message::Sync, Message::Query(LAST.to_owned())];
        ends.iter().for_each(|message| message.encode(&mut unsaid));
        self.write(&unsaid, &mut lengths).await;
        let is_last = |answers: &[wire::Message]| {
            let at = answers
                .iter()
                .rposition(|(tag, body)| *tag == b'D' && body.ends_with(&LAST.as_bytes()[8..30]));
            at.is_some_and(|at| answers[at..].iter().any(|(tag, _)| *tag == b'Z'))
                // In a transaction that has failed.
                || answers.len() >= 2 && answers.ends_with(&[(b'Z', b"E".to_vec())])
        };
        if self.hear_until(PATIENCE, is_last).await {
            Ok(())
        } else {
            Err(format!("no end of\n{}", self.so_far()))
        }
    }

    async fn write(&mut self, bytes: &[u8], lengths: &mut impl Iterator<Item = usize>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = lengths.next().unwrap_or(rest.len()).min(rest.len());
            // A server that has ended the session reads no more.
            let _ = self.writer.write_all(&rest[..length]).await;
            rest = &rest[length..];
            tokio::task::yield_now().await;
        }
    }

    /// Whether it was enough, or the end, before nothing was said for so long.
    async fn hear_until(&mut self, patience: Duration, is_enough: impl Fn(&[wire::Message]) -> bool) -> bool {
        while !self.has_ended && !is_enough(&self.exchange.answers) {
            match timeout(patience, self.said.recv()).await {
                Ok(Some(message)) => self.note(message),
                Ok(None) => self.has_ended = true,
                Err(_) => return false,
            }
        }
        true
    }

    fn note(&mut self, (tag, mut body): wire::Message) {
        match tag {
            b'S' => {
                let texts: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
                let text = |at: usize| String::from_utf8_lossy(texts[at]).into_owned();
                self.exchange.parameters.insert(text(0), text(1));
            }
            b'A' => {
                body[..4].fill(0);
                self.exchange.answers.push((tag, body));
            }
            _ => self.exchange.answers.push((tag, body)),
        }
    }

    fn so_far(&self) -> String {
        let lines = readable(&self.exchange.answers);
        let last = lines.iter().skip(lines.len().saturating_sub(20));
        last.map(|line| format!("  {}\n", shortened(line))).collect()
    }

    /// Both sides have closed.
    async fn end(mut self) -> Exchange {
        let _ = self.writer.write_all(b"X\0\0\0\x04").await;
        (&mut self.reader).await.unwrap();
        while let Some(message) = self.said.recv().await {
            self.note(message);
        }
        self.exchange
    }
}

async fn read(mut reader: ReadHalf<Box<dyn Stream>>, tell: UnboundedSender<wire::Message>) {
    loop {
        let mut header = [0; 5];
        if reader.read_exact(&mut header).await.is_err() {
            return;
        }
        let mut body = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
        if reader.read_exact(&mut body).await.is_err() || tell.send((header[0], body)).is_err() {
            return;
        }
    }
}

fn ready_count(answers: &[wire::Message]) -> usize {
    answers.iter().filter(|(tag, _)| *tag == b'Z').count()
}

/// In words, without what may differ.
fn readable(answers: &[wire::Message]) -> Vec<String> {
    let mut tables = Vec::new();
    let line = |(tag, body): &wire::Message| {
        let body = match tag {
            b'T' => without_table_ids(body, &mut tables),
            b'E' | b'N' => without_statement_names(body),
            _ => body.clone(),
        };
        format!("{} {}", *tag as char, body.escape_ascii())
    };
    answers.iter().map(line).collect()
}

/// A table that is made twice has another id each time: they are numbered as they come.
fn without_table_ids(description: &[u8], tables: &mut Vec<[u8; 4]>) -> Vec<u8> {
    let mut out = description.to_vec();
    let mut at = 2;
    while at < out.len() {
        at += out[at..].iter().position(|byte| *byte == 0).unwrap() + 1;
        let id: [u8; 4] = out[at..at + 4].try_into().unwrap();
        if id != [0; 4] {
            let known = tables.iter().position(|table| *table == id).unwrap_or_else(|| {
                tables.push(id);
                tables.len() - 1
            });
            out[at..at + 4].copy_from_slice(&(known as u32 + 1).to_be_bytes());
        }
        at += 18;
    }
    out
}

/// On a connection that is shared, a client's statement has a name of the proxy's, which PostgreSQL tells in its errors.
fn without_statement_names(error: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = b"prepared statement \"";
    let Some(at) = error.windows(BEFORE.len()).position(|window| window == BEFORE) else {
        return error.to_vec();
    };
    let (before, name) = error.split_at(at + BEFORE.len());
    let end = name.iter().position(|byte| *byte == b'"').unwrap_or(name.len());
    [before, &name[end..]].concat()
}

fn shortened(line: &str) -> String {
    line.chars().take(160).collect()
}
