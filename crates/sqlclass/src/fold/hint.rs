//! Comments that say where a statement should go: `/* switchback: primary */`, `/* switchback: replica */`.

/// Where the author of a statement wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hint {
    /// To the primary, whatever it is.
    Primary,
    /// To a replica, although it calls or reads what we do not know or know to be volatile. What certainly needs the
    /// primary goes there all the same.
    Replica,
}

impl Hint {
    /// Of the text between `/*` and `*/`.
    pub(super) fn of_comment(body: &[u8]) -> Option<Hint> {
        let place = body.trim_ascii().strip_prefix(b"switchback:")?.trim_ascii_start();
        match place {
            b"primary" => Some(Hint::Primary),
            b"replica" => Some(Hint::Replica),
            _ => None,
        }
    }

    /// Of two hints in one text the safer one holds.
    pub(super) fn and(self, other: Hint) -> Hint {
        if self == other { self } else { Hint::Primary }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_a_comment_of_its_own() {
        assert_eq!(Hint::of_comment(b" switchback: primary "), Some(Hint::Primary));
        assert_eq!(Hint::of_comment(b"switchback:replica"), Some(Hint::Replica));
        assert_eq!(Hint::of_comment(b" route=switchback: primary"), None);
        assert_eq!(Hint::of_comment(b"switchback: replica please"), None);
        assert_eq!(Hint::Replica.and(Hint::Primary), Hint::Primary);
    }
}
