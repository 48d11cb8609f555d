//! Lists of stories, a story with its comments, and the forms for both.

use std::time::SystemTime;

use maud::{Markup, html};

use super::layout::page;
use super::prose::prose;
use super::when::ago;
use super::{Viewer, count, form_token, log_in_path, with_query};
use crate::model::comments::{Placed, Remark};
use crate::model::stories::{LAST_PAGE, PAGE_SIZE, Story, Vote};
use crate::model::{More, Page};

/// Answers deeper than this are not moved further to the right: there has to be room for words.
const DEEPEST_INDENT: usize = 8;

/// A story as someone typed it.
#[derive(Default)]
pub struct Draft<'a> {
    pub title: &'a str,
    pub url: &'a str,
    pub text: &'a str,
}

/// The front page.
pub fn front(viewer: &Viewer, stories: &Page<Story>, number: u32) -> Markup {
    page(
        viewer,
        "Top stories",
        html! {
            h1.unseen { "Top stories" }
            @if stories.items.is_empty() { p.empty { "Nothing here yet. " a href="/submit" { "Submit the first story" } "." } }
            (list(viewer, &stories.items, Some(first_rank(number))))
            (pages("/", &[], stories.more, number))
        },
    )
}

/// The newest stories.
pub fn newest(viewer: &Viewer, stories: &Page<Story>) -> Markup {
    page(
        viewer,
        "New stories",
        html! {
            h1.unseen { "New stories" }
            @if stories.items.is_empty() { p.empty { "Nothing here." } }
            (list(viewer, &stories.items, None))
            (older("/new", stories.more, stories.items.last().map(|story| story.id)))
        },
    )
}

/// What a search found.
pub fn found(viewer: &Viewer, words: &str, stories: &Page<Story>, number: u32) -> Markup {
    page(
        viewer,
        &format!("Search: {words}"),
        html! {
            h1 { "Stories about “" (words) "”" }
            @if stories.items.is_empty() { p.empty { "Nothing was found. Fewer words find more." } }
            (list(viewer, &stories.items, Some(first_rank(number))))
            (pages("/search", &[("q", words)], stories.more, number))
        },
    )
}

/// The search page before there is anything to search for.
pub fn nothing_searched(viewer: &Viewer, problem: Option<&str>) -> Markup {
    page(
        viewer,
        "Search",
        html! {
            section.narrow {
                h1 { "Search" }
                @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
                p { "Type a few words above. \"Quotes\" keep words together, a minus leaves one out." }
            }
        },
    )
}

/// A story, its text and its comments; `problem` is a comment that was refused, and why.
pub fn item(
    viewer: &Viewer,
    story: &Story,
    body: &str,
    thread: &[Placed],
    problem: Option<(&str, &str)>,
) -> Markup {
    let now = SystemTime::now();
    page(
        viewer,
        &story.title,
        html! {
            (list(viewer, std::slice::from_ref(story), None))
            @if !body.is_empty() { div.prose.body { (prose(body)) } }
            section.discussion {
                h2 { (count(i64::from(story.comment_count), "comment", "comments")) }
                @match &viewer.user {
                    Some(_) => (comment_form(viewer, story.id, None, problem)),
                    None => p.aside { a href=(log_in_path(&viewer.here)) { "Log in" } " to join the discussion." },
                }
                @for placed in thread {
                    @let comment = &placed.comment;
                    article id={ "comment-" (comment.id) } class={ "comment d" (placed.depth.min(DEEPEST_INDENT)) } {
                        p.meta {
                            a.who href={ "/user/" (comment.author) } { (comment.author) }
                            " · " a href={ "#comment-" (comment.id) } { (ago(comment.created_at, now)) }
                            " · " a href={ "/reply/" (comment.id) } rel="nofollow" { "reply" }
                        }
                        div.prose { (prose(&comment.body)) }
                    }
                }
            }
        },
    )
}

/// A comment, and the form to answer it.
pub fn reply(viewer: &Viewer, remark: &Remark, problem: Option<(&str, &str)>) -> Markup {
    let comment = &remark.comment;
    page(
        viewer,
        "Reply",
        html! {
            section.discussion {
                p.meta { "On " a href={ "/item/" (remark.story_id) } { (remark.story_title) } }
                article.comment {
                    p.meta { a.who href={ "/user/" (comment.author) } { (comment.author) } }
                    div.prose { (prose(&comment.body)) }
                }
                (comment_form(viewer, remark.story_id, Some(comment.id), problem))
            }
        },
    )
}

fn comment_form(viewer: &Viewer, story: i64, parent: Option<i64>, problem: Option<(&str, &str)>) -> Markup {
    let (typed, why) = problem.unzip();
    html! {
        form.stack method="post" action={ "/item/" (story) "/comment" } {
            (form_token(viewer))
            @if let Some(parent) = parent { input type="hidden" name="parent" value=(parent); }
            @if let Some(why) = why { p.problem role="alert" { (why) } }
            textarea name="text" rows="4" required maxlength="8000" aria-label="Your comment" {
                (typed.unwrap_or_default())
            }
            button { @if parent.is_some() { "Reply" } @else { "Add comment" } }
        }
    }
}

/// The form for a new story.
pub fn submit(viewer: &Viewer, draft: &Draft<'_>, problem: Option<&str>) -> Markup {
    page(
        viewer,
        "Submit",
        html! {
            section.narrow {
                h1 { "Submit a story" }
                @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
                form.stack method="post" action="/submit" {
                    (form_token(viewer))
                    label { "Title" input name="title" value=(draft.title) required minlength="3" maxlength="120" autofocus; }
                    label { "Link" input name="url" type="url" value=(draft.url) maxlength="2000" placeholder="https://"; }
                    label { "Text" textarea name="text" rows="6" maxlength="8000" { (draft.text) } }
                    p.aside { "A link, a text, or both." }
                    button { "Submit" }
                }
            }
        },
    )
}

/// Stories one below the other, numbered from `first` if given.
pub fn list(viewer: &Viewer, stories: &[Story], first: Option<usize>) -> Markup {
    let now = SystemTime::now();
    html! {
        ol.stories {
            @for (place, story) in stories.iter().enumerate() {
                li.story id={ "story-" (story.id) } {
                    (vote_button(viewer, story))
                    div {
                        h2 {
                            @if let Some(first) = first { span.rank { (first + place) } " " }
                            @match &story.link {
                                Some(link) => {
                                    a href=(link.url) rel="nofollow ugc noopener" { (story.title) }
                                    " " span.domain { (link.domain) }
                                }
                                None => a href={ "/item/" (story.id) } { (story.title) },
                            }
                        }
                        p.meta {
                            "by " a.who href={ "/user/" (story.author) } { (story.author) }
                            " · " (ago(story.created_at, now)) " · "
                            a href={ "/item/" (story.id) } {
                                (count(i64::from(story.comment_count), "comment", "comments"))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The points of a story, and the way to add one's own or take it back.
fn vote_button(viewer: &Viewer, story: &Story) -> Markup {
    let (act, label) = match story.vote {
        Vote::Given => ("unvote", "Take my vote back"),
        Vote::NotGiven => ("vote", "Vote"),
    };
    let inside = html! { span aria-hidden="true" { "▲" } b { (story.points) } };
    let back = format!("{}#story-{}", viewer.here, story.id);
    html! {
        @if viewer.user.is_some() {
            form.vote method="post" action={ "/item/" (story.id) "/" (act) } {
                (form_token(viewer))
                input type="hidden" name="next" value=(back);
                button class=(act) title=(label) aria-label=(label) { (inside) }
            }
        } @else {
            a.vote href=(log_in_path(&back)) title="Log in to vote" rel="nofollow" { (inside) }
        }
    }
}

/// The way to the pages before and after one with a number.
fn pages(path: &str, query: &[(&str, &str)], more: More, number: u32) -> Markup {
    let to = |number: u32| {
        let number = number.to_string();
        with_query(path, &[query, &[("page", number.as_str())]].concat())
    };
    html! {
        nav.pages {
            @if number > 1 { a rel="prev" href=(to(number - 1)) { "← Previous" } }
            @if more == More::Follows && number < LAST_PAGE { a rel="next" href=(to(number + 1)) { "More →" } }
        }
    }
}

/// The way to what is older than the last item shown.
pub fn older(path: &str, more: More, last: Option<i64>) -> Markup {
    html! {
        @if let (More::Follows, Some(last)) = (more, last) {
            nav.pages { a rel="next" href=(with_query(path, &[("before", &last.to_string())])) { "Older →" } }
        }
    }
}

fn first_rank(number: u32) -> usize {
    (number as usize - 1) * PAGE_SIZE + 1
}
