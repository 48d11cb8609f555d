//! Sizes that have a name.

use model::{ByteSize, Cpu, Size};

pub(crate) const NAMES: &[&str] = &["nano", "micro", "small", "medium", "large", "xlarge"];

/// Thousandths of a core and mebibytes, in the order of [`NAMES`].
const SIZES: [(u32, u64); 6] =
    [(250, 256), (500, 512), (1_000, 1_024), (2_000, 2_048), (4_000, 4_096), (8_000, 8_192)];

/// `None` when nothing is called that.
pub(crate) fn named(name: &str) -> Option<Size> {
    let at = NAMES.iter().position(|known| *known == name)?;
    let (millis, megabytes) = SIZES.get(at)?;
    Some(Size {
        cpu: Cpu::from_millis(*millis),
        memory: Some(ByteSize::from_bytes(megabytes * ByteSize::MB)),
    })
}
