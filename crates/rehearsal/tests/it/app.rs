//! A small app over HTTP/1.1 that remembers what it was asked, and misbehaves where it is asked to.
//!
//! A thread for each connection. Everything ends with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub from: IpAddr,
    /// Which connection, counted from 0.
    pub connection: usize,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What to answer, in full or in part: the connection ends with [`Then::Close`].
pub enum Then {
    Answer(String),
    Close(String),
    /// Nothing at all, until the client goes.
    Silence,
    /// This head, and then this again and again.
    Forever(String, String),
}

pub fn answer(status: u16, fields: &str, body: &str) -> Then {
    Then::Answer(format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

type Behaviour = dyn Fn(&Seen) -> Then + Send + Sync;

pub struct App {
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    behaviour: Box<Behaviour>,
    seen: Mutex<Vec<Seen>>,
    streams: Mutex<Vec<TcpStream>>,
    ends: AtomicBool,
}

impl App {
    pub fn start(behaviour: impl Fn(&Seen) -> Then + Send + Sync + 'static) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behaviour: Box::new(behaviour),
            seen: Mutex::default(),
            streams: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let accepting = {
            let state = Arc::clone(&state);
            std::thread::spawn(move || accept(&listener, &state))
        };
        App { address, state, accepting: Some(accepting) }
    }

    /// All that was asked so far, in the order in which it came in.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }

    /// As when it is killed: every connection is cut, and none is taken any more.
    pub fn die(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
        // So that accept looks.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.die();
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    let mut serving = Vec::new();
    for (connection, stream) in listener.incoming().enumerate() {
        if state.ends.load(Ordering::SeqCst) {
            break;
        }
        let stream = stream.unwrap();
        state.streams.lock().unwrap().push(stream.try_clone().unwrap());
        let state = Arc::clone(state);
        serving.push(std::thread::spawn(move || {
            // However it ends, the client has gone or was sent away.
            let _ = serve(&stream, connection, &state);
            let _ = stream.shutdown(Shutdown::Both);
        }));
    }
    for stream in state.streams.lock().unwrap().iter() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    serving.into_iter().for_each(|thread| thread.join().unwrap());
}

fn serve(stream: &TcpStream, connection: usize, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let from = stream.peer_addr()?.ip();
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut fields = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            fields.push((name.to_lowercase(), value.to_owned()));
        }
        let length = fields.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8(body).unwrap();
        let seen = Seen { from, connection, method, path, fields, body };
        state.seen.lock().unwrap().push(seen.clone());
        match (state.behaviour)(&seen) {
            Then::Answer(text) => writer.write_all(text.as_bytes())?,
            Then::Close(text) => return writer.write_all(text.as_bytes()),
            Then::Silence => {
                reader.read_to_end(&mut Vec::new())?;
                return Ok(());
            }
            Then::Forever(head, again) => {
                writer.write_all(head.as_bytes())?;
                while !state.ends.load(Ordering::SeqCst) {
                    writer.write_all(again.as_bytes())?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}
