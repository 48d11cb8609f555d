//! Fields between our lists and the maps of the `http` crate.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::head::{HeaderList, Known};

/// Copies every field into the list. The crumbs of `Cookie` become one field again, which is how HTTP/1.1 has them
/// (RFC 9113, 8.2.3).
pub(super) fn read(map: &HeaderMap, list: &mut HeaderList) {
    for (name, value) in map {
        if name != http::header::COOKIE {
            list.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let crumbs: Vec<&[u8]> = map.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !crumbs.is_empty() {
        list.push(b"cookie", &crumbs.join(b"; ".as_slice()));
    }
}

/// Makes a map of the kept fields that `wanted` takes. What belongs to an HTTP/1.1 connection never gets in.
pub(super) fn write(list: &HeaderList, wanted: impl Fn(Known) -> bool) -> HeaderMap {
    let text = list.text();
    let mut map = HeaderMap::with_capacity(list.len());
    for field in list.kept().filter(|field| !field.known.is_hop_by_hop() && wanted(field.known)) {
        let name = HeaderName::from_bytes(field.name.of(text));
        let value = HeaderValue::from_bytes(field.value.of(text));
        // Both were validated when they were read, by rules no laxer than these.
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}
