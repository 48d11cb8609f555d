//! What people wrote, as paragraphs. Web addresses become links; nothing else is markup.

use maud::{Markup, html};

use crate::text::WebUrl;

/// Paragraphs are separated by empty lines; single line ends are kept.
pub fn prose(text: &str) -> Markup {
    html! {
        @for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            p { @for piece in pieces(paragraph) {
                @match piece {
                    Piece::Words(words) => (words),
                    Piece::Link(url) => a href=(url) rel="nofollow ugc noopener" { (url) },
                }
            } }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Words(&'a str),
    Link(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    text.split_inclusive(char::is_whitespace).flat_map(piece).collect()
}

/// A word with the space after it. Marks around an address belong to the sentence, not to the address.
fn piece(word: &str) -> Vec<Piece<'_>> {
    let marks = |c: char| {
        c.is_whitespace() || matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | ')' | '(' | '"' | '\'')
    };
    let start = word.len() - word.trim_start_matches(marks).len();
    let end = word.trim_end_matches(marks).len();
    match word.get(start..end) {
        Some(address) if WebUrl::parse(address).is_ok() => {
            let around = [Piece::Words(&word[..start]), Piece::Link(address), Piece::Words(&word[end..])];
            around.into_iter().filter(|piece| *piece != Piece::Words("")).collect()
        }
        _ => vec![Piece::Words(word)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_shown_and_never_obeyed() {
        let shown = prose("<script>alert(1)</script> & more").into_string();
        assert_eq!(shown, "<p>&lt;script&gt;alert(1)&lt;/script&gt; &amp; more</p>");
    }

    #[test]
    fn addresses_become_links_without_the_marks_around_them() {
        let shown = prose("see (https://example.org/a?b=1&c=2). Not javascript:alert(1)").into_string();
        let link = "<a href=\"https://example.org/a?b=1&amp;c=2\" rel=\"nofollow ugc noopener\">\
            https://example.org/a?b=1&amp;c=2</a>";
        assert_eq!(shown, format!("<p>see ({link}). Not javascript:alert(1)</p>"));
    }

    #[test]
    fn empty_lines_separate_paragraphs() {
        assert_eq!(prose("one\ntwo\n\n\n\nthree").into_string(), "<p>one\ntwo</p><p>three</p>");
    }
}
