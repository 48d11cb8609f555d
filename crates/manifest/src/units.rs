//! Small texts that several places read and write: durations and enumerations.

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Milliseconds of `30s`, `500ms`, `2m` or `1h`. `None` for anything else.
pub(crate) fn parse_duration(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// The shortest text that reads back as `ms`.
pub(crate) fn duration_text(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let (name, factor) = UNITS.iter().find(|(_, factor)| ms.is_multiple_of(*factor)).unwrap_or(&("ms", 1));
    format!("{}{name}", ms / factor)
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn listed(items: &[String], joined_by: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {joined_by} {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for text in ["0s", "500ms", "1500ms", "30s", "90s", "2m", "1h", "36h"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn a_duration_needs_a_number_and_one_known_unit() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 s",
            "1m30s",
            "5 days",
            "99999999999999999999h",
            "9999999999999999h",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?} was accepted");
        }
    }
}
