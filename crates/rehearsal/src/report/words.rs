//! Figures as people read them: three digits are enough, and nothing is rounded to "all" or "none" that is not.

use crate::record::{FailedRequests, Outcome};

/// How a request failed. `None`: it did not.
pub fn failure(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Ok | Outcome::Shed => None,
        Outcome::Status => Some("wrong status"),
        Outcome::Refused => Some("no connection"),
        Outcome::Broken => Some("broken off"),
        Outcome::GaveUp => Some("gave up waiting"),
        Outcome::TooMuch => Some("too large, or sent in circles"),
    }
}

/// `wrong status, 404`.
pub fn how_it_failed(requests: &FailedRequests) -> Option<String> {
    let how = failure(requests.outcome)?;
    Some(requests.status.map_or_else(|| how.to_owned(), |status| format!("{how}, {status}")))
}

/// `850 µs`, `1.24 ms`, `34.0 ms`, `1.35 s`.
pub fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", three_digits(us as f64 / 1_000.0)),
        _ => format!("{} s", three_digits(us as f64 / 1_000_000.0)),
    }
}

/// Or a dash, where nothing was measured.
pub fn duration_or_dash(us: Option<u64>) -> String {
    us.map_or_else(dash, duration)
}

pub fn dash() -> String {
    "–".to_owned()
}

/// `12,345`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Per second: `1,250`, `24.8`, `0.40`.
pub fn rate(per_second: f64) -> String {
    if per_second >= 1_000.0 { count(per_second.round() as u64) } else { three_digits(per_second) }
}

/// A part of a whole: `99.98 %`. Nearly all is `> 99.99 %` and hardly any `< 0.01 %`.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return dash();
    }
    let percent = part as f64 / whole as f64 * 100.0;
    match percent {
        _ if part == 0 => "0 %".to_owned(),
        _ if part == whole => "100 %".to_owned(),
        _ if percent < 0.01 => "< 0.01 %".to_owned(),
        _ if percent > 99.99 => "> 99.99 %".to_owned(),
        10.0..=99.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.2} %"),
    }
}

/// A share of one, as a whole percentage.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `0:05`, `9:30`, `1:02:03`.
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `12 requests`, `1 request`.
pub fn of(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(n), if n == 1 { "" } else { "s" })
}

/// At most so many characters, so that no name of a stranger makes a page or a line endless.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_shown_and_the_unit_fits() {
        let shown = [0, 850, 1_240, 34_000, 340_000, 1_350_000, 61_000_000].map(duration);
        assert_eq!(shown, ["0 µs", "850 µs", "1.24 ms", "34.0 ms", "340 ms", "1.35 s", "61.0 s"]);
        assert_eq!([0.0, 0.4, 24.84, 999.7, 1_250.4].map(rate), ["0", "0.40", "24.8", "1000", "1,250"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([5, 570, 3_723].map(clock), ["0:05", "9:30", "1:02:03"]);
    }

    /// "100 % succeeded" beside a failed request would be a lie.
    #[test]
    fn nearly_all_is_not_all_and_hardly_any_is_not_none() {
        assert_eq!(share(999_999, 1_000_000), "> 99.99 %");
        assert_eq!(share(1, 1_000_000), "< 0.01 %");
        assert_eq!(share(1_000_000, 1_000_000), "100 %");
        assert_eq!(share(0, 1_000_000), "0 %");
        assert_eq!([share(1, 8), share(9_998, 10_000), share(0, 0)], ["12.5 %", "99.98 %", "–"]);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(shortened("äöüß", 2), "äö…");
        assert_eq!(shortened("äö", 2), "äö");
    }
}
