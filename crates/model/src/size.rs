//! Sizes: how much of a machine one process may use. Vertical scaling is a change of these.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// CPU in thousandths of one core, as Kubernetes writes it: `500m`, or `0.5`, or `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpu {
    millis: u32,
}

/// Bytes, written with a binary unit: `512MB` is 512 x 1024 x 1024, as PostgreSQL reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

/// Limits of one process and its children. An absent part is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

/// Why a size was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSize {
    pub text: String,
    pub expected: &'static str,
}

impl fmt::Display for InvalidSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a size: expected {}", self.text, self.expected)
    }
}

impl std::error::Error for InvalidSize {}

impl Cpu {
    /// The least that lets a process answer at all.
    pub const MIN: Cpu = Cpu { millis: 50 };
    /// Larger than any machine; a typing error.
    pub const MAX: Cpu = Cpu { millis: 1_024_000 };

    pub fn from_millis(millis: u32) -> Option<Cpu> {
        let cpu = Cpu { millis };
        (Cpu::MIN..=Cpu::MAX).contains(&cpu).then_some(cpu)
    }

    /// Thousandths of one core.
    pub fn millis(self) -> u32 {
        self.millis
    }
}

impl FromStr for Cpu {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Cpu, InvalidSize> {
        let invalid = || InvalidSize {
            text: text.to_owned(),
            expected: "cores between `0.05` and `1024`, such as `0.5`, `500m` or `2`",
        };
        let millis = match text.strip_suffix('m') {
            Some(millis) => millis.parse::<u32>().map_err(|_| invalid())?,
            None => {
                let cores = text.parse::<f64>().map_err(|_| invalid())?;
                if !cores.is_finite() || !(0.0..=2_000.0).contains(&cores) {
                    return Err(invalid());
                }
                (cores * 1_000.0).round() as u32
            }
        };
        Cpu::from_millis(millis).ok_or_else(invalid)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis.is_multiple_of(1_000) {
            write!(f, "{}", self.millis / 1_000)
        } else {
            write!(f, "{}m", self.millis)
        }
    }
}

impl ByteSize {
    pub const KB: u64 = 1 << 10;
    pub const MB: u64 = 1 << 20;
    pub const GB: u64 = 1 << 30;
    pub const TB: u64 = 1 << 40;

    pub fn from_bytes(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Whole mebibytes, rounded down.
    pub fn megabytes(self) -> u64 {
        self.0 / Self::MB
    }

    /// For people: `640 kB`, `1.4 MB`, `23 MB`. Something is never shown as nothing.
    pub fn rounded(self) -> String {
        let units = [("TB", Self::TB), ("GB", Self::GB), ("MB", Self::MB), ("kB", Self::KB)];
        let (name, unit) = units.into_iter().find(|(_, unit)| self.0 >= *unit).unwrap_or(("kB", Self::KB));
        let count = self.0 as f64 / unit as f64;
        match count {
            0.0 => "0 kB".to_owned(),
            ..0.1 => format!("0.1 {name}"),
            ..9.95 => format!("{count:.1} {name}"),
            _ => format!("{count:.0} {name}"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<ByteSize, InvalidSize> {
        let invalid = || InvalidSize {
            text: text.to_owned(),
            expected: "a whole number with a unit (`kB`, `MB`, `GB`, `TB`), such as `512MB` or `2GB`",
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, unit) = text.split_at(digits);
        let number = number.parse::<u64>().map_err(|_| invalid())?;
        let unit = match unit.trim() {
            "kB" | "KB" | "KiB" => Self::KB,
            "MB" | "MiB" => Self::MB,
            "GB" | "GiB" => Self::GB,
            "TB" | "TiB" => Self::TB,
            _ => return Err(invalid()),
        };
        number.checked_mul(unit).map(ByteSize).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            b if b >= Self::TB && b.is_multiple_of(Self::TB) => (Self::TB, "TB"),
            b if b >= Self::GB && b.is_multiple_of(Self::GB) => (Self::GB, "GB"),
            b if b >= Self::MB && b.is_multiple_of(Self::MB) => (Self::MB, "MB"),
            b if b.is_multiple_of(Self::KB) => (Self::KB, "kB"),
            // Not a whole unit: round down to what can be read back.
            _ => (Self::KB, "kB"),
        };
        write!(f, "{}{}", self.0 / unit, name)
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = InvalidSize;
            fn try_from(text: String) -> Result<Self, InvalidSize> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

as_text!(Cpu);
as_text!(ByteSize);

impl Size {
    pub const UNLIMITED: Size = Size { cpu: None, memory: None };
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cpu, self.memory) {
            (None, None) => f.write_str("unlimited"),
            (Some(cpu), None) => write!(f, "{cpu} cpu"),
            (None, Some(memory)) => write!(f, "{memory}"),
            (Some(cpu), Some(memory)) => write!(f, "{cpu} cpu, {memory}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_written() {
        for text in ["50m", "500m", "1", "2", "1500m"] {
            assert_eq!(text.parse::<Cpu>().unwrap().to_string(), text);
        }
        assert_eq!("0.25".parse::<Cpu>().unwrap().millis(), 250);
        for text in ["64kB", "512MB", "2GB", "1TB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn people_are_shown_two_digits_and_never_nothing_for_something() {
        let shown = |bytes| ByteSize::from_bytes(bytes).rounded();
        for (bytes, expected) in [
            (0, "0 kB"),
            (1, "0.1 kB"),
            (655_360, "640 kB"),
            (1_468_006, "1.4 MB"),
            (10_500_000, "10 MB"),
            (24_117_248, "23 MB"),
            (3 * ByteSize::GB / 2, "1.5 GB"),
        ] {
            assert_eq!(shown(bytes), expected);
        }
    }

    #[test]
    fn a_size_without_meaning_is_refused() {
        for text in ["", "0", "-1", "NaN", "inf", "1e9", "10m", "half"] {
            assert!(text.parse::<Cpu>().is_err(), "{text:?} was accepted as cpu");
        }
        for text in ["", "512", "MB", "1.5GB", "-1MB", "99999999999999TB", "5 parsecs"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?} was accepted as memory");
        }
    }
}
