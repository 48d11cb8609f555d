//! The parsers of what apps answer as plain functions, for fuzz targets and their properties. Not an interface.

use jiff::Timestamp;

use crate::client::cookies::Jar;
use crate::client::form;
use crate::client::location;
use crate::client::response::Response;
use crate::load::Method;

/// Status and body of an answer that arrives in these pieces, and then ends. `None`: it is none, or not whole.
pub fn read_answer<'a>(method: Method, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<(u16, Vec<u8>)> {
    let (mut response, mut body, mut whole) = (Response::to(method), Vec::new(), None);
    for piece in pieces {
        if let Some(head) = response.take(piece, &mut |_, data| body.extend_from_slice(data)).ok()? {
            whole = Some(head);
        }
    }
    let head = match whole {
        Some(head) => head,
        None => response.end().ok()?,
    };
    Some((head.status, body))
}

/// A form: its action, and names and values of its hidden fields.
pub type Form = (String, Vec<(String, String)>);

pub fn scan_forms(page: &[u8]) -> Vec<Form> {
    form::scan(page).into_iter().map(|form| (form.action, form.hidden)).collect()
}

/// Fields as they are sent.
pub fn encode_form(fields: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    form::encode(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())), &mut out);
    out
}

/// What `Cookie` says to `/` after these `Set-Cookie` from there.
pub fn keep_cookies<'a>(set: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let (mut jar, mut out) = (Jar::default(), Vec::new());
    set.into_iter().for_each(|field| jar.set(field, "/", Timestamp::UNIX_EPOCH));
    jar.write("/", &mut out);
    out
}

/// Where a redirect from `http://shop.example/a/b?c` leads.
pub fn follow(location: &str) -> Option<String> {
    location::resolve(location, "http", "shop.example", "/a/b?c")
}
