//! The check of one value against its card: type, range, shape.

mod address;
mod environment;
mod fields;
mod shape;

use model::{ByteSize, Cpu};
use toml::de::{DeArray, DeInteger, DeValue};

use crate::keys::Kind;
use crate::problems::{At, Problems};
use crate::settings::Value;
use crate::units;

pub(crate) use shape::reserved_database_name;

/// Of one list. A longer one is a program's output, not a person's wish.
const MAX_LIST_ENTRIES: usize = 256;

/// `None` when it was refused; the problem then says why.
pub(crate) fn value(at: &At, value: &DeValue<'_>, problems: &mut Problems) -> Option<Value> {
    match (at.card.kind, value) {
        (Kind::Text(kind), DeValue::String(text)) => shape::text(at, kind, text, problems).map(Value::Text),
        (Kind::Choice(names) | Kind::ChoiceOrTable(names, _), DeValue::String(text)) => {
            if names.contains(&text.as_ref()) {
                return Some(Value::Text(text.to_string()));
            }
            problems.unknown_choice(at, text, names);
            None
        }
        (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
        (Kind::Integer { min, max }, DeValue::Integer(written)) => {
            let number = integer(written).filter(|number| (min..=max).contains(number));
            if number.is_none() {
                problems.out_of_range(at, &written.to_string());
            }
            number.map(Value::Integer)
        }
        (Kind::Stage, DeValue::Integer(written)) => stage(at, written, problems),
        (Kind::Duration { min_ms, max_ms }, DeValue::String(text)) => {
            let Some(ms) = units::parse_duration(text) else {
                problems.malformed(at, "not a duration", suggested_duration(at, text));
                return None;
            };
            if !(min_ms..=max_ms).contains(&ms) {
                problems.out_of_range(at, text);
                return None;
            }
            Some(Value::Millis(ms))
        }
        (Kind::Bytes { min, max }, DeValue::String(text)) => {
            let Ok(size) = text.parse::<ByteSize>() else {
                problems.malformed(at, "not a size", suggested_size(at, text));
                return None;
            };
            if !(min..=max).contains(&size.bytes()) {
                problems.out_of_range(at, text);
                return None;
            }
            Some(Value::Bytes(size))
        }
        (Kind::Cores, DeValue::Integer(written)) => {
            let number = integer(written).map_or_else(|| written.to_string(), |number| number.to_string());
            cores(at, &number, problems)
        }
        (Kind::Cores, DeValue::Float(number)) => cores(at, number.as_str(), problems),
        (Kind::Address, DeValue::Integer(port)) => address::port(at, port, problems),
        (Kind::Address, DeValue::String(text)) => address::text(at, text, problems),
        (Kind::Paths, DeValue::Array(list)) => texts(at, list, problems, shape::relative_path),
        (Kind::Networks, DeValue::Array(list)) => texts(at, list, problems, address::network),
        (Kind::Thresholds, DeValue::String(text)) => {
            fields::threshold(at, text, problems).map(|text| Value::List(vec![text]))
        }
        (Kind::Thresholds, DeValue::Array(list)) => texts(at, list, problems, fields::threshold),
        (Kind::Fields, DeValue::Table(table)) => fields::fields(at, table, problems).map(Value::Fields),
        (Kind::Environment, DeValue::Table(variables)) => environment::variables(at, variables, problems),
        (_, other) => {
            problems.wrong_type(at, kind_of(other), meant(at, other));
            None
        }
    }
}

pub(crate) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn integer(written: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(written.as_str(), written.radix()).ok()
}

fn stage(at: &At, written: &DeInteger<'_>, problems: &mut Problems) -> Option<Value> {
    match integer(written) {
        Some(stage) if u8::try_from(stage).is_ok_and(|stage| crate::presets::of_stage(stage).is_some()) => {
            Some(Value::Integer(stage))
        }
        // The journey has five; the others are promised, not unknown.
        Some(stage @ 1..=5) => {
            problems.stage_not_here_yet(at, stage);
            None
        }
        _ => {
            problems.out_of_range(at, &written.to_string());
            None
        }
    }
}

fn cores(at: &At, number: &str, problems: &mut Problems) -> Option<Value> {
    let cpu = number.parse::<Cpu>().ok();
    if cpu.is_none() {
        problems.out_of_range(at, number);
    }
    cpu.map(Value::Cores)
}

/// Each entry is checked, so that all the wrong ones are underlined.
fn texts(
    at: &At,
    list: &DeArray<'_>,
    problems: &mut Problems,
    check: fn(&At, &str, &mut Problems) -> Option<String>,
) -> Option<Value> {
    if list.len() > MAX_LIST_ENTRIES {
        problems.too_many(at, list.len(), MAX_LIST_ENTRIES);
        return None;
    }
    let mut texts = Some(Vec::new());
    for entry in list.iter() {
        let at = At { span: entry.span(), ..at.clone() };
        let text = match entry.get_ref() {
            DeValue::String(text) => check(&at, text, problems),
            other => {
                problems.wrong_type(&at, &format!("a list with {}", kind_of(other)), None);
                None
            }
        };
        texts = texts.zip(text).map(|(mut texts, text)| {
            texts.push(text);
            texts
        });
    }
    texts.map(Value::List)
}

/// The line that a value of the wrong type was probably meant to be.
fn meant(at: &At, found: &DeValue<'_>) -> Option<String> {
    let key = at.card.key;
    match (at.card.kind, found) {
        (Kind::Integer { .. } | Kind::Stage, DeValue::String(text)) => {
            text.trim().parse::<i64>().ok().map(|number| format!("{key} = {number}"))
        }
        (Kind::Flag, DeValue::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(format!("{key} = true")),
            "false" | "no" | "off" => Some(format!("{key} = false")),
            _ => None,
        },
        (Kind::Cores, DeValue::String(text)) => {
            let cpu = text.trim().parse::<Cpu>().ok()?;
            Some(format!("{key} = {}", f64::from(cpu.millis()) / 1_000.0))
        }
        (Kind::Duration { .. }, DeValue::Integer(number)) => {
            Some(format!("{key} = \"{}s\"", number.as_str()))
        }
        (Kind::Bytes { .. }, DeValue::Integer(number)) => Some(format!("{key} = \"{}MB\"", number.as_str())),
        (Kind::Paths | Kind::Networks, DeValue::String(text)) => {
            Some(format!("{key} = [\"{}\"]", crate::problems::quoted(text)))
        }
        (Kind::Steps(_), DeValue::String(text)) if text.starts_with('/') => {
            Some(format!("{key} = {{ get = \"{}\" }}", crate::problems::quoted(text)))
        }
        // `db = "postgres"` means the first thing there is to say about a database.
        (Kind::Table(table), DeValue::String(text)) => {
            let first = table.cards.first()?.key;
            Some(format!("{key}.{first} = \"{}\"", crate::problems::quoted(text)))
        }
        (Kind::Table(_), DeValue::Array(_)) => Some(format!("[{key}]")),
        _ => None,
    }
}

fn suggested_duration(at: &At, text: &str) -> Option<String> {
    let compact: String = text.to_ascii_lowercase().split_whitespace().collect();
    let digits = compact.find(|c: char| !c.is_ascii_digit()).unwrap_or(compact.len());
    let (number, unit) = compact.split_at(digits);
    number.parse::<u64>().ok()?;
    let unit = match unit {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hour" | "hours" => "h",
        "ms" | "millis" | "milliseconds" => "ms",
        _ => return None,
    };
    Some(format!("{} = \"{number}{unit}\"", at.card.key))
}

fn suggested_size(at: &At, text: &str) -> Option<String> {
    let compact: String = text.to_ascii_lowercase().split_whitespace().collect();
    let digits = compact.find(|c: char| !c.is_ascii_digit()).unwrap_or(compact.len());
    let (number, unit) = compact.split_at(digits);
    number.parse::<u64>().ok()?;
    let unit = match unit {
        "k" | "kb" | "kib" | "ki" => "kB",
        "" | "m" | "mb" | "mib" | "mi" => "MB",
        "g" | "gb" | "gib" | "gi" => "GB",
        "t" | "tb" | "tib" | "ti" => "TB",
        _ => return None,
    };
    Some(format!("{} = \"{number}{unit}\"", at.card.key))
}
