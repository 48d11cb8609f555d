//! What every card promises holds for the reader.

use manifest::keys::{TOP, Table};

use crate::{read, refused, rendered};

fn cards() -> Vec<(String, &'static Table, &'static manifest::keys::Card)> {
    let mut cards = Vec::new();
    for table in TOP.all() {
        cards.extend(table.cards.iter().map(|card| (table.path(card.key), table, card)));
    }
    cards
}

#[test]
fn a_value_of_the_wrong_type_is_underlined_at_every_key() {
    for (path, ..) in cards() {
        // No key takes a date.
        let text = format!("{path} = 1979-05-27\n");
        let problems = refused(&text);
        let wrong: Vec<_> =
            problems.iter().filter(|problem| problem.code() == "manifest::wrong_type").collect();
        let [problem] = wrong[..] else {
            panic!("{path}: {problems:?}");
        };
        let span = problem.labels()[0].span.clone();
        assert_eq!(&text[span], "1979-05-27", "{path}");
        assert!(problem.message().contains(&path) && !problem.help().is_empty());
    }
}

#[test]
fn a_misspelt_key_is_told_the_right_one_in_every_table() {
    for (path, _, card) in cards() {
        let text = format!("{path}x = 1\n");
        let problems = refused(&text);
        let unknown = problems.iter().find(|problem| problem.code() == "manifest::unknown_key");
        let label = &unknown.unwrap_or_else(|| panic!("{path}x was accepted")).labels()[0];
        assert_eq!(text[label.span.clone()], format!("{}x", card.key));
        assert_eq!(label.text, format!("did you mean `{}`?", card.key));
    }
}

#[test]
fn every_example_of_the_reference_can_be_read() {
    for (path, table, card) in cards() {
        // Every table in a form that can stand beside any other, without those that the example is about.
        let around = [
            ("app", "app = \"example\""),
            ("web.run", "web.run = \"serve\""),
            ("db.engine", "db.engine = \"postgres\""),
        ];
        let others = ["edge.tls.certificate_chain", "edge.tls.private_key"]
            .map(|other| (other, format!("{other} = \"x\"")));
        let mut text = String::new();
        for (other, line) in around {
            if path != other && !(table.name.is_empty() && other.starts_with(&format!("{path}."))) {
                text += &format!("{line}\n");
            }
        }
        for (other, line) in others {
            if table.name == "edge.tls" && path != other {
                text += &format!("{line}\n");
            }
        }
        let visit = [("weight", "weight = 2"), ("steps", "steps = { get = \"/\" }")];
        for (key, line) in visit {
            let is_in_it = table.name.starts_with("rehearsal.visit.NAME");
            if is_in_it && card.key != key && !table.name.ends_with(key) {
                text += &format!("rehearsal.visit.NAME.{line}\n");
            }
        }
        for line in card.example.lines() {
            match table.name {
                "" => text += &format!("{line}\n"),
                name => text += &format!("{name}.{line}\n"),
            }
        }
        if let Err(problems) = read(&text) {
            panic!("the example of {path} is refused:\n{text}\n{}", rendered(&problems));
        }
    }
}

#[test]
fn the_schema_knows_every_key_of_the_examples() {
    let schema = manifest::json_schema();
    for stage in ["1-one-server", "2-two-zones", "3-read-replicas"] {
        let path = crate::committed::path(&format!("stages/{stage}/switchback.toml"));
        let example: toml::Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_known(&schema, &toml::Value::Table(example));
    }
}

fn assert_known(schema: &serde_json::Value, value: &toml::Value) {
    let Some(table) = value.as_table() else {
        return;
    };
    for (key, value) in table {
        let property = &schema["properties"][key];
        assert!(property.is_object(), "the schema does not know `{key}`");
        assert!(property["description"].is_string());
        assert_known(property, value);
    }
}
