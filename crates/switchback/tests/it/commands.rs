//! The way of somebody who has an app and no manifest, command by command.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::{App, get, request};

use crate::prepare;

#[test]
fn a_folder_with_a_procfile_is_begun_checked_explained_brought_up_and_listened_to() {
    let mut switchback = prepare(App::python("shop").write("Procfile", "web: exec python3 app.py\n"));
    let manifest = switchback.app().dir().join("switchback.toml");
    std::fs::remove_file(&manifest).unwrap();
    let nothing = switchback.cli(&["check"]);
    assert_eq!(nothing.code, Some(2), "{nothing:#?}");
    assert!(nothing.stderr.contains("`switchback init` writes one"), "{nothing:#?}");

    let begun = switchback.must(&["init"]);
    assert!(
        begun.stderr.contains("Procfile") && begun.stderr.contains("`switchback up` runs it"),
        "{begun:#?}"
    );
    let again = switchback.cli(&["init"]);
    assert_eq!(again.code, Some(3), "{again:#?}");
    switchback.must(&["check"]);
    // Any free port, so that the tests of others have theirs; and two that speak.
    let written = switchback.app().manifest();
    let table = written.lines().find(|line| line.starts_with("[web]")).unwrap();
    let text = written.replace(table, &format!("[edge]\nlisten = \"127.0.0.1:0\"\n\n{table}\ninstances = 2"));
    switchback.app().put("switchback.toml", &text.replace("instances =", "instanecs ="));
    let misspelt = switchback.cli(&["check"]);
    assert_eq!(misspelt.code, Some(2), "{misspelt:#?}");
    assert!(
        misspelt.stderr.contains("instanecs") && misspelt.stderr.contains("`instances`"),
        "{misspelt:#?}"
    );
    assert_eq!(switchback.cli(&["check", "--json"]).code, Some(2));
    switchback.app().put("switchback.toml", &text);
    let explained = switchback.must(&["explain"]).stdout;
    assert!(explained.contains("exec python3 app.py"), "{explained}");
    let graph = switchback.must(&["explain", "--json"]).json();
    assert!(graph.to_string().contains("exec python3 app.py"), "{graph:#}");

    switchback.must(&["up", "--detach"]);
    switchback.look_up_front();
    assert_eq!(get(&switchback.url("/")).unwrap().status, 200);

    // Everybody's, in the order of time; and one's own.
    let lines = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let said = switchback.must(&[&["logs", "--json", "-n", "1000"], arguments].concat()).stdout;
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&[]);
    let times: Vec<&str> = all.iter().map(|line| line["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    for name in ["web.1", "web.2"] {
        assert!(all.iter().any(|line| line["instance"] == name), "{name}: {all:#?}");
        let own = lines(&[name]);
        assert!(!own.is_empty() && own.iter().all(|line| line["instance"] == name), "{own:#?}");
    }
    assert!(lines(&["web"]).len() > lines(&["web.1"]).len());

    let mut following = switchback.command(&["logs", "-f", "web"]);
    let mut following = following.stdout(Stdio::piped()).spawn().unwrap();
    let heard = BufReader::new(following.stdout.take().unwrap());
    // The one that ends is started again, and says so as both have before.
    let _ = request("POST", &switchback.url("/crash"), &[], b"");
    let mut starts = heard.lines().map_while(Result::ok).filter(|line| line.contains("listens on"));
    let third = starts.nth(2);
    assert!(third.is_some(), "nothing was heard of its start");
    // As `| head` does: with the next line it is seen that nobody reads any more.
    drop(starts);
    let _ = request("POST", &switchback.url("/crash"), &[], b"");
    let deadline = Instant::now() + Duration::from_secs(30);
    let ended = loop {
        match following.try_wait().unwrap() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            ended => break ended,
        }
    };
    following.kill().unwrap();
    following.wait().unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "it follows for nobody");
    switchback.down();
}

#[test]
fn a_command_that_is_not_there_is_warned_of_and_one_that_is_to_be_filled_in_is_refused() {
    let mut switchback = prepare(App::python("shop").set("web", "run", "\"./serve --port $PORT\""));
    let checked = switchback.must(&["check"]).stderr;
    let line = 1 + switchback.app().manifest().lines().position(|line| line.starts_with("run")).unwrap();
    assert!(checked.contains(&format!("switchback.toml:{line}: `run` starts `./serve`")), "{checked}");
    assert!(checked.contains("the `build` that makes it") && checked.contains("no problems"), "{checked}");
    let checked = switchback.must(&["check", "--json"]).json();
    assert_eq!(checked["warnings"].as_array().unwrap().len(), 1, "{checked:#}");
    // What a build makes is not there yet.
    switchback.app_mut().change("web", "build", "\"cp app.py serve\"");
    assert!(!switchback.must(&["check"]).stderr.contains("warning"));

    let manifest = switchback.app().dir().join("switchback.toml");
    std::fs::remove_file(&manifest).unwrap();
    assert!(switchback.must(&["init"]).stderr.contains("to do:"));
    for command in [&["check"][..], &["up", "--detach"]] {
        let refused = switchback.cli(command);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(refused.stderr.contains("`web.run` is still to be filled in"), "{refused:#?}");
        assert!(refused.stderr.contains("./your-server"), "{refused:#?}");
    }
}
