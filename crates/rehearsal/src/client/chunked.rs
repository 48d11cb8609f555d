//! A body in chunks (RFC 9112, 7.1), read as it arrives.

/// Of a chunk's size line or a trailer line.
const LINE_BYTES: usize = 4096;
/// Of all trailer lines.
const TRAILER_BYTES: usize = 16 * 1024;

/// What came is no chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// Of the line that is being read.
    line_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The digits of a chunk's size; `None`: not one of them yet.
    #[default]
    SizeBegins,
    Size(u64),
    /// An extension, to the end of its line; the size is known.
    Extension(u64),
    /// The line feed of a size line.
    SizeEnds(u64),
    Data(u64),
    DataCr,
    DataLf,
    TrailerBegins,
    Trailer,
    /// The line feed of the empty line at the end.
    LastLf,
    Over,
}

impl Chunks {
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Takes what came next, gives `data` what is of the body, and returns how much was taken: less than all only when the
    /// body is over.
    ///
    /// # Errors
    /// When this is no chunked body.
    pub fn take(&mut self, bytes: &[u8], data: &mut dyn FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Over {
            if let State::Data(left) = self.state {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                data(&bytes[at..at + now]);
                at += now;
                let left = left - now as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                continue;
            }
            self.state = self.next(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line_bytes += 1;
        if self.line_bytes > LINE_BYTES {
            return Err(Malformed);
        }
        Ok(match (self.state, byte) {
            (State::SizeBegins, _) => State::Size(digit(byte).ok_or(Malformed)?),
            (State::Size(size), b'\r') => State::SizeEnds(size),
            (State::Size(size), b';' | b' ' | b'\t') => State::Extension(size),
            (State::Size(size), _) => {
                let digit = digit(byte).ok_or(Malformed)?;
                State::Size(size.checked_mul(16).and_then(|size| size.checked_add(digit)).ok_or(Malformed)?)
            }
            (State::Extension(size), b'\r') => State::SizeEnds(size),
            (State::Extension(size), _) => State::Extension(size),
            (State::SizeEnds(0), b'\n') => self.line(State::TrailerBegins),
            (State::SizeEnds(size), b'\n') => self.line(State::Data(size)),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => self.line(State::SizeBegins),
            (State::TrailerBegins, b'\r') => State::LastLf,
            (State::TrailerBegins, _) => State::Trailer,
            (State::Trailer, b'\n') => {
                self.trailer_bytes += self.line_bytes;
                if self.trailer_bytes > TRAILER_BYTES {
                    return Err(Malformed);
                }
                self.line(State::TrailerBegins)
            }
            (State::Trailer, _) => State::Trailer,
            (State::LastLf, b'\n') => State::Over,
            _ => return Err(Malformed),
        })
    }

    fn line(&mut self, next: State) -> State {
        self.line_bytes = 0;
        next
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8]) -> Result<(Vec<u8>, usize), Malformed> {
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        let taken = chunks.take(wire, &mut |data| body.extend_from_slice(data))?;
        if chunks.is_over() { Ok((body, taken)) } else { Err(Malformed) }
    }

    #[test]
    fn a_body_ends_with_an_empty_chunk_and_what_follows_is_left() {
        let wire = b"A\r\n0123456789\r\n1 ; x\r\n!\r\n0\r\nTrailer: yes\r\n\r\nHTTP/1.1";
        assert_eq!(read(wire), Ok((b"0123456789!".to_vec(), wire.len() - 8)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for wire in ["\r\n", "x\r\n", "3\nabc", "3\r\nabcd", "fffffffffffffffff\r\n", "-1\r\n"] {
            assert_eq!(read(wire.as_bytes()), Err(Malformed), "{wire:?}");
        }
    }

    #[test]
    fn lines_and_trailers_have_an_end() {
        let mut chunks = Chunks::default();
        assert_eq!(
            chunks.take(&b"1;".iter().copied().chain([b'x'; LINE_BYTES]).collect::<Vec<_>>(), &mut |_| {}),
            Err(Malformed)
        );
        let mut chunks = Chunks::default();
        let wire = [&b"0\r\n"[..], &b"Field: value\r\n".repeat(TRAILER_BYTES / 10)].concat();
        assert_eq!(chunks.take(&wire, &mut |_| {}), Err(Malformed));
    }
}
