//! Moments, as people say them.

use std::time::{Duration, SystemTime};

/// How long ago something was, in its largest unit: "3 hours ago".
pub fn ago(then: SystemTime, now: SystemTime) -> String {
    // A clock that runs a little behind the database's must not look into the future.
    let seconds = now.duration_since(then).unwrap_or(Duration::ZERO).as_secs();
    let units =
        [(365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute")];
    for (length, unit) in units {
        match seconds / length {
            0 => (),
            1 => return format!("1 {unit} ago"),
            number => return format!("{number} {unit}s ago"),
        }
    }
    "just now".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_is_said() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let said = |seconds| ago(now - Duration::from_secs(seconds), now);
        assert_eq!(said(0), "just now");
        assert_eq!(said(60), "1 minute ago");
        assert_eq!(said(7_199), "1 hour ago");
        assert_eq!(said(7_200), "2 hours ago");
        assert_eq!(said(86_400 * 45), "1 month ago");
        assert_eq!(ago(now + Duration::from_secs(5), now), "just now");
    }
}
