//! Cutting bytes into lines of bounded length.

/// Longer lines are cut; each part but the last ends with [`CUT`], each but the first begins with it.
pub(super) const MAX_LINE_BYTES: usize = 16 * 1024;
pub(super) const CUT: &str = "…";

/// What to do with text after the last line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Its end may still be written: leave it.
    Wait,
    /// Nobody writes any more: it is the last line.
    Flush,
}

/// A line or part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Without its line end.
    pub text: &'a [u8],
    /// Bytes of the input up to and with this piece and its line end.
    pub end: usize,
    pub is_cut: bool,
}

/// The pieces that are certain, in order. What they do not cover has to be given again, with more behind it.
pub(super) fn pieces(bytes: &[u8], rest: Rest) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = &bytes[at..];
        let window = &left[..left.len().min(MAX_LINE_BYTES + 1)];
        let (text, taken, is_cut) = match memchr::memchr(b'\n', window) {
            Some(end) => (&left[..end], end + 1, false),
            None if left.len() > MAX_LINE_BYTES => {
                let cut = character_boundary(left, MAX_LINE_BYTES);
                (&left[..cut], cut, true)
            }
            None if rest == Rest::Flush && !left.is_empty() => (left, left.len(), false),
            None => return None,
        };
        at += taken;
        Some(Piece { text, end: at, is_cut })
    })
}

/// The last place at or before `at` that does not tear a UTF-8 character apart.
fn character_boundary(bytes: &[u8], at: usize) -> usize {
    let is_continuation = |at: &usize| bytes[*at] & 0b1100_0000 == 0b1000_0000;
    (at - 3..=at).rev().find(|at| !is_continuation(at)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8], rest: Rest) -> Vec<(&[u8], usize, bool)> {
        pieces(bytes, rest).map(|piece| (piece.text, piece.end, piece.is_cut)).collect()
    }

    #[test]
    fn a_line_waits_for_its_end_unless_nobody_writes_any_more() {
        assert_eq!(texts(b"a\n\nbc", Rest::Wait), [(&b"a"[..], 2, false), (b"", 3, false)]);
        assert_eq!(texts(b"a\nbc", Rest::Flush), [(&b"a"[..], 2, false), (b"bc", 4, false)]);
        assert_eq!(texts(b"", Rest::Flush), []);
    }

    #[test]
    fn a_line_without_end_is_cut_between_characters() {
        let long = "é".repeat(MAX_LINE_BYTES);
        let cut: Vec<_> = pieces(long.as_bytes(), Rest::Flush).collect();
        assert_eq!(cut.iter().map(|piece| piece.text.len()).sum::<usize>(), long.len());
        assert!(cut.iter().all(|piece| std::str::from_utf8(piece.text).is_ok()));
        assert!(cut.iter().all(|piece| piece.text.len() <= MAX_LINE_BYTES));
        assert_eq!(cut.iter().map(|piece| piece.is_cut).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_line_of_exactly_the_longest_length_is_whole() {
        let mut line = vec![b'x'; MAX_LINE_BYTES];
        assert_eq!(texts(&line, Rest::Wait), []);
        line.push(b'\n');
        assert_eq!(pieces(&line, Rest::Wait).map(|piece| piece.is_cut).collect::<Vec<_>>(), [false]);
    }
}
