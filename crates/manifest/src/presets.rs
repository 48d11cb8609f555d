//! What a stage fills in: the files in `stages/`, read as manifests are.

use crate::document::Document;
use crate::problems::Problems;
use crate::settings::{Settings, Source};
use crate::units::listed;
use crate::walk;

/// One of the stages that are in this version.
#[derive(Debug)]
pub struct Preset {
    pub stage: u8,
    /// Its part of the story, for people.
    pub title: &'static str,
    pub(crate) text: &'static str,
}

pub static PRESETS: &[Preset] = &[
    Preset { stage: 1, title: "one server", text: include_str!("../../../stages/1-one-server/preset.toml") },
    Preset { stage: 2, title: "two zones", text: include_str!("../../../stages/2-two-zones/preset.toml") },
    Preset {
        stage: 3,
        title: "read replicas",
        text: include_str!("../../../stages/3-read-replicas/preset.toml"),
    },
];

pub(crate) fn of_stage(stage: u8) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.stage == stage)
}

/// `1, 2 and 3`: the stages that are in this version.
pub(crate) fn stages(joined_by: &str) -> String {
    let stages: Vec<String> = PRESETS.iter().map(|preset| preset.stage.to_string()).collect();
    listed(&stages, joined_by)
}

impl Preset {
    pub(crate) fn settings(&self) -> Settings {
        let mut problems = Problems::none_yet(self.title, self.text);
        let settings = Document::parse(self.text, &mut problems)
            .map(|document| walk::walk(&document, Source::Preset, &mut problems))
            .unwrap_or_default();
        debug_assert!(problems.is_empty(), "the preset of stage {} has problems", self.stage);
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Default, TOP};

    #[test]
    fn every_preset_gives_every_value_that_is_left_to_the_stage() {
        for preset in PRESETS {
            let settings = preset.settings();
            for table in TOP.all() {
                for card in table.cards.iter().filter(|card| matches!(card.default, Default::Preset)) {
                    let path = table.path(card.key);
                    let given = settings.get(&path).is_some_and(|setting| setting.value.is_some());
                    assert!(given, "stage {} leaves {path} open", preset.stage);
                }
            }
        }
    }
}
