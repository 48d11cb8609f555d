//! `explain` tells where each value comes from.

use manifest::Surroundings;

use crate::read;

const TEXT: &str =
    "app = \"guestbook\"\nstage = 2\n[web]\nsize = \"small\"\ngrace = \"1m\"\n[db]\nengine = \"postgres\"\n";

#[test]
fn every_value_is_shown_with_its_origin() {
    let surroundings = Surroundings { procfile: Some("web: bin/serve\nworker: bin/work\n".to_owned()) };
    let manifest = manifest::read("switchback.toml", TEXT, &surroundings).unwrap();
    insta::assert_snapshot!(manifest.explain());
    assert_eq!(
        manifest.notes,
        ["the Procfile's `worker` process is not run: `web` and `release` are in this version"]
    );
}

#[test]
fn a_rehearsal_that_writes_says_so() {
    let text = "app = \"a\"\n[web]\nrun = \"x\"\n[rehearsal.visit.signer]\nweight = 2\n\
                steps = [{ get = \"/sign\" }, { post = \"/sign\" }]\n";
    let explained = read(text).unwrap().explain();
    let section = explained.split("\n\n").find(|section| section.starts_with("rehearsal")).unwrap();
    insta::assert_snapshot!(section);
}

#[test]
fn a_graph_alone_is_explained_without_origins() {
    let manifest = read("app = \"guestbook\"\n[web]\nrun = \"x\"\n[edge]\ntls = \"local\"\n").unwrap();
    insta::assert_snapshot!(manifest::explain_text(manifest.graph()));
}

#[test]
fn programs_read_the_graph_and_the_origins() {
    let surroundings = Surroundings { procfile: Some("web: bin/serve\n".to_owned()) };
    let manifest = manifest::read("switchback.toml", TEXT, &surroundings).unwrap();
    let explained = manifest.explain_json();
    assert_eq!(explained["graph"]["resources"]["web"]["kind"], "service");
    assert_eq!(explained["sources"]["web.run"], "procfile");
    assert_eq!(explained["sources"]["web.instances"], "preset");
    assert_eq!(explained["sources"]["web.grace"], "manifest");
    assert_eq!(explained["sources"]["web.start_timeout"], "default");
}

#[test]
fn the_manifest_wins_over_the_procfile() {
    let surroundings = Surroundings { procfile: Some("web: from-the-procfile\n".to_owned()) };
    let text = "app = \"a\"\n[web]\nrun = \"from-the-manifest\"\n";
    let manifest = manifest::read("switchback.toml", text, &surroundings).unwrap();
    assert_eq!(manifest.graph().services().next().unwrap().1.run, "from-the-manifest");
}
