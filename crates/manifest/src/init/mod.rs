//! `switchback init`: what a folder looks like, to a manifest of a few lines.

use model::AppName;

/// The nearest name an app can have, such as `my-app` for `My App`. `None` when there is no letter in it.
pub fn app_name_from(text: &str) -> Option<AppName> {
    let mut name = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || (c.is_ascii_digit() && !name.is_empty()) => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
        if name.len() == 40 {
            break;
        }
    }
    AppName::new(name.trim_end_matches('-')).ok()
}
