//! The frame around every page.

use maud::{DOCTYPE, Markup, html};

use super::asset::{ICON, STYLE};
use super::{Viewer, form_token, log_in_path};

/// A whole page for a visitor.
pub fn page(viewer: &Viewer, title: &str, content: Markup) -> Markup {
    frame(title, account_links(viewer), content)
}

/// A page that needs neither visitor nor database: for when something went wrong.
pub fn plain(title: &str, advice: &str) -> Markup {
    let content = html! {
        section.notice {
            h1 { (title) }
            p { (advice) }
            p { a href="/" { "To the front page" } }
        }
    };
    frame(title, html! {}, content)
}

fn frame(title: &str, account: Markup, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Frontpage" }
                link rel="stylesheet" href=(STYLE.path());
                link rel="icon" href=(ICON.path()) type="image/svg+xml";
            }
            body {
                header.top {
                    div.bar {
                        a.brand href="/" { img src=(ICON.path()) alt="" width="26" height="26"; span { "Frontpage" } }
                        nav.main { a href="/" { "Top" } a href="/new" { "New" } a href="/submit" { "Submit" } }
                        form.find action="/search" role="search" {
                            input type="search" name="q" placeholder="Search" aria-label="Search" maxlength="200";
                        }
                        nav.account { (account) }
                    }
                }
                main { (content) }
                footer { "Good links, kind words." }
            }
        }
    }
}

fn account_links(viewer: &Viewer) -> Markup {
    html! {
        @match &viewer.user {
            Some(user) => {
                a href={ "/user/" (user.name) } { (user.name) }
                form method="post" action="/logout" { (form_token(viewer)) button.plain { "Log out" } }
            }
            None => {
                a href=(log_in_path(&viewer.here)) { "Log in" }
                a.strong href="/signup" { "Sign up" }
            }
        }
    }
}
