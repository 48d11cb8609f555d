//! A place in the write-ahead log.

/// In bytes since the cluster was made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub u64);

/// `wal_block_size`; nobody builds another.
const PAGE_BYTES: u64 = 8_192;
const PAGE_HEADER_BYTES: u64 = 24;
/// Of the first page of a segment.
const SEGMENT_HEADER_BYTES: u64 = 40;

impl Lsn {
    /// As PostgreSQL writes it: `16/B374D848`.
    pub fn parse(text: &[u8]) -> Option<Lsn> {
        let (high, low) = str::from_utf8(text).ok()?.split_once('/')?;
        let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
        Some(Lsn(half(high)? << 32 | half(low)?))
    }

    /// Where replay stands when it has replayed everything before this insert position. Just behind a page's header there
    /// is no record yet, and replay does not step over a header before there is one.
    pub fn replayable(self, segment_bytes: u64) -> Lsn {
        let header = if self.0 % segment_bytes == SEGMENT_HEADER_BYTES {
            SEGMENT_HEADER_BYTES
        } else if self.0 % PAGE_BYTES == PAGE_HEADER_BYTES {
            PAGE_HEADER_BYTES
        } else {
            0
        };
        Lsn(self.0 - header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_postgres_writes_it() {
        assert_eq!(Lsn::parse(b"16/B374D848"), Some(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn::parse(b"0/0"), Some(Lsn(0)));
        for wrong in [&b""[..], b"16", b"16/", b"x/1", b"1/123456789"] {
            assert_eq!(Lsn::parse(wrong), None);
        }
    }

    #[test]
    fn replay_never_stands_just_behind_a_header() {
        const SEGMENT: u64 = 16 << 20;
        for (insert, replayed) in [
            (3 * SEGMENT + 40, 3 * SEGMENT),
            (3 * SEGMENT + 8_192 + 24, 3 * SEGMENT + 8_192),
            (3 * SEGMENT + 8_192 + 40, 3 * SEGMENT + 8_192 + 40),
            (3 * SEGMENT + 8_192 + 32, 3 * SEGMENT + 8_192 + 32),
        ] {
            assert_eq!(Lsn(insert).replayable(SEGMENT), Lsn(replayed));
        }
    }
}
