//! `examples/guestbook`, as its folder is: a virtual environment of its own, a driver from the package index, a migration.

use std::process::{Command, Stdio};

use testkit::{App, get, request};

use crate::up;

#[test]
fn the_guestbook_is_built_migrated_signed_and_read() {
    let mut python = Command::new("python3");
    let venv = python.args(["-c", "import venv, ensurepip"]).stderr(Stdio::null()).status();
    if !venv.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no Python with virtual environments");
        return;
    }
    let manifest = include_str!("../../../../examples/guestbook/switchback.toml");
    let app = App::python("guestbook")
        .write("app.py", include_str!("../../../../examples/guestbook/app.py"))
        .write("requirements.txt", include_str!("../../../../examples/guestbook/requirements.txt"))
        .write("switchback.toml", &format!("{manifest}\n[edge]\nlisten = \"127.0.0.1:0\"\n"));
    let switchback = up(app);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let signed = request("POST", &switchback.url("/"), &form, b"name=Ada&text=I+was+here").unwrap();
    assert_eq!(signed.status, 303, "{}", signed.body);
    let page = get(&switchback.url("/")).unwrap();
    assert!(page.body.contains("<b>Ada</b>") && page.body.contains("<p>I was here</p>"), "{}", page.body);
}
