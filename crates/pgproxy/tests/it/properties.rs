//! What holds for all bytes that anybody may send. The fuzz targets run the same.

use pgproxy::frame::{Cut, Framer, HEAD_BYTES, HEADER_BYTES, MAX_MESSAGE_BYTES, Malformed};

/// The messages of a stream: type and length of each, and how many bytes of the last were there.
type Messages = (Vec<(u8, usize)>, Result<usize, Malformed>);

/// However a stream arrives, it is cut into the same messages, and no byte is lost or given twice.
///
/// # Panics
/// When that does not hold.
pub fn framer(input: &[u8]) {
    let Some((&step, stream)) = input.split_first() else { return };
    let at_once = cut_in_steps(stream, stream.len().max(1));
    let in_steps = cut_in_steps(stream, usize::from(step).max(1));
    assert_eq!(at_once, in_steps);
}

fn cut_in_steps(stream: &[u8], step: usize) -> Messages {
    let mut framer = Framer::new(HEAD_BYTES);
    let mut messages: Vec<(u8, usize)> = Vec::new();
    let (mut taken, mut there) = (0, 0);
    // Of the last message: how many bytes were given, and how many it has.
    let (mut given, mut total) = (0, 0);
    while there < stream.len() {
        there = stream.len().min(there + step);
        loop {
            let bytes = match framer.cut(&stream[taken..there]) {
                Err(malformed) => return (messages, Err(malformed)),
                Ok(Cut::More) => break,
                Ok(Cut::Rest { bytes }) => bytes,
                Ok(Cut::Whole { tag, bytes } | Cut::Head { tag, bytes }) => {
                    assert_eq!(given, total, "a message begins before the one before it has ended");
                    let length =
                        u32::from_be_bytes(stream[taken + 1..taken + HEADER_BYTES].try_into().unwrap());
                    total = 1 + length as usize;
                    given = 0;
                    assert!(total <= 1 + MAX_MESSAGE_BYTES && tag == stream[taken]);
                    messages.push((tag, total));
                    bytes
                }
            };
            assert!(bytes > 0, "nothing was given");
            given += bytes;
            taken += bytes;
            assert!(given <= total && taken <= there);
        }
    }
    // What was begun and not given yet differs by how it came; what was given in whole does not.
    let whole = messages.len() - usize::from(given < total);
    messages.truncate(whole);
    (messages, Ok(whole))
}
