//! Signing up, logging in, and the page about a user.

use std::time::SystemTime;

use maud::{Markup, html};

use super::layout::page;
use super::prose::prose;
use super::stories::{list, older};
use super::when::ago;
use super::{Viewer, count, form_token, with_query};
use crate::model::Page;
use crate::model::comments::Remark;
use crate::model::people::Profile;
use crate::model::stories::Story;

/// The two ways in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    SignUp,
    LogIn,
}

/// The form for either way in, with what was wrong with the last attempt.
pub fn form(viewer: &Viewer, entry: Entry, name: &str, next: &str, problem: Option<&str>) -> Markup {
    let (title, action, hint, other, other_text) = match entry {
        Entry::SignUp => ("Sign up", "/signup", "new-password", "/login", "I have an account already"),
        Entry::LogIn => ("Log in", "/login", "current-password", "/signup", "I am new here"),
    };
    let other = with_query(other, &[("next", next)]);
    page(
        viewer,
        title,
        html! {
            section.narrow {
                h1 { (title) }
                @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
                form.stack method="post" action=(action) {
                    (form_token(viewer))
                    input type="hidden" name="next" value=(next);
                    label { "Name" input name="name" value=(name) required minlength="2" maxlength="20"
                        autocomplete="username" autocapitalize="none" autofocus; }
                    label { "Password" input name="password" type="password" required minlength="8" maxlength="200"
                        autocomplete=(hint); }
                    button { (title) }
                }
                p.aside { a href=(other) { (other_text) } }
            }
        },
    )
}

/// A user and their stories.
pub fn profile(viewer: &Viewer, profile: &Profile, stories: &Page<Story>) -> Markup {
    let path = format!("/user/{}", profile.user.name);
    page(
        viewer,
        &profile.user.name,
        html! {
            (head(profile, Tab::Stories))
            @if stories.items.is_empty() { p.empty { "No stories yet." } }
            (list(viewer, &stories.items, None))
            (older(&path, stories.more, stories.items.last().map(|story| story.id)))
        },
    )
}

/// A user and what they said.
pub fn remarks(viewer: &Viewer, profile: &Profile, remarks: &Page<Remark>) -> Markup {
    let path = format!("/user/{}/comments", profile.user.name);
    let now = SystemTime::now();
    page(
        viewer,
        &profile.user.name,
        html! {
            (head(profile, Tab::Comments))
            @if remarks.items.is_empty() { p.empty { "No comments yet." } }
            @for remark in &remarks.items {
                article.comment {
                    p.meta {
                        (ago(remark.comment.created_at, now)) " on "
                        a href={ "/item/" (remark.story_id) "#comment-" (remark.comment.id) } { (remark.story_title) }
                    }
                    div.prose { (prose(&remark.comment.body)) }
                }
            }
            (older(&path, remarks.more, remarks.items.last().map(|remark| remark.comment.id)))
        },
    )
}

#[derive(PartialEq, Eq)]
enum Tab {
    Stories,
    Comments,
}

fn head(profile: &Profile, tab: Tab) -> Markup {
    let name = &profile.user.name;
    let current = |this: Tab| (tab == this).then_some("page");
    html! {
        section.profile {
            h1 { (name) }
            p.meta {
                "Joined " (ago(profile.since, SystemTime::now())) " · " (count(profile.points, "point", "points"))
            }
            nav.tabs {
                a href={ "/user/" (name) } aria-current=[current(Tab::Stories)] {
                    (count(profile.stories, "story", "stories"))
                }
                a href={ "/user/" (name) "/comments" } aria-current=[current(Tab::Comments)] {
                    (count(profile.comments, "comment", "comments"))
                }
            }
        }
    }
}
