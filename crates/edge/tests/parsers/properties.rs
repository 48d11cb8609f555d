//! What must hold for whatever bytes a parser is given. Shared by the fuzz targets (`fuzz/`), which find the inputs,
//! and by the tests here, which run over made ones.

use edge::fuzzing::{
    ChunkDecoder, Reject, Request, Step, parse_request_head, parse_response_head, take_marks,
};

/// A request that is accepted means the same when the edge writes it anew, and no part of it is accepted.
pub fn request_head(input: &[u8]) {
    let Ok(Some(request)) = parse_request_head(input) else {
        return;
    };
    assert!(request.length <= input.len());
    let head = &input[..request.length];
    for end in cuts(head.len()) {
        assert_eq!(parse_request_head(&head[..end]), Ok(None), "a head is whole or not: {end}");
    }
    assert_eq!(parse_request_head(head).as_ref(), Ok(&Some(request.clone())), "what follows changes nothing");
    assert!(!(request.chunked && request.content_length.is_some()), "one length");

    let written = write(&request);
    let again = parse_request_head(&written).expect("our own words").expect("a whole head");
    assert_eq!(again.length, written.len());
    assert_eq!(meaning(&again), meaning(&request));
}

/// What decides where a request goes, what it says and where it ends.
#[derive(Debug, PartialEq, Eq)]
struct Meaning<'a> {
    method: &'a [u8],
    target: &'a [u8],
    authority: &'a [u8],
    chunked: bool,
    content_length: Option<u64>,
    fields: Vec<(&'a [u8], &'a [u8])>,
}

fn meaning(request: &Request) -> Meaning<'_> {
    Meaning {
        method: &request.method,
        target: &request.target,
        authority: &request.authority,
        chunked: request.chunked,
        content_length: request.content_length,
        fields: end_to_end(request).collect(),
    }
}

fn end_to_end(request: &Request) -> impl Iterator<Item = (&[u8], &[u8])> {
    let fields = request.fields.iter().map(|(name, value)| (&name[..], &value[..]));
    fields.filter(|(name, _)| !name.eq_ignore_ascii_case(b"host"))
}

fn write(request: &Request) -> Vec<u8> {
    let mut out = [&request.method[..], b" ", &request.target, b" HTTP/1.1\r\nHost: "].concat();
    out.extend_from_slice(&request.authority);
    for (name, value) in end_to_end(request) {
        for part in [&b"\r\n"[..], name, b": ", value] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// Taking the marks out of the cookies leaves the others, whole and in their order, and no mark.
pub fn cookies(input: &[u8]) {
    let is_ours = |pair: &[u8]| pair.starts_with(b"switchback-fresh=");
    let pairs = |field: &[u8]| -> Vec<Vec<u8>> {
        let pairs = field.split(|byte| *byte == b';').map(|pair| pair.trim_ascii().to_vec());
        pairs.filter(|pair| !pair.is_empty()).collect()
    };
    let (rest, mark) = take_marks(input);
    let mut others = pairs(input);
    others.retain(|pair| !is_ours(pair));
    assert_eq!(pairs(rest.as_deref().unwrap_or_default()), others);
    if mark > 0 {
        assert!(input.windows(17).any(is_ours), "a mark out of nothing");
    }
    if let Some(rest) = rest {
        assert_eq!(take_marks(&rest), (Some(rest.clone()), 0), "once is enough");
    }
}

/// A response head is whole or not, and what follows it changes nothing.
pub fn response_head(input: &[u8]) {
    let Ok(Some((length, status))) = parse_response_head(input) else {
        return;
    };
    assert!(length <= input.len());
    assert!((100..1000).contains(&status));
    let head = &input[..length];
    for end in cuts(head.len()) {
        assert_eq!(parse_response_head(&head[..end]), Ok(None), "a head is whole or not: {end}");
    }
    assert_eq!(parse_response_head(head), Ok(Some((length, status))));
}

/// However a chunked body arrives it is the same body with the same end; and written anew it is that body again.
pub fn chunked_body(input: &[u8]) {
    let whole = decode(input, input.len());
    for piece in [1, 2, 3, 7, 64] {
        let pieces = decode(input, piece);
        assert_eq!(pieces.outcome, whole.outcome, "in pieces of {piece}");
        if matches!(whole.outcome, Ok(Some(_))) {
            assert_eq!(pieces.body, whole.body, "in pieces of {piece}");
        }
    }
    let Ok(Some(taken)) = whole.outcome else {
        return;
    };
    assert!(taken <= input.len());
    assert!(whole.body.len() < taken, "framing costs bytes");
    let mut written = Vec::new();
    for chunk in whole.body.chunks(1_000) {
        written.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        written.extend_from_slice(chunk);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"0\r\n\r\n");
    let again = decode(&written, written.len());
    assert_eq!(again.outcome, Ok(Some(written.len())));
    assert_eq!(again.body, whole.body);
}

struct Decoded {
    body: Vec<u8>,
    /// How many bytes the message took; none when it has not ended.
    outcome: Result<Option<usize>, Reject>,
}

/// Gives the input to a decoder as if it arrived in pieces of this size.
fn decode(input: &[u8], piece: usize) -> Decoded {
    let mut decoder = ChunkDecoder::default();
    let mut body = Vec::new();
    let (mut from, mut arrived) = (0, 0);
    loop {
        match decoder.decode(&input[from..arrived]) {
            Err(reject) => return Decoded { body, outcome: Err(reject) },
            Ok(Step::Data { used, len }) => {
                assert!(len > 0 && from + used + len <= arrived);
                body.extend_from_slice(&input[from + used..from + used + len]);
                from += used + len;
            }
            Ok(Step::End { used }) => {
                assert!(from + used <= arrived && decoder.is_over());
                return Decoded { body, outcome: Ok(Some(from + used)) };
            }
            Ok(Step::More { used }) => {
                from += used;
                assert!(from <= arrived);
                if arrived == input.len() {
                    return Decoded { body, outcome: Ok(None) };
                }
                arrived = input.len().min(arrived + piece.max(1));
            }
        }
    }
}

/// Places to cut a head at: all of a short one, some of a long one.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(1 + length / 128)
}
