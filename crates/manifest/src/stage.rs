//! `switchback stage N`: one value of the manifest is rewritten, and every other byte stays.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::check;
use crate::document::Document;
use crate::keys::TOP;
use crate::presets;
use crate::problems::{At, Problems};

/// The manifest with its `stage` changed; where it has none, a line is added after `app`.
///
/// The bytes of the value are replaced in place rather than through an editing tree, so that comments, alignment, line
/// ends and mistakes in other values stay as they are. Problems call the text `switchback.toml`.
///
/// # Errors
/// When the text is not TOML, or `stage` is a table or a list, or this version has no such stage.
pub fn set_stage(text: &str, stage: u8) -> Result<String, Problems> {
    let mut problems = Problems::none_yet(crate::FILE_NAME, text);
    let changed = Document::parse(text, &mut problems)
        .filter(|_| problems.is_empty())
        .and_then(|document| change(text, document.tree.get_ref(), stage, &mut problems));
    changed.ok_or_else(|| problems.sorted())
}

/// The stage, where this version has it.
///
/// # Errors
/// Where it has not: which it has.
pub fn known_stage(stage: u8) -> Result<u8, String> {
    let known = presets::of_stage(stage).map(|preset| preset.stage);
    known.ok_or_else(|| format!("stage {stage} is not in this version; {} are", presets::stages("and")))
}

/// `None` when there is a problem.
fn change(text: &str, tree: &DeTable<'_>, stage: u8, problems: &mut Problems) -> Option<String> {
    let written = tree.iter().find(|(key, _)| key.get_ref() == "stage");
    let span = written.map_or(0..0, |(_, value)| value.span());
    let at = At { table: &TOP, card: TOP.card("stage")?, span };
    if let Some((_, value)) = written
        && let DeValue::Table(_) | DeValue::Array(_) = value.get_ref()
    {
        problems.wrong_type(&at, check::kind_of(value.get_ref()), None);
        return None;
    }
    if presets::of_stage(stage).is_none() {
        problems.no_such_stage(at.span, stage);
        return None;
    }
    Some(match written {
        Some(_) => replaced(text, at.span, &stage.to_string()),
        None => inserted_after_app(text, tree, stage),
    })
}

fn replaced(text: &str, span: Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..span.start], &text[span.end..])
}

fn inserted_after_app(text: &str, tree: &DeTable<'_>, stage: u8) -> String {
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let app = tree.iter().find(|(key, _)| key.get_ref() == "app").filter(|(key, value)| {
        // `[app]` opens a table: a line after it would belong to it.
        !matches!(value.get_ref(), DeValue::Table(_)) && key.span().start < value.span().start
    });
    let Some((_, app)) = app else {
        let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        return replaced(text, start..start, &format!("stage = {stage}{line_end}"));
    };
    match text[app.span().end..].find('\n') {
        Some(rest) => {
            let at = app.span().end + rest + 1;
            replaced(text, at..at, &format!("stage = {stage}{line_end}"))
        }
        None => format!("{text}{line_end}stage = {stage}{line_end}"),
    }
}
