//! References of a page to paths of its own site (RFC 3986, section 5.2, without what leads to other places).
//!
//! Only `http` and `https` lead anywhere, and only the same authority belongs to the site. What is left is a path with its
//! query: all that a generator asks for.

/// Longer paths are left alone.
pub const MAX_PATH_BYTES: usize = 2_048;

/// Where a reference leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path of this site, with its query, without its fragment.
    Here(String),
    /// Another site, a fragment of the same page, a script, or nothing that can be asked for.
    Elsewhere,
}

/// What `reference` means in a page of `authority` at `base`, a path with or without a query.
pub fn resolve(authority: &str, base: &str, reference: &str) -> Target {
    // Browsers take white space around it away, and line ends within it.
    let reference: String = reference.trim().chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
    let reference = reference.split('#').next().unwrap_or_default();
    let path = if let Some(rest) = reference.strip_prefix("//") {
        of_authority(authority, rest)
    } else if let Some((scheme, rest)) = scheme(reference) {
        let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        rest.strip_prefix("//").filter(|_| is_web).and_then(|rest| of_authority(authority, rest))
    } else if reference.is_empty() {
        None
    } else if reference.starts_with('/') {
        Some(reference.to_owned())
    } else if reference.starts_with('?') {
        let path = base.split('?').next().unwrap_or_default();
        Some(format!("{path}{reference}"))
    } else {
        let path = base.split('?').next().unwrap_or_default();
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        Some(format!("{folder}{reference}"))
    };
    let path = path.map(|path| encoded(&without_dots(&path)));
    // With two slashes in front, the next to read it would take the first segment for a host.
    let is_plain = |path: &String| path.len() <= MAX_PATH_BYTES && !path.starts_with("//");
    path.filter(is_plain).map_or(Target::Elsewhere, Target::Here)
}

/// The scheme and what follows its colon. `None`: a relative reference, whose first segment may well have a colon later.
fn scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    is_scheme.then_some((scheme, rest))
}

fn of_authority(authority: &str, rest: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (of, path) = rest.split_at(end);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    same_authority(of, authority).then_some(path)
}

/// Whether two authorities are the same site; the usual ports go without saying.
pub fn same_authority(a: &str, b: &str) -> bool {
    let plain = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        let bare = authority.strip_suffix(":80").or_else(|| authority.strip_suffix(":443"));
        bare.unwrap_or(&authority).to_owned()
    };
    plain(a) == plain(b)
}

/// Section 5.2.4, of a path that begins with `/`; the query is left as it is.
fn without_dots(path: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut whole = format!("/{}", kept.join("/"));
    if let Some(query) = query {
        whole.push('?');
        whole.push_str(query);
    }
    whole
}

/// What may not stand in a request line is percent-encoded; what is encoded already stays.
fn encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'?'..=b'Z' | b'_' | b'a'..=b'z' | b'~' | b'[' | b']' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// One part of a query: letters, digits and a few marks stay, a space is `+`.
pub fn query_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                encoded.push(char::from(byte))
            }
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn here(base: &str, reference: &str) -> Option<String> {
        match resolve("shop.example:8080", base, reference) {
            Target::Here(path) => Some(path),
            Target::Elsewhere => None,
        }
    }

    #[test]
    fn references_lead_where_browsers_go() {
        for (base, reference, path) in [
            ("/", "/a", "/a"),
            ("/", "a", "/a"),
            ("/x/y", "a", "/x/a"),
            ("/x/y/", "a", "/x/y/a"),
            ("/x/y", "../a", "/a"),
            ("/x/y", "../../../a", "/a"),
            ("/x/y/z", "..", "/x/"),
            ("/x/y", ".", "/x/"),
            ("/x/y", "./a/./b/../c", "/x/a/c"),
            ("/x/y?q=1", "?q=2", "/x/y?q=2"),
            ("/x?q=/deep/er", "a", "/a"),
            ("/x", "/a?q=../b", "/a?q=../b"),
            ("/x", "/a#part", "/a"),
            ("/x", "http://shop.example:8080/a", "/a"),
            ("/x", "HTTPS://SHOP.example:8080", "/"),
            ("/x", "//shop.example:8080?q", "/?q"),
            ("/x", "  /a\n b ", "/a%20b"),
            ("/x", "/\u{e9}\"<>", "/%C3%A9%22%3C%3E"),
            ("/x", "/%C3%A9", "/%C3%A9"),
            ("/x", "a:b", "-"),
            ("/x", "./a:b", "/a:b"),
            ("/x", "/a//b", "/a//b"),
        ] {
            let found = here(base, reference);
            assert_eq!(found.as_deref().unwrap_or("-"), path, "{reference} in {base}");
        }
    }

    #[test]
    fn what_is_elsewhere_is_left_alone() {
        for reference in [
            "https://other.example/",
            "//other.example/a",
            "//shop.example/a",
            "//shop.example:8080@other.example/",
            "mailto:a@shop.example",
            "javascript:void(0)",
            "data:image/png;base64,AAAA",
            "#top",
            "",
            "http:/a",
            "/.//other.example/",
        ] {
            assert_eq!(here("/", reference), None, "{reference}");
        }
        assert_eq!(here("/", &format!("/{}", "a".repeat(MAX_PATH_BYTES))), None);
    }

    #[test]
    fn the_usual_ports_go_without_saying() {
        assert!(same_authority("shop.example", "Shop.example:443"));
        assert!(same_authority("shop.example:80", "shop.example"));
        assert!(!same_authority("shop.example:8080", "shop.example"));
    }

    #[test]
    fn a_word_of_a_query_is_one_word() {
        assert_eq!(query_encoded("red & blue=\u{e9}"), "red+%26+blue%3D%C3%A9");
    }

    proptest! {
        #[test]
        fn whatever_a_page_says_a_path_can_stand_in_a_request_line(base in "/[a-z/.?]{0,12}", reference in "\\PC{0,40}") {
            if let Some(path) = here(&base, &reference) {
                prop_assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
                prop_assert!(!path.contains('#'));
                // It is its own meaning.
                prop_assert_eq!(here("/other/place", &path), Some(path));
            }
        }
    }
}
