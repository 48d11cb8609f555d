//! The stages as data: each example expands to the graph beside it.

use model::{Resource, ResourceId};

use crate::committed::{self, assert_fresh};
use crate::read;

const UPDATE: &str = "UPDATE_COMMITTED=1 cargo test -p manifest";

const STAGES: [&str; 3] = ["1-one-server", "2-two-zones", "3-read-replicas"];

fn example(stage: &str) -> String {
    std::fs::read_to_string(committed::path(&format!("stages/{stage}/switchback.toml"))).unwrap()
}

#[test]
fn each_stage_expands_to_the_graph_beside_it() {
    for stage in STAGES {
        let manifest = read(&example(stage)).unwrap();
        let graph = serde_json::to_string_pretty(manifest.graph()).unwrap() + "\n";
        assert_fresh(&format!("stages/{stage}/expected/graph.json"), &graph, UPDATE);
    }
}

#[test]
fn a_stage_is_one_changed_line() {
    let [first, second, third] = STAGES.map(example);
    let changed = |from: &str, to: &str| {
        let pairs = from.lines().zip(to.lines()).filter(|(a, b)| a != b);
        pairs.map(|(a, b)| format!("{a} -> {b}")).collect::<Vec<_>>()
    };
    assert_eq!(changed(&first, &second), ["stage  = 1 -> stage  = 2"]);
    assert_eq!(changed(&second, &third), ["stage  = 2 -> stage  = 3"]);
    assert!(first.lines().count() <= 10);
}

#[test]
fn explicit_keys_win_over_the_stage() {
    let text = "app = \"a\"\nstage = 2\nzones = 3\n[web]\nrun = \"x\"\ninstances = 7\n";
    let manifest = read(text).unwrap();
    assert_eq!(manifest.graph().zones.len(), 3);
    let Some(Resource::Service(web)) = manifest.graph().resources.get(&ResourceId::new("web").unwrap())
    else {
        panic!("no web service");
    };
    assert_eq!(web.instances, 7);
}

#[test]
fn the_web_service_uses_a_database_only_when_there_is_one() {
    let with = read("app = \"my-app\"\n[web]\nrun = \"x\"\n[db]\nengine = \"postgres\"\n").unwrap();
    let (_, web) = with.graph().services().next().unwrap();
    assert_eq!(web.database.as_ref().map(ResourceId::as_str), Some("db"));
    let (_, db) = with.graph().databases().next().unwrap();
    assert_eq!(db.database, "my_app");

    let without = read("app = \"my-app\"\n[web]\nrun = \"x\"\n").unwrap();
    assert_eq!(without.graph().databases().count(), 0);
    assert_eq!(without.graph().services().next().unwrap().1.database, None);
}

/// Applications of the repository that know nothing of this crate.
#[test]
fn the_example_apps_have_manifests_without_problems() {
    for app in ["frontpage", "guestbook"] {
        let text =
            std::fs::read_to_string(committed::path(&format!("examples/{app}/switchback.toml"))).unwrap();
        let manifest = read(&text).unwrap_or_else(|problems| panic!("{}", crate::rendered(&problems)));
        assert_eq!(manifest.graph().app.as_str(), app);
    }
}
