//! What is promised of processes, with real ones: shell scripts and small Python programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::Size;

use super::handle::Ended;
use super::*;
use crate::cgroup::Cgroups;

/// Far beyond what anything here takes: a test that reaches it has found a hang.
const DEADLINE: Duration = Duration::from_secs(20);
const NO_GRACE: Duration = Duration::from_millis(100);

struct Place {
    dir: tempfile::TempDir,
    processes: Processes,
}

impl Place {
    fn without_cgroups() -> Place {
        Place::with(|_| Cgroups::none("test", "switched off by the test"))
    }

    /// `None` where the machine does not let us make groups: the test then says so.
    fn with_cgroups() -> Option<Place> {
        let place = Place::with(|dir| {
            let app = model::AppName::new("processtest").unwrap();
            Cgroups::detect(&crate::cgroup::tag(&app, dir))
        });
        if let Some(why) = place.processes.cgroups().unavailable() {
            eprintln!("skipped: {why}");
            return None;
        }
        Some(place)
    }

    fn with(cgroups: impl FnOnce(&Path) -> Cgroups) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = cgroups(dir.path());
        let processes = Processes::new(dir.path(), cgroups, BaseEnv::pick(std::env::vars_os()));
        Place { dir, processes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spec(&self, command: Command) -> Spec {
        Spec {
            name: "web.1".to_owned(),
            command,
            cwd: self.dir.path().to_owned(),
            env: BTreeMap::new(),
            user: None,
            size: Size::UNLIMITED,
            output: OutputFiles { stdout: self.path("web.1.out"), stderr: self.path("web.1.err") },
            priority: Priority::Normal,
            inherited_fds: Vec::new(),
            oom_score_adj: None,
            stop_signal: StopSignal::TermGroup,
        }
    }

    fn shell(&self, line: &str) -> Spec {
        self.spec(Command::Shell(line.to_owned()))
    }

    fn start(&self, line: &str) -> Process {
        self.processes.spawn(self.shell(line)).unwrap()
    }

    /// Runs to its end and returns what it printed.
    async fn output_of(&self, spec: Spec) -> String {
        let process = self.processes.spawn(spec).unwrap();
        within_deadline(process.exited()).await;
        fs::read_to_string(self.path("web.1.out")).unwrap()
    }

    /// Waits until the app has said that it is where the test wants it.
    async fn said(&self, what: &str) {
        let out = self.path("web.1.out");
        within_deadline(async {
            while !fs::read_to_string(&out).is_ok_and(|text| text.contains(what)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    fn number_in(&self, file: &str) -> u32 {
        fs::read_to_string(self.path(file)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in self.processes.cgroups().names() {
            if let Some(group) = self.processes.cgroups().adopt(&name) {
                let _ = group.kill();
            }
        }
        self.processes.cgroups().remove_empty();
    }
}

async fn within_deadline<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait).await.expect("took longer than the deadline")
}

fn is_running(pid: u32) -> bool {
    stat::Stat::of(pid).is_some_and(|stat| !stat.is_zombie())
}

#[tokio::test]
async fn the_leader_is_the_app_itself_and_its_end_is_told() {
    let place = Place::without_cgroups();
    let process = place.start("sh -c 'exit 3'");
    assert_eq!(within_deadline(process.exited()).await, Exit::Code(3));
    assert!(!Path::new(&format!("/proc/{}", process.pid())).exists(), "left as a zombie");

    let process = place.start("sleep 60");
    let program = fs::read_link(format!("/proc/{}/exe", process.pid())).unwrap();
    assert!(!program.ends_with("sh") && !program.ends_with("dash"), "{program:?} leads instead of the app");
    process.signal(Signal::USR1).unwrap();
    assert_eq!(within_deadline(process.exited()).await, Exit::Signal(libc::SIGUSR1));
}
