//! Files that pages refer to, compiled into the binary.

/// For small things that seldom change but keep their name.
pub const HOURLY: &str = "public, max-age=3600";

pub const STYLE: Asset = Asset {
    stem: "style",
    extension: "css",
    kind: "text/css; charset=utf-8",
    content: include_str!("../../assets/style.css"),
};

pub const ICON: Asset = Asset {
    stem: "icon",
    extension: "svg",
    kind: "image/svg+xml",
    content: include_str!("../../assets/icon.svg"),
};

/// A file with the hash of its content in its name.
pub struct Asset {
    stem: &'static str,
    extension: &'static str,
    /// Its content type.
    pub kind: &'static str,
    pub content: &'static str,
}

impl Asset {
    /// Its file name, such as `style.1a2b3c4d.css`.
    pub fn name(&self) -> String {
        format!("{}.{:08x}.{}", self.stem, fingerprint(self.content.as_bytes()), self.extension)
    }

    /// Where pages find it.
    pub fn path(&self) -> String {
        format!("/assets/{}", self.name())
    }

    /// Whether the name is this file's, in this release or another.
    pub fn answers_to(&self, name: &str) -> bool {
        let inner = name.strip_prefix(self.stem).and_then(|rest| rest.strip_suffix(self.extension));
        inner.is_some_and(|inner| inner.len() <= 20 && inner.starts_with('.') && inner.ends_with('.'))
    }
}

/// FNV-1a: it only has to differ when the content does.
fn fingerprint(content: &[u8]) -> u32 {
    content.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_answers_to_its_name_in_any_release_and_to_no_other() {
        assert!(STYLE.answers_to(&STYLE.name()));
        assert!(STYLE.answers_to("style.00000000.css"));
        assert!(STYLE.answers_to("style.css"));
        assert!(!STYLE.answers_to(&ICON.name()));
        assert!(!STYLE.answers_to("style.css.map"));
        assert!(!STYLE.answers_to("style"));
    }
}
