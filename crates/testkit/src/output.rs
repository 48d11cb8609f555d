//! Running a command with a limit, and what it said.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// `None`: killed by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// # Panics
    /// When the command failed, or stdout is not JSON.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }

    /// Runs to the end, or kills it after `limit`.
    pub(crate) fn of(command: &mut Command, limit: Duration) -> Output {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = gather(child.stdout.take());
        let stderr = gather(child.stderr.take());
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                break status;
            }
            if Instant::now() > deadline {
                // It may end by itself in between; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                let (stdout, stderr) = (said(stdout), said(stderr));
                panic!("{command:?} took longer than {limit:?}\n{stdout}\n{stderr}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Output { code: status.code(), stdout: said(stdout), stderr: said(stderr) }
    }
}

fn gather(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What came before a broken pipe is all there is.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn said(thread: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
}
