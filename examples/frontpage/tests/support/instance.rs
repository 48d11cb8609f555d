//! A running instance of the service.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::Cluster;

/// The service on a port of its own; killed when dropped.
pub struct Instance {
    process: Child,
    pub port: u16,
}

impl Instance {
    /// Starts one, and waits until it says that it listens.
    pub fn start(cluster: &Cluster) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_frontpage"))
            .env("PORT", "0")
            .env("DATABASE_URL", cluster.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let port = first.strip_prefix(r#"{"event":"listening","port":"#).unwrap();
        let port = port.trim_end_matches('}').parse().unwrap();
        // The rest of its log is read and dropped: a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, port }
    }

    /// Asks it to stop; gives its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let asked = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        assert!(asked.unwrap().success());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
