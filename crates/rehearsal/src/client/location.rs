//! Where a redirect leads (RFC 9110, 10.2.2), as long as that is the same origin.

/// The path to ask for next, after an answer for `path`. `None`: it leads to another origin, or nowhere.
pub fn resolve(location: &str, scheme: &str, authority: &str, path: &str) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    if !location.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) {
        return None;
    }
    let base = path.split('?').next().unwrap_or("/");
    let target = if let Some(rest) = location.strip_prefix("//") {
        within(rest, scheme, authority)?
    } else if let Some((to, rest)) = location.split_once("://").filter(|(to, _)| is_scheme(to)) {
        if !to.eq_ignore_ascii_case(scheme) {
            return None;
        }
        within(rest, scheme, authority)?
    } else if location.is_empty() {
        path.to_owned()
    } else if location.starts_with('/') {
        location.to_owned()
    } else if location.starts_with('?') {
        format!("{base}{location}")
    } else if location.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        // `mailto:` and its like.
        return None;
    } else {
        format!("{}{location}", &base[..base.rfind('/').map_or(0, |at| at + 1)])
    };
    Some(without_dots(&target))
}

/// What stands behind the authority, if that is ours.
fn within(rest: &str, scheme: &str, authority: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (at, path) = rest.split_at(end);
    let port = if scheme == "https" { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    if bare(at) != bare(authority) {
        return None;
    }
    Some(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Takes `.` and `..` out of a path (RFC 3986, 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
        if is_last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
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
        check("http://shop.example?q", Some("/?q"));
        check("//shop.example/x", Some("/x"));
        check("next", Some("/a/next"));
        check("../next/./last/..", Some("/next/"));
        check("../../../..", Some("/"));
        check("?page=2", Some("/a/b?page=2"));
        check("", Some("/a/b?c=d"));
    }

    #[test]
    fn no_redirect_leads_to_another_origin() {
        check("https://shop.example/", None);
        check("http://shop.example:8080/", None);
        check("http://shop.example.evil/", None);
        check("//elsewhere/", None);
        check("mailto:you@shop.example", None);
        check("/with space", None);
        check("/with\r\nHost: x", None);
    }
}
