//! Certificates given by files are renewed by whoever renews them, and taken into use by themselves.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{App, Load, Mix, Switchback};

use crate::up;

/// Between two looks at a file, twice, and the time to be told.
const NOTICED: Duration = Duration::from_secs(15);

/// Puts a certificate for localhost at `tls/` in the app's folder. Returns the folder of its authority.
fn renew(app: &Path) -> tempfile::TempDir {
    let made = tempfile::tempdir().unwrap();
    let issued = edge::local_ca::ensure(made.path(), &["localhost".to_owned()]).unwrap();
    std::fs::create_dir_all(app.join("tls")).unwrap();
    std::fs::copy(issued.certificate_chain, app.join("tls/chain.pem")).unwrap();
    std::fs::copy(issued.private_key, app.join("tls/key.pem")).unwrap();
    made
}

/// Whether a client that trusts the authority of this folder, and no other, is answered.
fn is_served(switchback: &Switchback, authority: &Path) -> bool {
    let status = switchback.status();
    let front = status.front.iter().find(|url| url.starts_with("https://")).unwrap();
    let port = front.trim_end_matches('/').rsplit_once(':').unwrap().1;
    let asked = Command::new("curl")
        .args(["--silent", "--fail", "--max-time", "5", "--cacert"])
        .arg(authority.join("ca.pem"))
        .arg(format!("https://localhost:{port}/"))
        .output()
        .expect("curl is installed");
    asked.status.success()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + NOTICED;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {NOTICED:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_renewed_certificate_is_taken_into_use_and_one_that_does_not_load_is_not() {
    let files = "{ certificate_chain = \"tls/chain.pem\", private_key = \"tls/key.pem\" }";
    let app = App::python("shop").set("edge", "tls", files).set("edge", "listen_tls", "\"127.0.0.1:0\"");
    let first = renew(&app.dir());
    let switchback = up(app);
    let folder = switchback.app().dir();
    let edge = switchback.status().process("edge").pid;
    assert!(is_served(&switchback, first.path()));
    let load = Load::start(&switchback.url("/"), Mix::both().at_most(200));

    let second = renew(&folder);
    wait_until("the renewed certificate is served", || is_served(&switchback, second.path()));
    assert!(!is_served(&switchback, first.path()));

    std::fs::write(folder.join("tls/key.pem"), "half of a ke").unwrap();
    let why = || switchback.must(&["why"]).stdout;
    wait_until("that it does not load is said", || why().contains("keep the certificate in use"));
    assert!(why().contains("tls/key.pem"), "{}", why());
    assert!(is_served(&switchback, second.path()));
    // The daemon's successor finds it so, and tells the edge of other changes all the same.
    switchback.kill_daemon();
    switchback.start_daemon_again();
    switchback.must(&["stage", "2", "--yes"]);
    assert!(is_served(&switchback, second.path()));

    let third = renew(&folder);
    wait_until("the mended certificate is served", || is_served(&switchback, third.path()));
    assert_eq!(switchback.status().process("edge").pid, edge, "it was the same edge all the time");
    load.stop().assert_nothing_failed(400);
    switchback.down();
}

#[test]
fn what_the_local_authority_makes_anew_is_served_by_the_edge_that_runs() {
    let app =
        App::python("shop").set("edge", "tls", "\"local\"").set("edge", "listen_tls", "\"127.0.0.1:0\"");
    let switchback = up(app);
    let edge = switchback.status().process("edge").pid;
    let tls = switchback.app().state_dir().join("tls");
    assert!(is_served(&switchback, &tls));
    // As at the end of its time: it has to be made again.
    std::fs::remove_file(tls.join("ca.pem")).unwrap();
    wait_until("a new certificate is served", || tls.join("ca.pem").exists() && is_served(&switchback, &tls));
    assert_eq!(switchback.status().process("edge").pid, edge);
}
