//! Where a redirect leads (RFC 9110, 10.2.2), as long as that is the same origin.

use crate::site::reference::{self, Target};

/// Where an answer leads whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// It is what there is.
    Nowhere,
    /// To a path of the same origin.
    Here(String),
    /// To where nobody is asked.
    Elsewhere,
}

/// Where an answer for `path` leads, by its status and its `Location`.
pub fn follow(status: u16, location: Option<&str>, scheme: &str, authority: &str, path: &str) -> Leads {
    match location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)) {
        None => Leads::Nowhere,
        Some(location) => resolve(location, scheme, authority, path).map_or(Leads::Elsewhere, Leads::Here),
    }
}

/// The path to ask for next, after an answer for `path`. `None`: it leads to another origin, or nowhere.
pub fn resolve(location: &str, scheme: &str, authority: &str, path: &str) -> Option<String> {
    // A page of the other scheme may be the same site, but is another origin: we would ask for the same again.
    if location.split_once("://").is_some_and(|(to, _)| is_other_scheme(to, scheme)) {
        return None;
    }
    match reference::resolve(authority, path, location) {
        Target::Here(path) => Some(path),
        Target::Elsewhere => None,
    }
}

fn is_other_scheme(to: &str, scheme: &str) -> bool {
    let to = to.trim();
    ["http", "https"].iter().any(|web| to.eq_ignore_ascii_case(web)) && !to.eq_ignore_ascii_case(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(location: &str, expected: Option<&str>) {
        let found = resolve(location, "http", "shop.example:80", "/a/b?c=d");
        assert_eq!(found.as_deref(), expected, "{location}");
    }

    #[test]
    fn within_the_origin_every_form_is_followed() {
        check("/x?y=/z#part", Some("/x?y=/z"));
        check("http://shop.example/x", Some("/x"));
        check("HTTP://SHOP.example:80", Some("/"));
        check("//shop.example/x", Some("/x"));
        check("../next", Some("/next"));
        check("?page=2", Some("/a/b?page=2"));
        check("/back?to=https://shop.example/", Some("/back?to=https://shop.example/"));
    }

    #[test]
    fn only_a_redirect_with_a_location_leads_anywhere() {
        let follow = |status, location| follow(status, location, "http", "shop.example", "/");
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(follow(status, Some("/x")), Leads::Here("/x".to_owned()), "{status}");
            assert_eq!(follow(status, Some("https://shop.example/")), Leads::Elsewhere, "{status}");
            assert_eq!(follow(status, None), Leads::Nowhere, "{status}");
        }
        for status in [200, 201, 300, 304, 404] {
            assert_eq!(follow(status, Some("https://shop.example/")), Leads::Nowhere, "{status}");
        }
    }

    #[test]
    fn no_redirect_leads_to_another_origin() {
        check("https://shop.example/", None);
        check("http://shop.example:8080/", None);
        check("//elsewhere/", None);
        check("mailto:you@shop.example", None);
        check("", None);
    }
}
