//! A real primary with a hot standby, in a temporary folder, spoken to through psql.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sqlclass::{Builder, Catalog, Query};
use tempfile::TempDir;

/// How long a server may take to start, or to catch up, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Servers {
    folder: TempDir,
    postmasters: Vec<Child>,
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Primary,
    Standby,
}

/// What a server says to a text: its rows, or its error with the SQLSTATE.
pub type Answer = Result<String, String>;

impl Server {
    /// The name of its data directory.
    fn data(self) -> &'static str {
        match self {
            Server::Primary => "primary",
            Server::Standby => "standby",
        }
    }

    /// Only names the socket.
    pub fn port(self) -> &'static str {
        match self {
            Server::Primary => "5432",
            Server::Standby => "5433",
        }
    }
}

impl Servers {
    /// Starts both, with `schema` on them.
    pub fn start(schema: &str) -> Servers {
        let folder = TempDir::new().unwrap();
        if let Some((uid, gid)) = unprivileged_owner() {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut servers = Servers { folder, postmasters: Vec::new() };
        let options = ["--auth=trust", "--no-sync", "--locale=C.UTF-8", "-U", "postgres", "-D"];
        servers.run("initdb", &[&options[..], &[Server::Primary.data()]].concat());
        servers.start_one(Server::Primary);
        servers.ask(Server::Primary, "public", schema).expect("the schema");
        let socket = servers.socket_folder();
        let from = ["-h", &socket, "-p", Server::Primary.port(), "-U", "postgres", "-c", "fast"];
        servers
            .run("pg_basebackup", &[&from[..], &["--no-sync", "-R", "-D", Server::Standby.data()]].concat());
        servers.start_one(Server::Standby);
        servers.catch_up();
        servers
    }

    /// What a server says to one text, as one simple query of a new connection.
    pub fn ask(&self, server: Server, search_path: &str, sql: &str) -> Answer {
        let options = format!("-c search_path={}", search_path.replace(' ', ""));
        answer(self.psql(server).env("PGOPTIONS", options).args(["-c", sql]).output().unwrap())
    }

    /// The rows that the primary gives to a role without rights, with the columns apart.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let mut psql = self.psql(Server::Primary);
        let output =
            psql.args(["-U", "ordinary", "-F", "\u{1f}", "-R", "\u{1e}", "-c", sql]).output().unwrap();
        let text = answer(output).unwrap();
        let rows = text.trim_end_matches('\n').split('\u{1e}').filter(|row| !row.is_empty());
        rows.map(|row| row.split('\u{1f}').map(str::to_owned).collect()).collect()
    }

    /// What a server refuses of `queries`, each on a line of its own, because it is a standby. Other errors are the
    /// query's own. All of them are asked, in sessions that follow each other where a query ends its own.
    pub fn refusals(&self, server: Server, queries: &[String]) -> Vec<String> {
        let (mut refusals, mut rest) = (Vec::new(), queries);
        while !rest.is_empty() {
            let (output, asked) = self.ask_in_one_session(server, rest);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let is_refusal = |line: &&str| {
                line.contains("ERROR:  25006") || line.contains("recovery") || line.contains("hot standby")
            };
            let refused = said.lines().filter(is_refusal);
            refusals
                .extend(refused.map(|line| format!("{line}\n  {:?}", line_of(line).map(|at| &rest[at - 1]))));
            rest = &rest[asked..];
        }
        refusals
    }

    /// What psql said, and how many of `queries` it has asked: all, or up to the one that ended the session.
    fn ask_in_one_session(&self, server: Server, queries: &[String]) -> (Output, usize) {
        const DONE: &str = "all was asked";
        let script = self.folder.path().join("queries.sql");
        std::fs::write(&script, format!("{};\n\\warn {DONE}\n", queries.join(";\n"))).unwrap();
        let mut psql = self.psql(server);
        psql.env("PGOPTIONS", "-c statement_timeout=1s").arg("-f").arg(&script).stdout(Stdio::null());
        let output = psql.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let lost = said.lines().find(|line| line.ends_with(": error: connection to server was lost"));
        let asked = match lost.and_then(line_of) {
            Some(line) => line,
            None => {
                let is_done = output.status.success() && said.lines().last() == Some(DONE);
                assert!(is_done, "psql ended with {}: {said}", output.status);
                queries.len()
            }
        };
        (output, asked)
    }

    pub fn catalog(&self) -> Catalog {
        let mut builder = Builder::default();
        for query in Query::ALL {
            for row in self.rows(query.sql()) {
                let columns: Vec<&str> = row.iter().map(String::as_str).collect();
                builder.row(query, &columns).unwrap();
            }
        }
        builder.finish(1)
    }

    /// Where both have their sockets.
    pub fn socket_folder(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Waits until the standby has replayed all that the primary has written.
    fn catch_up(&self) {
        let written = self.ask(Server::Primary, "public", "SELECT pg_current_wal_flush_lsn()").unwrap();
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", written.trim());
        self.wait("the standby has caught up", || {
            self.ask(Server::Standby, "public", &replayed).as_deref() == Ok("t\n")
        });
    }

    fn start_one(&mut self, server: Server) {
        let mut postgres = self.command("postgres");
        let socket = self.socket_folder();
        let options = ["-c", "listen_addresses=", "-c", "fsync=off", "-p", server.port()];
        postgres.args(options).args(["-k", &socket, "-D", server.data()]);
        self.postmasters.push(postgres.spawn().unwrap());
        self.wait("the server has started", || self.ask(server, "public", "SELECT 1").is_ok());
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < until, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn psql(&self, server: Server) -> Command {
        let mut psql = self.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "VERBOSITY=verbose", "-U", "postgres", "-d", "postgres"]);
        psql.args(["-p", server.port(), "-h"]).arg(self.folder.path());
        psql.stdout(Stdio::piped()).stderr(Stdio::piped());
        psql
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// PostgreSQL refuses to run as root; then it runs as the owner of the folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(bin().join(program));
        let owner = self.folder.path().metadata().unwrap();
        if owner.uid() != own_uid() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        command.current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Of the script, in what psql says of it.
fn line_of(said: &str) -> Option<usize> {
    said.split(':').nth(2)?.parse().ok()
}

impl Drop for Servers {
    fn drop(&mut self) {
        while let Some(mut postmaster) = self.postmasters.pop() {
            Command::new("kill").args(["-QUIT", &postmaster.id().to_string()]).status().unwrap();
            postmaster.wait().unwrap();
        }
    }
}

fn answer(output: Output) -> Answer {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The programs of the newest installed PostgreSQL.
fn bin() -> PathBuf {
    let majors = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbered = majors.filter_map(|major| {
        let number = major.file_name().to_str()?.parse::<u32>().ok()?;
        Some((number, major.path().join("bin")))
    });
    numbered.max().expect("these tests need PostgreSQL: apt-get install postgresql").1
}

fn own_uid() -> u32 {
    Path::new("/proc/self").metadata().unwrap().uid()
}

/// Whom PostgreSQL can run as, where we are root.
fn unprivileged_owner() -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = passwd.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut numbers = line.split(':').skip(1).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    (own_uid() == 0).then(|| ids("postgres").or_else(|| ids("nobody")).expect("an unprivileged user"))
}
