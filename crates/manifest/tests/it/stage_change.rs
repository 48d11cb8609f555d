//! `set_stage` changes one value and nothing else.

use manifest::set_stage;

use crate::rendered;

#[test]
fn comments_and_layout_stay() {
    let text = "# our app\napp    = \"a\"   # the name\nstage  = 1   # soon 2\r\n\r\n[web]\nrun = 'x'";
    assert_eq!(set_stage(text, 2).unwrap(), text.replace("stage  = 1", "stage  = 2"));
}

#[test]
fn a_manifest_without_a_stage_gets_the_line_after_app() {
    assert_eq!(
        set_stage("app = \"a\" # name\n[web]\n", 2).unwrap(),
        "app = \"a\" # name\nstage = 2\n[web]\n"
    );
    assert_eq!(set_stage("app = \"a\"\r\n[web]\r\n", 2).unwrap(), "app = \"a\"\r\nstage = 2\r\n[web]\r\n");
    assert_eq!(set_stage("app = \"a\"", 2).unwrap(), "app = \"a\"\nstage = 2\n");
    assert_eq!(set_stage("[web]\nrun = \"x\"\n", 2).unwrap(), "stage = 2\n[web]\nrun = \"x\"\n");
}

#[test]
fn a_stage_of_the_wrong_type_is_mended() {
    assert_eq!(set_stage("stage = \"one\"\n", 2).unwrap(), "stage = 2\n");
}

#[test]
fn a_stage_that_does_not_exist_yet_is_refused() {
    let problems = set_stage("app = \"a\"\nstage = 1\n", 4).unwrap_err();
    insta::assert_snapshot!(rendered(&problems));
}

#[test]
fn a_text_that_is_not_toml_is_left_alone() {
    assert!(set_stage("app = = 1\nstage = 1\n", 2).is_err());
    assert!(set_stage("[stage]\na = 1\n", 2).is_err());
}
