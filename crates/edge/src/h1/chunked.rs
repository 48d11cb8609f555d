//! The chunked transfer coding, read strictly (RFC 9112, 7.1).
//!
//! A pure function over bytes: it never holds data back, and says which part of the input is body.

use super::Reject;
use super::fields::{is_field_value, is_token};
use crate::head::{HeaderList, Known};

/// Bytes of one line with a chunk size, its extensions included. Nobody uses extensions but attackers (CVE-2023-39326).
const LONGEST_SIZE_LINE: usize = 256;
/// Bytes of all trailers of a message: they stay below it.
const MOST_TRAILER_BYTES: usize = 8 * 1024;
/// Trailer fields of a message.
const MOST_TRAILERS: usize = 64;

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `used` bytes were framing; the rest is not enough to go on.
    More { used: usize },
    /// After `used` bytes of framing come `len` bytes of body (at least one). They count as taken.
    Data { used: usize, len: usize },
    /// `used` bytes were framing and the message is over.
    End { used: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// Reads one chunked body.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    trailer_bytes: usize,
    trailers: Option<Box<HeaderList>>,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        ChunkDecoder { state: State::Size, trailer_bytes: 0, trailers: None }
    }
}

impl ChunkDecoder {
    /// Takes the next step. Call again with what follows the bytes that were taken.
    ///
    /// # Errors
    /// The framing is broken; nothing after it can be trusted.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Reject> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.state {
                State::Size => {
                    let Some(line) = line(rest, LONGEST_SIZE_LINE, Reject::Chunk)? else {
                        return Ok(Step::More { used });
                    };
                    let size = parse_size_line(line)?;
                    used += line.len() + 2;
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if rest.is_empty() {
                        return Ok(Step::More { used });
                    }
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - len as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data { used, len });
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More { used }),
                    _ => return Err(Reject::Chunk),
                },
                State::Trailers => {
                    // The end of the last line may have gone beyond it.
                    let room = MOST_TRAILER_BYTES.saturating_sub(self.trailer_bytes);
                    let Some(line) = line(rest, room, Reject::Trailers)? else {
                        return Ok(Step::More { used });
                    };
                    used += line.len() + 2;
                    if line.is_empty() {
                        self.state = State::Done;
                    } else {
                        self.trailer_bytes += line.len() + 2;
                        self.trailer(line)?;
                    }
                }
                State::Done => return Ok(Step::End { used }),
            }
        }
    }

    /// Whether the last chunk and its trailers were read.
    pub fn is_over(&self) -> bool {
        self.state == State::Done
    }

    /// The trailers, once [`Step::End`] was seen and if there were any.
    pub(crate) fn trailers(&self) -> Option<&HeaderList> {
        self.trailers.as_deref()
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), Reject> {
        let colon = memchr::memchr(b':', line).ok_or(Reject::Trailers)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) || !is_field_value(value) {
            return Err(Reject::Trailers);
        }
        if Known::of(name).is_no_trailer() {
            return Err(Reject::Trailers);
        }
        // Dropped as in a head: some servers merge trailers into it.
        if Known::of_look_alike(name).is_no_trailer() {
            return Ok(());
        }
        let trailers = self.trailers.get_or_insert_default();
        if trailers.len() >= MOST_TRAILERS {
            return Err(Reject::Trailers);
        }
        trailers.push(name, value);
        Ok(())
    }
}

/// The next line without its CRLF, or `None` when it has not ended yet.
fn line(input: &[u8], longest: usize, too_long: Reject) -> Result<Option<&[u8]>, Reject> {
    let window = &input[..input.len().min(longest)];
    match memchr::memchr2(b'\r', b'\n', window) {
        None if input.len() >= longest => Err(too_long),
        None => Ok(None),
        Some(at) if window[at] == b'\n' => Err(Reject::LineEnd),
        Some(at) => match input.get(at + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(&input[..at])),
            Some(_) => Err(Reject::LineEnd),
        },
    }
}

fn parse_size_line(line: &[u8]) -> Result<u64, Reject> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // 15 digits are more than any body and cannot overflow.
    if digits == 0 || digits > 15 {
        return Err(Reject::Chunk);
    }
    let extension = &line[digits..];
    let fine = match extension.trim_ascii_start() {
        [] => extension.is_empty(),
        [b';', rest @ ..] => is_field_value(rest),
        _ => false,
    };
    if !fine {
        return Err(Reject::Chunk);
    }
    Ok(line[..digits]
        .iter()
        .fold(0, |size, digit| size * 16 + u64::from((*digit as char).to_digit(16).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_stay_below_their_limit_though_a_line_may_end_beyond_it() {
        // Lengths of the only line, with its end.
        for (length, fits) in [(8_191, true), (8_192, false), (8_193, false), (8_194, false)] {
            let line = format!("X: {}\r\n", "y".repeat(length - 5));
            let step = ChunkDecoder::default().decode(format!("0\r\n{line}\r\n").as_bytes());
            let expected = if fits { Ok(Step::End { used: length + 5 }) } else { Err(Reject::Trailers) };
            assert_eq!(step, expected, "{length}");
        }
    }
}
