//! Cutting a stream of bytes into PostgreSQL messages without copying any.
//!
//! After the startup packet every message is a type byte, a length (u32, itself included) and a body. A message that
//! fits [`Framer::whole_bytes`] is given as a whole. Of a larger one the beginning is given, so that what stands at the
//! front of it (the name of a statement, an SQLSTATE) can be read, and then the rest as it comes: a row of a gigabyte
//! needs no buffer of a gigabyte.

/// Both PostgreSQL and its clients refuse longer messages.
pub const MAX_MESSAGE_BYTES: usize = 0x3fff_ffff;
/// Type and length.
pub const HEADER_BYTES: usize = 5;
/// How much of a large message is there at least when its beginning is given.
pub const HEAD_BYTES: usize = 8 * 1024;

/// The state between two cuts: how much of a message that was begun is still to come.
#[derive(Debug, Clone)]
pub struct Framer {
    whole_bytes: usize,
    rest: usize,
}

/// What stands at the front of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing yet; more bytes are needed.
    More,
    /// A message of this type and of so many bytes, header included.
    Whole { tag: u8, bytes: usize },
    /// The beginning of a message too large to wait for: all the bytes there are. The rest follows.
    Head { tag: u8, bytes: usize },
    /// The next bytes of that message.
    Rest { bytes: usize },
}

/// The stream cannot be cut: a length that no message can have. What follows means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of type {tag:#04x} with the impossible length {length}")]
pub struct Malformed {
    pub tag: u8,
    pub length: u32,
}

impl Framer {
    /// `whole_bytes`: up to this size messages are given as a whole. At least [`HEAD_BYTES`].
    pub fn new(whole_bytes: usize) -> Framer {
        Framer { whole_bytes: whole_bytes.max(HEAD_BYTES), rest: 0 }
    }

    /// What stands at the front of `bytes`. The caller takes what was given off the front and asks again.
    ///
    /// # Errors
    /// When there can be no such message.
    pub fn cut(&mut self, bytes: &[u8]) -> Result<Cut, Malformed> {
        if self.rest > 0 {
            let given = self.rest.min(bytes.len());
            self.rest -= given;
            return Ok(if given == 0 { Cut::More } else { Cut::Rest { bytes: given } });
        }
        let Some(&[tag, l0, l1, l2, l3]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(Cut::More) };
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if !(4..=MAX_MESSAGE_BYTES).contains(&(length as usize)) {
            return Err(Malformed { tag, length });
        }
        let total = 1 + length as usize;
        if total <= bytes.len() {
            return Ok(Cut::Whole { tag, bytes: total });
        }
        if total <= self.whole_bytes || bytes.len() < HEAD_BYTES {
            return Ok(Cut::More);
        }
        self.rest = total - bytes.len();
        Ok(Cut::Head { tag, bytes: bytes.len() })
    }

    /// Whether a message was begun and has not ended.
    pub fn is_inside(&self) -> bool {
        self.rest > 0
    }
}
