//! The proxy without the rest.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{App, Switchback, get};

use crate::up;

/// For what takes no time on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// `switchback pgproxy` in front of an app's PostgreSQL.
struct Proxy {
    folder: TempDir,
    config: Value,
    process: Child,
    port: u16,
    metrics: u16,
    password: String,
}

impl Proxy {
    fn start(app: &Switchback) -> Proxy {
        let folder = TempDir::new().unwrap();
        let credentials = app.app().state_dir().join("credentials/db.json");
        let known: Value = serde_json::from_slice(&std::fs::read(&credentials).unwrap()).unwrap();
        let admin = folder.path().join("admin.json");
        std::fs::write(&admin, r#"{"role":"looker","password":"looks"}"#).unwrap();
        let (port, metrics) = (free_port(), free_port());
        let upstream = json!({ "unix": app.status().primary().address });
        let database = json!({
            "listener": "db", "epoch": 1, "credentials": credentials, "admin": admin,
            "nodes": { "db.1": { "role": "primary", "upstream": upstream } },
        });
        let config = json!({
            "listeners": { "db": format!("127.0.0.1:{port}") }, "databases": { "db": database },
            "metrics": metrics,
        });
        let path = folder.path().join("proxy.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_switchback"));
        process.args(["pgproxy", "--config"]).arg(path);
        let process = process.stderr(File::create(log(folder.path())).unwrap()).spawn().unwrap();
        let password = known["app"]["password"].as_str().unwrap().to_owned();
        let proxy = Proxy { folder, config, process, port, metrics, password };
        proxy.until_it_says("pgproxy serves");
        proxy
    }

    fn psql(&self, user: &str, password: &str, database: &str) -> Command {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", user, "-d", database]);
        psql.env("PGPASSWORD", password);
        psql
    }

    fn ask(&self, statement: &str) -> String {
        answer(self.psql("shop", &self.password, "shop").args(["-c", statement]))
    }

    fn show(&self, view: &str) -> String {
        answer(self.psql("looker", "looks", "switchback").args(["-c", &format!("SHOW {view}")]))
    }

    /// A client in a transaction, which ends when its input does.
    fn client_at_work(&self) -> (Child, ChildStdin) {
        let mut psql = self.psql("shop", &self.password, "shop");
        let mut client =
            psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        input.write_all(b"BEGIN;\nSELECT 1;\n").unwrap();
        let is_read = |line: &str| line.contains("class=\"read\"") && !line.ends_with(" 0");
        self.wait_for("it is at work", || self.metrics().lines().any(is_read));
        (client, input)
    }

    fn metrics(&self) -> String {
        get(&format!("http://127.0.0.1:{}/metrics", self.metrics)).unwrap().body
    }

    /// Reads this from now on, once it is told to.
    fn configure(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        std::fs::write(self.folder.path().join("proxy.json"), self.config.to_string()).unwrap();
        self.tell(Signal::HUP);
    }

    fn tell(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), signal).unwrap();
    }

    fn until_it_says(&self, words: &str) {
        let said = || std::fs::read_to_string(log(self.folder.path())).unwrap();
        self.wait_for(words, || said().contains(words));
    }

    fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            let said = std::fs::read_to_string(log(self.folder.path())).unwrap();
            assert!(Instant::now() < until, "waited in vain: {what}\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn log(folder: &Path) -> PathBuf {
    folder.join("proxy.log")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn answer(psql: &mut Command) -> String {
    let output = psql.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_proxy_alone_serves_follows_its_file_and_shows_itself() {
    let app = up(App::guestbook("shop"));
    let mut proxy = Proxy::start(&app);
    assert_eq!(proxy.ask("SELECT 6 * 7"), "42");
    assert!(proxy.show("DATABASES").contains("|transaction|"), "{}", proxy.show("DATABASES"));
    let metrics = proxy.metrics();
    assert!(metrics.lines().any(|line| line.starts_with("switchback_pgproxy_clients{")), "{metrics}");

    proxy.configure(|config| config["databases"]["db"]["pool_mode"] = json!("session"));
    proxy.until_it_says("the configuration was read again");
    assert!(proxy.show("DATABASES").contains("|session|"), "{}", proxy.show("DATABASES"));

    // Another address, with another change beside it: neither is taken.
    let (before, elsewhere) = (proxy.config.clone(), free_port());
    proxy.configure(|config| {
        config["listeners"]["db"] = json!(format!("127.0.0.1:{elsewhere}"));
        config["databases"]["db"]["pool_mode"] = json!("transaction");
    });
    let port = proxy.port;
    proxy.until_it_says(&format!(
        "listener `db` is at 127.0.0.1:{port}, and moves to 127.0.0.1:{elsewhere} with a new process only"
    ));
    proxy.configure(|config| {
        *config = before.clone();
        config["metrics"] = json!("127.0.0.1:1");
    });
    proxy.until_it_says("`metrics` is at ");
    proxy.configure(|config| {
        *config = before.clone();
        config.as_object_mut().unwrap().remove("metrics");
    });
    proxy.until_it_says("`metrics` end with the process only");
    proxy.configure(|config| {
        *config = before.clone();
        config["listeners"]["more"] = json!("127.0.0.1:1");
    });
    proxy.until_it_says("listener `more` is new, and comes with a new process only");
    proxy.configure(|config| {
        *config = before.clone();
        config["listeners"] = json!({});
    });
    proxy.until_it_says("database `db` names the listener `db`, which is not there");
    assert!(proxy.show("DATABASES").contains("|session|"), "{}", proxy.show("DATABASES"));
    assert_eq!(proxy.ask("SELECT 1"), "1");
    proxy.tell(Signal::TERM);
    assert!(proxy.ended().success());
    app.down();
}

#[test]
fn the_proxy_alone_lets_clients_finish_and_is_told_twice_to_cut_them() {
    let app = up(App::guestbook("shop"));
    let mut proxy = Proxy::start(&app);
    let (mut client, mut input) = proxy.client_at_work();
    proxy.tell(Signal::TERM);
    proxy.until_it_says("pgproxy drains");
    // What it has begun it can end.
    input.write_all(b"COMMIT;\n").unwrap();
    drop(input);
    assert!(client.wait().unwrap().success());
    assert!(proxy.ended().success());

    let mut proxy = Proxy::start(&app);
    let (mut client, input) = proxy.client_at_work();
    proxy.tell(Signal::TERM);
    proxy.until_it_says("pgproxy drains");
    assert_eq!(proxy.process.try_wait().unwrap(), None, "it waits for its client");
    proxy.tell(Signal::TERM);
    assert!(proxy.ended().success());
    proxy.until_it_says("sessions were cut");
    drop(input);
    client.wait().unwrap();
    app.down();
}

#[test]
fn a_configuration_that_does_not_hold_is_said_with_its_file() {
    let path = std::env::temp_dir().join(format!("pgproxy-{}.json", std::process::id()));
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["pgproxy", "--config"])
            .arg(&path)
            .output()
            .unwrap()
    };
    let said = |output: std::process::Output| String::from_utf8(output.stderr).unwrap();
    let missing = run();
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(missing).contains(&*path.to_string_lossy()));

    let database = r#"{"listener":"db","epoch":1,"credentials":"/nowhere.json","nodes":{}}"#;
    let text = format!(r#"{{"listeners":{{"db":"127.0.0.1:0"}},"databases":{{"db":{database}}}}}"#);
    std::fs::write(&path, text.replace("\"nodes\"", "\"pool_sise\":5,\"nodes\"")).unwrap();
    let misspelled = run();
    assert_eq!(misspelled.status.code(), Some(1));
    assert!(said(misspelled).contains("there is no key `databases.db.pool_sise`"));
    std::fs::write(&path, text).unwrap();
    let unreadable = run();
    assert_eq!(unreadable.status.code(), Some(1));
    assert!(said(unreadable).contains("/nowhere.json"));
    std::fs::remove_file(&path).unwrap();
}
