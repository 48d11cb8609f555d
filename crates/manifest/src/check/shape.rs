//! What a text must look like, for each kind of text.

use model::AppName;

use crate::init::UNKNOWN_RUN;
use crate::keys::Shape;
use crate::problems::{At, Problems};

/// Of one text; the operating system takes no longer command line or variable in one piece.
pub(super) const MAX_TEXT_BYTES: usize = 64 * 1024;

/// A user name longer than this is known to no system.
const MAX_USER_BYTES: usize = 32;

/// PostgreSQL cuts longer identifiers silently.
const MAX_DATABASE_BYTES: usize = 63;

pub(super) fn text(at: &At, shape: Shape, text: &str, problems: &mut Problems) -> Option<String> {
    if shape == Shape::Command && text == UNKNOWN_RUN {
        problems.not_filled_in(at);
        return None;
    }
    match refusal(shape, text) {
        None => Some(text.to_owned()),
        Some(why) => {
            problems.malformed(at, why, suggestion(at, shape, text));
            None
        }
    }
}

pub(super) fn relative_path(at: &At, path: &str, problems: &mut Problems) -> Option<String> {
    if is_relative_inside(path) {
        return Some(path.to_owned());
    }
    let why = if path.starts_with('/') {
        "an absolute path lies outside the app's folder"
    } else if path.split('/').any(|part| part == "..") {
        "`..` leads out of the app's folder"
    } else {
        "not a path inside the app's folder"
    };
    problems.malformed(at, why, None);
    None
}

/// Whether a path names something below the folder it is relative to.
fn is_relative_inside(path: &str) -> bool {
    let plain = !path.is_empty() && path.len() <= MAX_TEXT_BYTES && !path.starts_with('/');
    let named = path.split('/').any(|part| !matches!(part, "" | "."));
    plain && named && !path.contains(char::is_control) && path.split('/').all(|part| part != "..")
}

/// Names that PostgreSQL keeps for itself, as a database or as the role that owns it.
pub(crate) fn reserved_database_name(name: &str) -> bool {
    name.starts_with("pg_") || matches!(name, "postgres" | "template0" | "template1" | "public" | "none")
}

fn refusal(shape: Shape, text: &str) -> Option<&'static str> {
    let all = |allowed: fn(u8) -> bool| text.bytes().all(allowed);
    let first = |allowed: fn(u8) -> bool| text.bytes().next().is_some_and(allowed);
    if text.trim().is_empty() {
        return Some("it is empty");
    }
    if text.len() > MAX_TEXT_BYTES {
        return Some("it is longer than 64 KiB");
    }
    if text.contains('\0') {
        return Some("it contains a NUL byte");
    }
    match shape {
        Shape::AppName => AppName::new(text).err().map(|invalid| invalid.reason),
        Shape::HostName => host_refusal(text),
        Shape::Command => None,
        Shape::HttpPath if !text.starts_with('/') => Some("a path begins with `/`"),
        Shape::HttpPath if !all(|b| b.is_ascii_graphic() && b != b'#') => {
            Some("spaces, `#` and letters beyond ASCII must be percent-encoded")
        }
        Shape::HttpPath => None,
        Shape::FilePath if text.contains(char::is_control) => {
            Some("a control character cannot stand in a path")
        }
        Shape::FilePath => None,
        Shape::SystemUser => {
            let known = text.len() <= MAX_USER_BYTES
                && first(|b| b.is_ascii_alphanumeric() || b == b'_')
                && all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
            (!known).then_some("no system user can be called this")
        }
        Shape::DatabaseName if reserved_database_name(text) => Some("PostgreSQL keeps this name for itself"),
        Shape::DatabaseName => {
            let plain = text.len() <= MAX_DATABASE_BYTES
                && first(|b| b.is_ascii_lowercase())
                && all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            (!plain).then_some("lower-case letters, digits and `_`, beginning with a letter, at most 63")
        }
    }
}

fn host_refusal(host: &str) -> Option<&'static str> {
    if host.contains("://") || host.contains('/') {
        return Some("a host name, without scheme and path");
    }
    if host.contains(':') {
        return Some("a host name, without a port");
    }
    if !host.is_ascii() {
        return Some("write it in its ASCII form, as browsers send it (`xn--..`)");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let plain = host.len() <= 253 && host.split('.').all(label);
    (!plain).then_some("lower-case letters, digits and `-`, in parts joined by dots")
}

/// The nearest text that would be accepted, as a whole line.
fn suggestion(at: &At, shape: Shape, text: &str) -> Option<String> {
    let better = match shape {
        Shape::AppName => crate::init::app_name_from(text)?.to_string(),
        Shape::HostName => {
            let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
            bare.split(['/', ':']).next()?.trim().trim_end_matches('.').to_ascii_lowercase()
        }
        Shape::HttpPath => format!("/{}", text.trim().trim_start_matches('/')),
        Shape::DatabaseName => text.trim().to_ascii_lowercase().replace(['-', ' ', '.'], "_"),
        Shape::Command | Shape::FilePath | Shape::SystemUser => return None,
    };
    refusal(shape, &better).is_none().then(|| format!("{} = \"{better}\"", at.card.key))
}
