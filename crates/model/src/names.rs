//! Names: what a thing is called in the manifest, in `status`, in file names and in logs.
//!
//! Every name becomes part of a path, a metric label and an environment value, so all share one narrow alphabet.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name accepted; leaves room for suffixes within the 63 bytes of a DNS label and a PostgreSQL identifier.
pub const MAX_NAME_BYTES: usize = 40;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    pub name: String,
    pub reason: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a name: {}", self.name, self.reason)
    }
}

impl std::error::Error for InvalidName {}

fn check(name: &str) -> Result<(), InvalidName> {
    let refuse = |reason| Err(InvalidName { name: name.to_owned(), reason });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > MAX_NAME_BYTES {
        return refuse("it is longer than 40 bytes");
    }
    if !name.as_bytes()[0].is_ascii_lowercase() {
        return refuse("it must begin with a lower-case letter");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return refuse("only lower-case letters, digits and `-` are allowed");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// # Errors
            /// When the text breaks the alphabet or the length that all names share.
            pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
                let name = name.into();
                check(&name)?;
                Ok($type(name))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                $type::new(name)
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                $type::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The app, as the manifest's `app` key names it.
    AppName
}
name! {
    /// A resource of the graph: `web`, `db`, `edge`. Stable for the life of the app: it names data.
    ResourceId
}
name! {
    /// An availability zone. On one machine a zone is a failure domain: what stands in it stops together in a drill.
    Zone
}

macro_rules! numbered {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type {
            of: ResourceId,
            number: u32,
        }

        impl $type {
            pub fn new(of: ResourceId, number: u32) -> Self {
                $type { of, number }
            }

            /// The resource that this is one of.
            pub fn resource(&self) -> &ResourceId {
                &self.of
            }

            pub fn number(&self) -> u32 {
                self.number
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}.{}", self.of, self.number)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                let refuse = || InvalidName { name: text.clone(), reason: "expected NAME.NUMBER, such as `web.1`" };
                let (of, number) = text.rsplit_once('.').ok_or_else(refuse)?;
                let number = number.parse().map_err(|_| refuse())?;
                Ok($type { of: ResourceId::new(of)?, number })
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $type::try_from(text.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.to_string()
            }
        }
    };
}

numbered! {
    /// One running copy of a service: `web.3`. Numbers are given once and never reused, so that a log line, a metric
    /// or a failed copy kept for inspection can never be mistaken for another.
    InstanceId
}
numbered! {
    /// One PostgreSQL of a database cluster: `db.1`. Names its data directory.
    NodeId
}

/// A release: the first 12 hex digits of the SHA-256 over its tree and commands. Equal content has an equal id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

impl ReleaseId {
    /// # Errors
    /// When the text is not 12 lower-case hex digits.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidName> {
        let name = id.into();
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if name.len() == 12 && name.bytes().all(hex) {
            Ok(ReleaseId(name))
        } else {
            Err(InvalidName { name, reason: "a release is named by 12 hex digits" })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReleaseId {
    type Err = InvalidName;
    fn from_str(id: &str) -> Result<Self, InvalidName> {
        ReleaseId::new(id)
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = InvalidName;
    fn try_from(name: String) -> Result<Self, InvalidName> {
        ReleaseId::new(name)
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> String {
        id.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for name in ["", "..", "a/b", "A", "-a", "1a", "a b", "a.b", &"a".repeat(41)] {
            assert!(ResourceId::new(name).is_err(), "{name:?} was accepted");
        }
        assert_eq!(ResourceId::new("web-2").map(String::from), Ok("web-2".to_owned()));
    }

    #[test]
    fn numbered_ids_read_back_as_written() {
        let id = InstanceId::new(ResourceId::new("web").unwrap(), 12);
        assert_eq!(id.to_string(), "web.12");
        assert_eq!(InstanceId::try_from("web.12".to_owned()), Ok(id));
        assert!(InstanceId::try_from("web".to_owned()).is_err());
        assert!(InstanceId::try_from("web.x".to_owned()).is_err());
    }
}
