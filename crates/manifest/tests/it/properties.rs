//! What holds for any text.

use manifest::init::{FolderListing, detect};
use manifest::{Surroundings, set_stage};
use proptest::prelude::*;

use crate::{read, rendered};

const FULL: &str = "app = \"a\"\nstage = 2 # two\nzones = 2\n\n[web]\nrun = 'x'\nsize = { cpu = 0.5, memory = \"1GB\" }\n\
    include = [\"a\", \"b/c\"]\ndeploy.window = \"3s\"\nenv = { A = 1, B = true }\n[db]\nengine = \"postgres\"\n\
    [edge]\nlisten = \":80\"\ntls = \"local\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n";

/// A manifest with one stretch replaced by something else.
fn damaged() -> impl Strategy<Value = String> {
    let junk = prop_oneof![
        "\\PC{0,6}",
        "[\\[\\]{}=.,\"'#\n0-9a-z]{0,12}",
        Just("[web]\n".to_owned()),
        Just("\0\u{1b}".to_owned())
    ];
    (0..FULL.len(), 0..20_usize, junk).prop_map(|(start, length, junk)| {
        let end = (start + length).min(FULL.len());
        format!("{}{junk}{}", &FULL[..start], &FULL[end..])
    })
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![damaged(), "(?s).{0,200}", "[a-z.\\[\\]{}=\"'#\n 0-9-]{0,200}"]
}

proptest! {
    #[test]
    fn reading_any_text_gives_a_manifest_or_problems_that_can_be_shown(text in any_text(), procfile in any_text()) {
        let surroundings = Surroundings { procfile: Some(procfile) };
        if let Err(problems) = manifest::read("switchback.toml", &text, &surroundings) {
            prop_assert!(!problems.is_empty());
            for label in problems.iter().flat_map(|problem| problem.labels()) {
                prop_assert!(text.get(label.span.clone()).is_some(), "{label:?} lies outside the text");
            }
            prop_assert!(!rendered(&problems).contains("Failed to read contents"));
            problems.to_json();
        }
    }

    #[test]
    fn problems_come_in_the_order_of_the_text(text in damaged()) {
        if let Err(problems) = read(&text) {
            let starts: Vec<_> = problems.iter().map(|problem| problem.labels().first().map(|label| label.span.start)).collect();
            prop_assert!(starts.is_sorted());
        }
    }

    #[test]
    fn changing_the_stage_keeps_every_other_byte(text in any_text(), stage in 1..=2_u8) {
        let Ok(changed) = set_stage(&text, stage) else {
            return Ok(());
        };
        let tree: toml::Table = toml::from_str(&changed).unwrap();
        prop_assert_eq!(tree["stage"].as_integer(), Some(i64::from(stage)));
        // What was put in lies between an unchanged beginning and an unchanged end.
        let same_start = text.bytes().zip(changed.bytes()).take_while(|(a, b)| a == b).count();
        let same_end = text[same_start..].bytes().rev().zip(changed.bytes().rev()).take_while(|(a, b)| a == b).count();
        let put_in = changed.len().saturating_sub(same_start + same_end);
        prop_assert!(put_in <= "\r\nstage = 2\r\n".len(), "{put_in} bytes differ");
        if let Ok(before) = toml::from_str::<toml::Table>(&text) {
            let without = |mut table: toml::Table| {
                table.remove("stage");
                table
            };
            prop_assert_eq!(without(before), without(tree));
        }
        prop_assert_eq!(set_stage(&changed, stage).unwrap(), changed);
    }

    #[test]
    fn a_suggested_manifest_has_at_most_ten_lines_and_no_problems_but_what_is_to_be_filled_in(
        folder_name in ".{0,60}",
        text in any_text(),
        name in "[\\PC]{0,20}",
        file in 0..8_usize,
    ) {
        let escaped = serde_json::to_string(&name).unwrap();
        let made = [
            ("Procfile", format!("web: {name}\nrelease: {name}\n")),
            ("Cargo.toml", format!("[package]\nname = {escaped}\n[dependencies]\nsqlx = {{ version = '1', features = ['postgres'] }}")),
            ("package.json", format!("{{\"main\": {escaped}, \"dependencies\": {{\"pg\": \"1\"}}}}")),
            ("requirements.txt", format!("flask\npg8000\n{name}")),
            ("go.mod", format!("module {name}\nrequire github.com/lib/pq v1")),
            ("manage.py", name.clone()),
            ("pyproject.toml", text.clone()),
            ("Cargo.toml", text),
        ];
        let (file, content) = made[file].clone();
        let listing = FolderListing { folder_name, contents: [(file.to_owned(), content)].into(), ..FolderListing::default() };
        let detection = detect(&listing);
        prop_assert!(detection.manifest.lines().count() <= 10, "{}", detection.manifest);
        let surroundings = Surroundings { procfile: listing.contents.get("Procfile").cloned() };
        if let Err(problems) = manifest::read("switchback.toml", &detection.manifest, &surroundings) {
            let left = problems.iter().all(|problem| problem.code() == "manifest::not_filled_in");
            prop_assert!(left && !detection.to_fill_in.is_empty(), "{}\n{}", detection.manifest, rendered(&problems));
        }
    }
}

#[test]
fn deep_and_endless_texts_are_refused_without_overflowing_the_stack() {
    let texts = [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(80_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("a = {{ {}a = 1 }}", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        "[[a]]\n".repeat(40_000),
        "a\n".repeat(100_000),
        "x".repeat(manifest::MAX_TEXT_BYTES + 1),
    ];
    for text in texts {
        let problems = read(&text).unwrap_err();
        assert!(problems.iter().count() <= manifest::MAX_PROBLEMS);
    }
}
