//! What a page consists of and where it leads, from its HTML.
//!
//! The tokenizer is the one of the standard, so that what is no HTML at all is read as browsers read it; there is no tree,
//! as none is needed for links, assets and forms.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

use super::reference::{Target, query_encoded, resolve};

/// Of one page, of each kind; what is more is not looked at.
pub const MAX_LINKS: usize = 500;
pub const MAX_ASSETS: usize = 60;
const MAX_FORMS: usize = 20;
const MAX_FIELDS: usize = 20;

/// Words for searches.
const MAX_WORDS: usize = 50;

/// What was found, each once, in the order of the page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub links: Vec<String>,
    /// Style sheets, scripts, images, icons.
    pub assets: Vec<String>,
    /// Forms that are sent with GET and have a field to write in.
    pub searches: Vec<Search>,
    /// Forms that are sent with POST, by their actions.
    pub posts: Vec<String>,
    /// Words of its titles, headings and links: what somebody may search for.
    pub words: Vec<String>,
}

/// A form for a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    pub action: String,
    /// What else it sends, such as hidden fields.
    fields: Vec<(String, String)>,
    /// The name of the field that one writes in.
    field: String,
}

impl Search {
    /// The path that a search for `word` asks for.
    pub fn path(&self, word: &str) -> String {
        let path = self.action.split('?').next().unwrap_or_default();
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs: Vec<String> = fields
            .chain([(self.field.as_str(), word)])
            .map(|(name, value)| format!("{}={}", query_encoded(name), query_encoded(value)))
            .collect();
        format!("{path}?{}", pairs.join("&"))
    }
}

/// Reads a page of `authority` at `path`.
pub fn read(authority: &str, path: &str, html: &[u8]) -> Page {
    let mut reader =
        Reader { authority, base: path.to_owned(), page: Page::default(), form: None, words_in: 0 };
    let mut emitter = DefaultEmitter::default();
    // Otherwise what a script writes in its strings would be read as tags.
    emitter.naively_switch_states(true);
    for token in Tokenizer::new_with_emitter(html, emitter) {
        // Reading from memory cannot fail.
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => reader.start(&tag),
            Token::EndTag(tag) => reader.end(&tag.name),
            Token::String(text) => reader.text(&text),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    reader.end(b"form");
    reader.page
}

struct Reader<'a> {
    authority: &'a str,
    /// The page's own path, until `<base>` says otherwise.
    base: String,
    page: Page,
    form: Option<Form>,
    /// How many elements are open whose text is worth a word.
    words_in: usize,
}

struct Form {
    /// `None`: it leads to another site.
    action: Option<String>,
    is_post: bool,
    fields: Vec<(String, String)>,
    field: Option<String>,
    /// With more than can be filled in without knowing what it is about.
    is_too_much: bool,
}

impl Reader<'_> {
    fn start(&mut self, tag: &StartTag<()>) {
        match &tag.name[..] {
            b"base" => self.rebase(tag),
            b"a" | b"area" => {
                self.words_in += usize::from(&tag.name[..] == b"a");
                if let Some(path) = self.target(tag, "href") {
                    add(&mut self.page.links, path, MAX_LINKS);
                }
            }
            b"title" | b"h1" | b"h2" | b"h3" => self.words_in += 1,
            b"link" if is_fetched(tag) => self.asset(tag, "href"),
            b"script" | b"img" | b"source" | b"audio" => self.asset(tag, "src"),
            b"video" => self.asset(tag, "poster"),
            b"form" => self.begin_form(tag),
            b"input" => self.input(tag),
            b"textarea" | b"select" => {
                if let Some(form) = &mut self.form {
                    form.is_too_much = true;
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &[u8]) {
        match name {
            b"a" | b"title" | b"h1" | b"h2" | b"h3" => self.words_in = self.words_in.saturating_sub(1),
            b"form" => self.end_form(),
            _ => {}
        }
    }

    fn text(&mut self, text: &[u8]) {
        if self.words_in == 0 {
            return;
        }
        let text = String::from_utf8_lossy(text);
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            if (4..=16).contains(&word.chars().count()) {
                add(&mut self.page.words, word.to_lowercase(), MAX_WORDS);
            }
        }
    }

    fn rebase(&mut self, tag: &StartTag<()>) {
        if let Some(path) = self.target(tag, "href") {
            self.base = path;
        }
    }

    fn asset(&mut self, tag: &StartTag<()>, attribute: &str) {
        if let Some(path) = self.target(tag, attribute) {
            add(&mut self.page.assets, path, MAX_ASSETS);
        }
    }

    fn target(&self, tag: &StartTag<()>, attribute: &str) -> Option<String> {
        match resolve(self.authority, &self.base, &value(tag, attribute)?) {
            Target::Here(path) => Some(path),
            Target::Elsewhere => None,
        }
    }

    fn begin_form(&mut self, tag: &StartTag<()>) {
        self.end_form();
        let action = match value(tag, "action").filter(|action| !action.trim().is_empty()) {
            None => Some(self.base.clone()),
            Some(_) => self.target(tag, "action"),
        };
        let is_post = value(tag, "method").is_some_and(|method| method.trim().eq_ignore_ascii_case("post"));
        self.form = Some(Form { action, is_post, fields: Vec::new(), field: None, is_too_much: false });
    }

    fn input(&mut self, tag: &StartTag<()>) {
        let (Some(form), Some(name)) = (&mut self.form, value(tag, "name")) else { return };
        let kind = value(tag, "type").unwrap_or_default().to_ascii_lowercase();
        match kind.as_str() {
            "" | "text" | "search" if form.field.is_none() => form.field = Some(name),
            "hidden" if form.fields.len() < MAX_FIELDS => {
                form.fields.push((name, value(tag, "value").unwrap_or_default()));
            }
            "checkbox" | "radio" | "submit" | "image" | "button" | "reset" => {}
            _ => form.is_too_much = true,
        }
    }

    fn end_form(&mut self) {
        let Some(form) = self.form.take() else { return };
        let Some(action) = form.action else { return };
        if form.is_post {
            add(&mut self.page.posts, action, MAX_FORMS);
        } else if let (Some(field), false) = (form.field, form.is_too_much) {
            add(&mut self.page.searches, Search { action, fields: form.fields, field }, MAX_FORMS);
        }
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() < most && !list.contains(&item) {
        list.push(item);
    }
}

fn value(tag: &StartTag<()>, attribute: &str) -> Option<String> {
    tag.attributes.get(attribute.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Whether a browser fetches what a `<link>` names for this page.
fn is_fetched(tag: &StartTag<()>) -> bool {
    let kinds = value(tag, "rel").unwrap_or_default().to_ascii_lowercase();
    let fetched = ["stylesheet", "icon", "preload", "modulepreload", "manifest", "apple-touch-icon"];
    kinds.split_ascii_whitespace().any(|kind| fetched.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(html: &str) -> Page {
        read("shop.example", "/shelf/books", html.as_bytes())
    }

    #[test]
    fn links_and_assets_of_the_same_site_are_found_once() {
        let page = page(
            r##"<!doctype html><html><head><title>Books &amp; Maps</title>
            <link rel="stylesheet" href="/app.css"><link rel="canonical" href="/canonical">
            <link rel="shortcut icon" href="/favicon.ico"><script src="app.js" defer></script>
            <script>var s = "<a href='/not-a-link'>"; </script>
            <script src="https://cdn.example/lib.js"></script></head>
            <body><a href="maps">Antique maps</a> <A HREF='/shelf/maps'>again</A>
            <a href="https://other.example/">elsewhere</a><a href="#top">top</a><a>none</a>
            <!-- <a href="/commented-out">x</a> -->
            <img src="/cover.png" alt=""><img src="/cover.png"><map><area href="/area"></map>"##,
        );
        assert_eq!(page.links, ["/shelf/maps", "/area"]);
        assert_eq!(page.assets, ["/app.css", "/favicon.ico", "/shelf/app.js", "/cover.png"]);
        assert_eq!(page.words, ["books", "maps", "antique", "again", "elsewhere", "none"]);
    }

    #[test]
    fn a_form_with_one_field_to_write_in_is_a_search() {
        let page = page(
            r#"<form action="/search?old=1"><input type="hidden" name="in" value="a b">
            <input type=search name=q><input type=submit name=go></form>"#,
        );
        assert_eq!(page.searches.len(), 1);
        assert_eq!(page.searches[0].path("r\u{e9}d"), "/search?in=a+b&q=r%C3%A9d");
    }

    #[test]
    fn a_form_without_an_action_is_sent_to_its_own_page() {
        assert_eq!(page("<form><input name=q>").searches[0].path("x"), "/shelf/books?q=x");
    }

    #[test]
    fn forms_that_write_or_ask_too_much_are_no_searches() {
        let page = page(
            r#"<form method=POST action=/sign><input name=q></form>
            <form action=/advanced><input name=q><select name=s></select></form>
            <form action=/log-in><input name=user><input type=password name=p></form>
            <form action="https://other.example/s"><input name=q></form>
            <form action=/empty></form>"#,
        );
        assert_eq!(page.searches, []);
        assert_eq!(page.posts, ["/sign"]);
    }

    #[test]
    fn base_moves_what_is_relative() {
        assert_eq!(page(r#"<base href="/other/"><a href="x">"#).links, ["/other/x"]);
    }

    #[test]
    fn a_page_without_an_end_has_what_was_read() {
        assert_eq!(page("<a href=/one>1</a><a href=/two").links, ["/one"]);
        assert_eq!(page("<form action=/s><input name=q>").searches.len(), 1);
    }

    #[test]
    fn what_a_page_has_of_one_kind_is_bounded() {
        let many = |tag: &str| (0..2_000).map(|at| tag.replace('@', &at.to_string())).collect::<String>();
        let page = page(
            &[many("<a href=/@>word@</a>"), many("<img src=/i@>"), many("<form action=/f@><input name=q>")]
                .concat(),
        );
        assert_eq!((page.links.len(), page.assets.len()), (MAX_LINKS, MAX_ASSETS));
        assert_eq!((page.searches.len(), page.words.len()), (MAX_FORMS, MAX_WORDS));
    }

    #[test]
    fn what_is_no_html_has_nothing() {
        for bytes in [&b""[..], b"\x89PNG\r\n\x1a\n\0\0", b"{\"a\": 1}", b"\xff\xfe<\xff"] {
            assert_eq!(read("shop.example", "/", bytes), Page::default());
        }
    }
}
