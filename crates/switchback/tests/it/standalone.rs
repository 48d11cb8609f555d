//! The proxy without the rest.

use std::process::Command;

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
