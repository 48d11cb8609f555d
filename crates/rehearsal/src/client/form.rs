//! Forms: what a page wants sent along unseen, and how what is sent is written.
//!
//! A scanner of tags, not a parser of HTML: it looks for `<form action=...>` and the `<input type=hidden>` up to its end, which
//! is where frameworks put their tokens against forgery. What stands in comments, scripts and styles is passed over. It never
//! looks at a byte more than once or twice, and keeps a bounded few.

/// Of one page.
const FORMS: usize = 20;
/// Of one form.
const FIELDS: usize = 30;
/// Of names, values and actions; a longer one is passed over.
const VALUE_BYTES: usize = 4096;
const ATTRIBUTES: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// As it stands there; empty: the page's own address.
    pub action: String,
    /// Names and values of its hidden inputs.
    pub hidden: Vec<(String, String)>,
}

/// The forms of a page that have hidden inputs.
pub fn scan(page: &[u8]) -> Vec<Form> {
    let (mut forms, mut open) = (Vec::new(), None::<Form>);
    let mut tags = Tags { page, at: 0 };
    while forms.len() < FORMS {
        let Some(tag) = tags.next() else { break };
        if tag.is("form") || tag.is("/form") {
            forms.extend(open.take().filter(|form| !form.hidden.is_empty()));
            if tag.is("form") {
                open = Some(Form { action: tag.attribute("action").unwrap_or_default(), hidden: Vec::new() });
            }
        } else if tag.is("input")
            && let Some(form) = &mut open
            && form.hidden.len() < FIELDS
            && tag.attribute("type").is_some_and(|kind| kind.eq_ignore_ascii_case("hidden"))
            && let Some(name) = tag.attribute("name").filter(|name| !name.is_empty())
        {
            form.hidden.push((name, tag.attribute("value").unwrap_or_default()));
        }
    }
    forms.extend(open.filter(|form| !form.hidden.is_empty() && forms.len() < FORMS));
    forms
}

/// Writes fields as `application/x-www-form-urlencoded`.
pub fn encode<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    for (at, (name, value)) in fields.into_iter().enumerate() {
        if at > 0 {
            out.push(b'&');
        }
        escape(name, out);
        out.push(b'=');
        escape(value, out);
    }
}

fn escape(text: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
        }
    }
}

/// A start or end tag: its name (`/form` for an end), and what follows the name.
struct Tag<'a> {
    name: &'a [u8],
    attributes: &'a [u8],
}

impl Tag<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The first attribute of that name, as text.
    fn attribute(&self, name: &str) -> Option<String> {
        let mut rest = self.attributes;
        for _ in 0..ATTRIBUTES {
            let (key, value, after) = attribute(rest)?;
            if key.eq_ignore_ascii_case(name.as_bytes()) {
                return (value.len() <= VALUE_BYTES).then(|| unescape(&String::from_utf8_lossy(value)));
            }
            rest = after;
        }
        None
    }
}

struct Tags<'a> {
    page: &'a [u8],
    at: usize,
}

impl<'a> Tags<'a> {
    fn next(&mut self) -> Option<Tag<'a>> {
        loop {
            let rest = self.page.get(self.at..)?;
            let start = memchr::memchr(b'<', rest)?;
            let tag = &rest[start + 1..];
            self.at += start + 1;
            if tag.starts_with(b"!--") {
                self.at += memchr::memmem::find(&tag[3..], b"-->")? + 6;
                continue;
            }
            if !tag.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'/') {
                continue;
            }
            let name_end = tag.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'>')?;
            let name = &tag[..name_end];
            let end = name_end + tag_end(&tag[name_end..])?;
            self.at += end + 1;
            // What stands in them looks like tags and is none.
            if name.eq_ignore_ascii_case(b"script") || name.eq_ignore_ascii_case(b"style") {
                self.skip_to_end_of(name)?;
                continue;
            }
            return Some(Tag {
                name: name.strip_suffix(b"/").unwrap_or(name),
                attributes: &tag[name_end..end],
            });
        }
    }

    fn skip_to_end_of(&mut self, name: &[u8]) -> Option<()> {
        loop {
            let rest = self.page.get(self.at..)?;
            self.at += memchr::memmem::find(rest, b"</")? + 2;
            let found = self.page.get(self.at..)?.get(..name.len())?;
            if found.eq_ignore_ascii_case(name) {
                return Some(());
            }
        }
    }
}

/// Where the tag ends: the first `>` that is in no quotes.
fn tag_end(tag: &[u8]) -> Option<usize> {
    let mut quote = None;
    tag.iter().position(|byte| {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), _) if open == *byte => quote = None,
            _ => {}
        }
        quote.is_none() && *byte == b'>'
    })
}

/// Name, value, and what follows.
fn attribute(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'/';
    let start = text.iter().position(|byte| !is_between(byte))?;
    let text = &text[start..];
    let name_end = text.iter().position(|byte| is_between(byte) || *byte == b'=').unwrap_or(text.len());
    // A stray `=` is a name of one letter, so that we always get on.
    let name_end = name_end.max(1);
    let (name, rest) = text.split_at(name_end);
    let after_name = rest.trim_ascii_start();
    let Some(value) = after_name.strip_prefix(b"=") else { return Some((name, b"", rest)) };
    let value = value.trim_ascii_start();
    match value.first() {
        Some(quote @ (b'"' | b'\'')) => {
            let value = &value[1..];
            let end = memchr::memchr(*quote, value).unwrap_or(value.len());
            Some((name, &value[..end], value.get(end + 1..).unwrap_or_default()))
        }
        _ => {
            let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
            Some((name, &value[..end], &value[end..]))
        }
    }
}

/// The character references that templates write into attributes: the five of HTML, and numbers.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // The longest is `#x10FFFF`.
        let end = rest.bytes().take(10).position(|byte| byte == b';');
        let reference = end.and_then(|end| Some((character(&rest[1..end])?, &rest[end + 1..])));
        match reference {
            Some((character, after)) => {
                out.push(character);
                rest = after;
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(page: &str, expected: &[(&str, &[(&str, &str)])]) {
        let found = scan(page.as_bytes());
        let found: Vec<(&str, Vec<(&str, &str)>)> = found
            .iter()
            .map(|form| {
                let hidden = form.hidden.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                (form.action.as_str(), hidden.collect())
            })
            .collect();
        let expected: Vec<(&str, Vec<(&str, &str)>)> =
            expected.iter().map(|(action, hidden)| (*action, hidden.to_vec())).collect();
        assert_eq!(found, expected, "{page}");
    }

    #[test]
    fn the_tokens_that_frameworks_write_are_found() {
        check(
            r#"<!doctype html><form class="a" action="/signup" accept-charset="UTF-8" method="post">
               <input type="hidden" name="authenticity_token" value="a+b/c==" autocomplete="off" />
               <input type="text" name="email"></form>"#,
            &[("/signup", &[("authenticity_token", "a+b/c==")])],
        );
        check(
            "<FORM METHOD=POST ACTION=/post><INPUT TYPE=hidden NAME=csrf VALUE=abc>",
            &[("/post", &[("csrf", "abc")])],
        );
        check(
            "<form action='/a?b=1&amp;c=2'><p><input value='&quot;&#39;&#x41;&none;&' name='t' type='hidden'></form>",
            &[("/a?b=1&c=2", &[("t", "\"'A&none;&")])],
        );
    }

    #[test]
    fn each_form_has_its_own() {
        check(
            r#"<form action="/a"><input type=hidden name=t value=1></form><input type=hidden name=stray value=0>
               <form action="/none"><input name=q></form><form><input type=hidden name=t value=2></form>"#,
            &[("/a", &[("t", "1")]), ("", &[("t", "2")])],
        );
    }

    #[test]
    fn what_only_looks_like_a_form_is_passed_over() {
        check(r#"<!-- <form action="/a"><input type=hidden name=t value=1> -->"#, &[]);
        check(r#"<script>"<form action=/a><input type=hidden name=t>"</script>"#, &[]);
        check(r#"<a title="<form action=/a><input type=hidden name=t>">"#, &[]);
        check("<form action=/a><input type=hidden value=nameless>", &[]);
        check("1 < 2 <form", &[]);
        check("<form action=/a><input type=hidden name=t value=\"unclosed", &[]);
    }

    #[test]
    fn a_page_full_of_forms_is_not_kept_whole() {
        let page = "<form action=/a><input type=hidden name=t value=1></form>".repeat(1_000);
        assert_eq!(scan(page.as_bytes()).len(), FORMS);
        let page = format!("<form action=/a>{}", "<input type=hidden name=t value=1>".repeat(1_000));
        assert_eq!(scan(page.as_bytes())[0].hidden.len(), FIELDS);
    }

    #[test]
    fn fields_are_written_as_browsers_do() {
        let mut out = Vec::new();
        encode([("a b", "1&2=3"), ("ü", "*-._~")], &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a+b=1%262%3D3&%C3%BC=*-._%7E");
    }
}
