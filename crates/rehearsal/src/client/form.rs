//! Forms: what a page wants sent along unseen, and how what is sent is written.
//!
//! Frameworks put their tokens against forgery into `<input type=hidden>` of a form. Of a page nothing else is kept, and of that
//! a bounded few.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

use crate::site::reference::query_encoded;

/// Of one page.
const FORMS: usize = 20;
/// Of one form.
const FIELDS: usize = 30;
/// Of names, values and actions; a longer one is passed over.
const VALUE_BYTES: usize = 4096;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// As it stands there; empty: the page's own address.
    pub action: String,
    /// Names and values of its hidden inputs.
    pub hidden: Vec<(String, String)>,
}

/// The forms of a page that have hidden inputs.
pub fn scan(page: &[u8]) -> Vec<Form> {
    let mut emitter = DefaultEmitter::default();
    // Otherwise what a script writes in its strings would be read as tags.
    emitter.naively_switch_states(true);
    let (mut forms, mut open) = (Vec::new(), None::<Form>);
    for token in Tokenizer::new_with_emitter(page, emitter) {
        // Reading from memory cannot fail.
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) if tag.name[..] == *b"form" => {
                keep(open.take(), &mut forms);
                open = Some(Form { action: value(&tag, "action").unwrap_or_default(), hidden: Vec::new() });
            }
            Token::StartTag(tag) if tag.name[..] == *b"input" => {
                let Some(form) = open.as_mut().filter(|form| form.hidden.len() < FIELDS) else { continue };
                let is_hidden = value(&tag, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("hidden"));
                let name = value(&tag, "name").filter(|name| is_hidden && !name.is_empty());
                form.hidden.extend(name.map(|name| (name, value(&tag, "value").unwrap_or_default())));
            }
            Token::EndTag(tag) if tag.name[..] == *b"form" => keep(open.take(), &mut forms),
            _ => {}
        }
        if forms.len() == FORMS {
            return forms;
        }
    }
    keep(open, &mut forms);
    forms
}

fn keep(form: Option<Form>, forms: &mut Vec<Form>) {
    forms.extend(form.filter(|form| !form.hidden.is_empty()));
}

fn value(tag: &StartTag<()>, attribute: &str) -> Option<String> {
    let value = tag.attributes.get(attribute.as_bytes())?;
    (value.len() <= VALUE_BYTES).then(|| String::from_utf8_lossy(value).into_owned())
}

/// Writes fields as `application/x-www-form-urlencoded`.
pub fn encode<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    for (at, (name, value)) in fields.into_iter().enumerate() {
        let separator = if at == 0 { "" } else { "&" };
        out.extend_from_slice(
            format!("{separator}{}={}", query_encoded(name), query_encoded(value)).as_bytes(),
        );
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
