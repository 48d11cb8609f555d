//! Which bytes may stand where (RFC 9110, 5; RFC 3986, 3.2).

use super::Reject;

const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
const AUTHORITY: [bool; 256] = table(b"-._~!$&'()*+,;=:[]%");

const fn table(punctuation: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < punctuation.len() {
        table[punctuation[at] as usize] = true;
        at += 1;
    }
    table
}

/// A non-empty token: methods and field names.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[*byte as usize])
}

/// No control characters but the tab. Bytes above 127 are passed on as they are.
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| (*byte >= 0x20 && *byte != 0x7f) || *byte == b'\t')
}

/// Printable ASCII without the fragment mark: what may stand in a request target.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#')
}

/// `host [":" port]` without user information. The host may be a name, an IPv4 or a bracketed IPv6 address.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    if bytes.is_empty() || !bytes.iter().all(|byte| AUTHORITY[*byte as usize]) {
        return false;
    }
    let (host, rest) = if bytes[0] == b'[' {
        let Some(end) = memchr::memchr(b']', bytes) else {
            return false;
        };
        let inner = &bytes[1..end];
        if inner.is_empty() || !inner.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
            return false;
        }
        (inner, &bytes[end + 1..])
    } else {
        let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
        (&bytes[..end], &bytes[end..])
    };
    let bracketed = bytes[0] == b'[';
    if host.is_empty() || (!bracketed && host.iter().any(|b| matches!(b, b'[' | b']'))) {
        return false;
    }
    match rest {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// One `Content-Length`: digits only, no sign, no list, no overflow.
pub(crate) fn parse_content_length(value: &[u8]) -> Result<u64, Reject> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reject::ContentLength);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// The members of a comma-separated field value.
pub(crate) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}
