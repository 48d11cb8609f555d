//! The startup packet: who wants in, where to, and with which settings.

use crate::message::{Refusal, split_cstr};
use crate::settings::{Setting, Settings};

/// The only minor version of protocol 3 there is for us; a client that asks for a later one is told.
const PROTOCOL_MAJOR: u16 = 3;

#[derive(Debug)]
pub(crate) struct Startup {
    pub user: String,
    pub database: String,
    pub settings: Settings,
    /// What the client asked for beyond protocol 3.0, to be told that we do not know it.
    pub beyond: Option<Vec<Vec<u8>>>,
}

impl Startup {
    /// `packet`: what follows the length.
    ///
    /// # Errors
    /// With what the client is told.
    pub fn parse(packet: &[u8]) -> Result<Startup, Refusal> {
        let (&[m0, m1, n0, n1], mut rest) = packet.split_first_chunk::<4>().ok_or_else(malformed)?;
        let (major, minor) = (u16::from_be_bytes([m0, m1]), u16::from_be_bytes([n0, n1]));
        if major != PROTOCOL_MAJOR {
            let message =
                format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
            return Err(Refusal::new("0A000", message, "Use a client library of PostgreSQL 7.4 or later."));
        }
        let (mut user, mut database, mut settings) = (None, None, Settings::builder());
        let mut unknown_options = Vec::new();
        loop {
            let (name, after_name) = split_cstr(rest).ok_or_else(malformed)?;
            if name.is_empty() {
                break;
            }
            let (value, after_value) = split_cstr(after_name).ok_or_else(malformed)?;
            rest = after_value;
            let text = |bytes: &[u8]| {
                String::from_utf8(bytes.to_vec()).map_err(|_| {
                    Refusal::new("22021", "the startup packet is not UTF-8", "Send names in UTF-8.")
                })
            };
            match name {
                b"user" => user = Some(text(value)?),
                b"database" => database = Some(text(value)?),
                b"replication" if !matches!(value, b"false" | b"off" | b"no" | b"0") => {
                    let hint = "Connect to PostgreSQL's own socket for replication.";
                    return Err(Refusal::new("0A000", "replication does not go through the proxy", hint));
                }
                b"replication" => {}
                b"options" => {
                    for (name, value) in command_line(&text(value)?)? {
                        settings.insert(&name, Setting::Raw(value));
                    }
                }
                name if name.starts_with(b"_pq_.") => unknown_options.push(name.to_vec()),
                name => settings.insert(&text(name)?, Setting::Raw(text(value)?)),
            }
        }
        let user = user.filter(|user| !user.is_empty()).ok_or_else(|| {
            Refusal::new(
                "28000",
                "no PostgreSQL user name specified in startup packet",
                "Name one in the URL.",
            )
        })?;
        Ok(Startup {
            database: database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone()),
            user,
            settings: settings.build(),
            beyond: (minor > 0 || !unknown_options.is_empty()).then_some(unknown_options),
        })
    }
}

fn malformed() -> Refusal {
    Refusal::new("08P01", "invalid startup packet layout: expected terminator as last byte", "")
}

/// `-c name=value --other=value`, with backslashes before blanks that belong to a value.
fn command_line(options: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = options.chars();
    while let Some(char) = chars.next() {
        match char {
            char if char.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(assignment), _) => Some(assignment.to_owned()),
            (None, Some("")) => words.next(),
            (None, Some(assignment)) => Some(assignment.to_owned()),
            (None, None) => None,
        };
        let Some((name, value)) = assignment.as_deref().and_then(|text| text.split_once('=')) else {
            let message = format!("the option `{word}` in the startup packet is not supported");
            return Err(Refusal::new("0A000", message, "Only settings are: `-c name=value`."));
        };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(version: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = version.to_be_bytes().to_vec();
        for (name, value) in pairs {
            packet.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        packet.push(0);
        packet
    }

    #[test]
    fn settings_come_as_parameters_and_as_options() {
        let options = r"-c geqo=off --search-path=a\ b -cwork_mem=4MB";
        let startup = Startup::parse(&packet(
            196_608,
            &[("user", "app"), ("options", options), ("TimeZone", "UTC"), ("database", "shop")],
        ))
        .unwrap();
        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("app", "shop"));
        let expected: Vec<_> =
            [("geqo", "off"), ("search_path", "a b"), ("timezone", "UTC"), ("work_mem", "4MB")].into();
        assert_eq!(startup.settings.raw().collect::<Vec<_>>(), expected);
        assert!(startup.beyond.is_none());
    }

    #[test]
    fn a_later_minor_version_is_understood_and_answered_with_ours() {
        let startup = Startup::parse(&packet(196_610, &[("user", "app"), ("_pq_.new", "1")])).unwrap();
        assert_eq!(startup.beyond, Some(vec![b"_pq_.new".to_vec()]));
        assert_eq!(startup.database, "app");
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_code_of_its_reason() {
        let sqlstate = |packet: Vec<u8>| Startup::parse(&packet).unwrap_err().sqlstate;
        assert_eq!(sqlstate(packet(131_072, &[])), "0A000");
        assert_eq!(sqlstate(packet(196_608, &[])), "28000");
        assert_eq!(sqlstate(packet(196_608, &[("user", "app"), ("replication", "true")])), "0A000");
        assert_eq!(sqlstate(packet(196_608, &[("user", "app"), ("options", "-B 3")])), "0A000");
        assert_eq!(sqlstate(vec![0, 3, 0, 0, b'u']), "08P01");
        assert_eq!(sqlstate(vec![0, 3]), "08P01");
    }
}
