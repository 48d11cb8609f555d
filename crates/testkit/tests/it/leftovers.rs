//! Whatever happens to a test, nothing of it runs on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use testkit::{App, Switchback};

/// Set in the process that plays a test which is killed.
const VICTIM: &str = "TESTKIT_VICTIM";
const LIMIT: Duration = Duration::from_secs(20);

/// Never started: a program that does nothing stands for the binary.
fn prepared() -> Switchback {
    Switchback::prepare("/bin/true", App::python("shop"))
}

fn resident(switchback: &Switchback) -> Child {
    Command::new("sleep").arg("3600").current_dir(switchback.app().dir()).spawn().unwrap()
}

#[test]
fn what_lives_off_the_folder_ends_with_it_in_a_panic_too() {
    let mut left = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let switchback = prepared();
        let folder = switchback.app().dir();
        left = Some((resident(&switchback), folder));
        panic!("as told");
    }));
    assert!(panicked.is_err());
    let (mut child, folder) = left.unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "killed");
    assert!(!folder.exists());
}

/// A test runner that gives up on a test kills it: no destructor runs then.
#[test]
fn what_a_killed_test_leaves_is_removed_by_its_guardian() {
    if std::env::var_os(VICTIM).is_some() {
        let switchback = prepared();
        let child = resident(&switchback);
        println!("victim {} {}", child.id(), switchback.app().dir().display());
        std::process::abort();
    }
    let name = "leftovers::what_a_killed_test_leaves_is_removed_by_its_guardian";
    let mut victim = Command::new(std::env::current_exe().unwrap());
    let output = victim.args(["--exact", name, "--nocapture"]).env(VICTIM, "1").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, said) = said.split_once("victim ").unwrap();
    let (pid, folder) = said.lines().next().unwrap().split_once(' ').unwrap();

    let deadline = Instant::now() + LIMIT;
    while is_alive(pid) || PathBuf::from(folder).exists() {
        assert!(Instant::now() < deadline, "{pid} or {folder} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_alive(pid: &str) -> bool {
    // The command line of a zombie, which nobody may ever collect here, is empty.
    std::fs::read(Path::new("/proc").join(pid).join("cmdline")).is_ok_and(|line| !line.is_empty())
}
