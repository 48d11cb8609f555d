//! Pages. Everything that is printed is escaped by the templates; nothing here asks the database for anything.

pub mod account;
pub mod asset;
pub mod layout;
pub mod prose;
pub mod stories;
pub mod when;

use maud::{Markup, html};

use crate::model::people::User;

/// The person a page is made for.
pub struct Viewer {
    pub user: Option<User>,
    /// What each of their forms must carry; a guest without a cookie has none, and is shown no forms that need it.
    pub form_token: Option<String>,
    /// The path and query of the page.
    pub here: String,
}

/// Where to log in, and come back from.
pub fn log_in_path(back: &str) -> String {
    with_query("/login", &[("next", back)])
}

fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    // Pairs of strings always encode.
    format!("{path}?{}", serde_urlencoded::to_string(query).unwrap_or_default())
}

fn form_token(viewer: &Viewer) -> Markup {
    html! { input type="hidden" name="form_token" value=(viewer.form_token.as_deref().unwrap_or_default()); }
}

fn count(number: i64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
