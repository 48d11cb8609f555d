//! The JSON Schema, for editors that complete and underline while one types.

use serde_json::{Map, Value, json};

use crate::keys::{Card, Default, Kind, Shape, TOP, Table};

/// The value of `docs/manifest.schema.json`, draft 2020-12. `cargo xtask docs` writes it, a test fails when the
/// committed file is stale. It is a little wider than [`crate::read`], which also knows what two keys have to do with
/// each other.
pub fn json_schema() -> Value {
    let mut schema = table(&TOP);
    if let Value::Object(object) = &mut schema {
        object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        object.insert("title".to_owned(), json!("switchback.toml"));
    }
    schema
}

fn table(table: &Table) -> Value {
    let properties: Map<String, Value> =
        table.cards.iter().map(|card| (card.key.to_owned(), property(card))).collect();
    // `web.run` may come from a Procfile, which a schema cannot see.
    let required: Vec<&str> = table
        .cards
        .iter()
        .filter(|card| matches!(card.default, Default::Required) && table.path(card.key) != "web.run")
        .map(|card| card.key)
        .collect();
    json!({
        "type": "object",
        "description": table.about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(card: &Card) -> Value {
    let mut schema = of_kind(&card.kind);
    if let Value::Object(object) = &mut schema {
        let description = format!("{}\n\n{} Without it: {}", card.does, card.choose, card.without);
        object.insert("description".to_owned(), json!(description));
        if let Some(default) = default_value(card) {
            object.insert("default".to_owned(), default);
        }
    }
    schema
}

fn default_value(card: &Card) -> Option<Value> {
    match card.default {
        Default::Value(text) => {
            let line: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
            serde_json::to_value(line.get("value")?).ok()
        }
        Default::Required | Default::Preset | Default::Absent(_) => None,
    }
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text(shape) => match pattern(*shape) {
            Some(pattern) => json!({ "type": "string", "pattern": pattern }),
            None => json!({ "type": "string", "minLength": 1 }),
        },
        Kind::Choice(names) => json!({ "type": "string", "enum": names }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Stage => {
            let stages: Vec<u8> = crate::PRESETS.iter().map(|preset| preset.stage).collect();
            json!({ "type": "integer", "enum": stages })
        }
        Kind::Duration { .. } => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }),
        Kind::Bytes { .. } => {
            json!({ "type": "string", "pattern": "^[0-9]+ *(kB|KB|KiB|MB|MiB|GB|GiB|TB|TiB)$" })
        }
        Kind::Cores => json!({ "type": "number", "minimum": 0.05, "maximum": 1024 }),
        Kind::Address => json!({
            "type": ["string", "integer"],
            "pattern": "^(.+)?:[0-9]+$",
            "minimum": 0,
            "maximum": 65535,
        }),
        Kind::Paths => json!({ "type": "array", "items": { "type": "string", "pattern": "^[^/]" } }),
        Kind::Networks => json!({ "type": "array", "items": { "type": "string", "pattern": "/[0-9]+$" } }),
        Kind::Environment => json!({
            "type": "object",
            "propertyNames": { "pattern": "^(?!PORT$|DATABASE_URL$|SWITCHBACK_)[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": { "type": ["string", "integer", "boolean"] },
        }),
        Kind::Thresholds => json!({
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        }),
        Kind::Fields => json!({
            "type": "object",
            "additionalProperties": { "type": ["string", "integer", "boolean"] },
        }),
        Kind::Named(below) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,40}$" },
            "additionalProperties": table(below),
        }),
        Kind::Steps(below) => json!({
            "oneOf": [table(below), { "type": "array", "minItems": 1, "items": table(below) }],
        }),
        Kind::Table(below) => table(below),
        Kind::ChoiceOrTable(names, below) => json!({
            "oneOf": [{ "type": "string", "enum": names }, table(below)],
        }),
    }
}

fn pattern(shape: Shape) -> Option<&'static str> {
    match shape {
        Shape::AppName => Some("^[a-z][a-z0-9-]{0,39}$"),
        Shape::HostName => Some("^[a-z0-9-]+(\\.[a-z0-9-]+)*$"),
        Shape::HttpPath => Some("^/[!-\"$-~]*$"),
        Shape::DatabaseName => Some("^[a-z][a-z0-9_]{0,62}$"),
        Shape::Command | Shape::FilePath | Shape::SystemUser => None,
    }
}
