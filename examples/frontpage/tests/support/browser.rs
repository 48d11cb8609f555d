//! As much of a browser as these tests need: requests, cookies, and the token of the last form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use super::Instance;

pub const PASSWORD: &str = "a good password";

/// A visitor with their cookies. Redirects are not followed, so that tests can see them.
#[derive(Clone)]
pub struct Browser {
    port: u16,
    cookies: BTreeMap<String, String>,
    /// The token in the forms of the last page that had any.
    pub form_token: String,
}

pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    /// A header's value, empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub fn location(&self) -> &str {
        self.header("location")
    }
}

impl Browser {
    pub fn new(instance: &Instance) -> Self {
        Self { port: instance.port, cookies: BTreeMap::new(), form_token: String::new() }
    }

    /// From now on another instance answers, as behind a load balancer.
    pub fn goes_to(&mut self, instance: &Instance) {
        self.port = instance.port;
    }

    /// Signs up with [`PASSWORD`], and opens a page with a form.
    pub fn sign_up(&mut self, name: &str) {
        self.get("/signup");
        assert_eq!(self.send("/signup", &[("name", name), ("password", PASSWORD)]).status, 303);
        assert_eq!(self.get("/submit").status, 200);
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.exchange("GET", path, "")
    }

    /// Sends a form with the token of the last page.
    pub fn send(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.form_token.clone();
        self.send_with_token(path, fields, Some(&token))
    }

    pub fn send_with_token(&mut self, path: &str, fields: &[(&str, &str)], token: Option<&str>) -> Answer {
        let token = token.map(|token| ("form_token", token));
        let fields: Vec<_> = fields.iter().copied().chain(token).collect();
        self.exchange("POST", path, &serde_urlencoded::to_string(fields).unwrap())
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in &self.cookies {
            let _ = write!(request, "Cookie: {name}={value}\r\n");
        }
        if method == "POST" {
            let _ = write!(request, "Content-Type: application/x-www-form-urlencoded\r\n");
            let _ = write!(request, "Content-Length: {}\r\n", body.len());
        }
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        // A server that refuses a body early may stop reading; its answer is what counts.
        let _ = connection.write_all(format!("{request}\r\n{body}").as_bytes());
        let mut answer = Vec::new();
        let ended = connection.read_to_end(&mut answer);
        assert!(ended.is_ok() || !answer.is_empty(), "{method} {path}: {ended:?}");
        self.read(&String::from_utf8(answer).unwrap())
    }

    fn read(&mut self, answer: &str) -> Answer {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let answer =
            Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() };
        for line in head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")) {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        if let Some((_, rest)) = body.split_once("name=\"form_token\" value=\"") {
            self.form_token = rest.split('"').next().unwrap().to_owned();
        }
        answer
    }
}
