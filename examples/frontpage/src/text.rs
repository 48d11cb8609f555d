//! What people type, made safe to keep: trimmed, counted, and free of control characters.
//!
//! Escaping is not done here. The views escape whatever they print.

/// The longest URL that is accepted, in bytes.
pub const URL_LIMIT: usize = 2_000;

/// One line of text of so many characters, or what to tell the person.
///
/// # Errors
/// A sentence for the form.
pub fn line(given: &str, what: &str, least: usize, most: usize) -> Result<String, String> {
    let words: Vec<&str> = given.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let cleaned = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    measured(cleaned, what, least, most)
}

/// Paragraphs of text; line ends are unified, other control characters dropped.
///
/// # Errors
/// A sentence for the form.
pub fn paragraphs(given: &str, what: &str, least: usize, most: usize) -> Result<String, String> {
    let kept = |c: &char| *c == '\n' || *c == '\t' || !c.is_control();
    let cleaned: String = given.replace("\r\n", "\n").replace('\r', "\n").chars().filter(kept).collect();
    measured(cleaned.trim().to_owned(), what, least, most)
}

fn measured(text: String, what: &str, least: usize, most: usize) -> Result<String, String> {
    match text.chars().count() {
        0 if least > 0 => Err(format!("{what} is missing.")),
        length if length < least => Err(format!("{what} needs at least {least} characters.")),
        length if length > most => Err(format!("{what} may have at most {most} characters.")),
        _ => Ok(text),
    }
}

/// A user name: 2 to 20 lower-case letters, digits, `-` or `_`, the first a letter. Upper case is lowered.
///
/// # Errors
/// A sentence for the form.
pub fn user_name(given: &str) -> Result<String, String> {
    let name = given.trim().to_ascii_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let fits = (2..=20).contains(&name.len())
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_lowercase());
    fits.then_some(name)
        .ok_or_else(|| "A name has 2 to 20 letters, digits, - or _, and starts with a letter.".to_owned())
}

/// An address on the web that is safe to print as a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUrl {
    pub url: String,
    /// The host without a leading `www.`, for people.
    pub domain: String,
}

impl WebUrl {
    /// Accepts `http` and `https` URLs with a host; nothing else may become a link (think of `javascript:`).
    ///
    /// # Errors
    /// A sentence for the form.
    pub fn parse(given: &str) -> Result<Self, String> {
        let url = given.trim();
        if url.len() > URL_LIMIT {
            return Err(format!("The link may have at most {URL_LIMIT} characters."));
        }
        let refused = || "A link starts with http:// or https:// and a host.".to_owned();
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '\\' | '`');
        if url.contains(odd) {
            return Err("The link contains characters that a link cannot have.".to_owned());
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(refused());
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            // "https://bank.example@evil.example" is meant to deceive.
            return Err("A link may not carry a user name or password.".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let bad_port = port.is_some_and(|port| port.parse::<u16>().is_err());
        if !is_host(host) || bad_port {
            return Err(refused());
        }
        let domain = host.to_lowercase();
        Ok(Self { url: url.to_owned(), domain: domain.strip_prefix("www.").unwrap_or(&domain).to_owned() })
    }
}

fn is_host(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = bracketed {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    host.len() <= 253 && host.contains('.') && host.split('.').all(label)
}

/// A path on this site to go back to after a form, or the front page. Never another site, whatever was sent.
pub fn local_path(given: &str) -> &str {
    let second = given.as_bytes().get(1);
    let local = given.starts_with('/')
        && !matches!(second, Some(b'/' | b'\\'))
        && given.len() <= 300
        && given.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if local { given } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_become_links() {
        let domain = |given: &str| WebUrl::parse(given).map(|link| link.domain).ok();
        assert_eq!(domain("https://www.Example.org/a?b=c#d").as_deref(), Some("example.org"));
        assert_eq!(domain("http://example.org:8080").as_deref(), Some("example.org"));
        assert_eq!(domain("HTTPS://bücher.example/ö").as_deref(), Some("bücher.example"));
        assert_eq!(domain("http://[::1]:80/").as_deref(), Some("[::1]"));
        for refused in [
            "",
            "example.org",
            "javascript:alert(1)",
            "javascript://example.org/%0aalert(1)",
            "data:text/html,hello",
            "ftp://example.org/",
            "https://",
            "https:///path",
            "https://localhost/",
            "https://a..b/",
            "https://example.org:port/",
            "https://bank.example@evil.example/",
            "https://example.org/a b",
            "https://example.org/\"onclick=\"x",
            "https://example.org/\0",
        ] {
            assert_eq!(domain(refused), None, "{refused:?}");
        }
        assert!(WebUrl::parse(&format!("https://example.org/{}", "a".repeat(URL_LIMIT))).is_err());
    }

    #[test]
    fn after_a_form_one_stays_on_this_site() {
        assert_eq!(local_path("/item/3?page=2#story-3"), "/item/3?page=2#story-3");
        for elsewhere in ["", "//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb", "/a b"]
        {
            assert_eq!(local_path(elsewhere), "/", "{elsewhere:?}");
        }
    }

    #[test]
    fn text_is_tidied_and_measured_in_characters() {
        assert_eq!(line("  two\u{0}\n words ", "It", 1, 9).unwrap(), "two words");
        assert_eq!(line("ééé", "It", 3, 3).unwrap(), "ééé");
        assert!(line("   ", "It", 1, 9).unwrap_err().contains("missing"));
        assert_eq!(paragraphs("a\r\n\r\nb\u{0}\u{7}", "It", 1, 9).unwrap(), "a\n\nb");
        assert!(paragraphs("abcd", "It", 1, 3).unwrap_err().contains("at most 3"));
        assert_eq!(user_name(" Ada_1 ").unwrap(), "ada_1");
        for refused in ["a", "1ada", "ada lovelace", "a".repeat(21).as_str(), "<b>"] {
            assert!(user_name(refused).is_err(), "{refused:?}");
        }
    }
}
