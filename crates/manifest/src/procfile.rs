//! A Procfile beside the manifest: `web:` and `release:` stand in for the keys of the same meaning.

use crate::document::MAX_TEXT_BYTES;
use crate::settings::{Setting, Settings, Source, Value};

const MAX_NOTES: usize = 16;

/// The lines that mean something here, and notes about those that do not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Procfile {
    pub web: Option<String>,
    pub release: Option<String>,
    pub notes: Vec<String>,
}

impl Procfile {
    /// Of a process type given twice the last line counts, as foreman reads it.
    pub(crate) fn parse(text: &str) -> Procfile {
        let mut procfile = Procfile::default();
        if text.len() > MAX_TEXT_BYTES {
            procfile.notes.push(format!("the Procfile is not read: it has more than {MAX_TEXT_BYTES} bytes"));
            return procfile;
        }
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((kind, command)) = line.split_once(':') else {
                continue;
            };
            let command = command.trim();
            match kind.trim() {
                _ if command.is_empty() || command.contains('\0') => {}
                "web" => procfile.web = Some(command.to_owned()),
                "release" => procfile.release = Some(command.to_owned()),
                // A Procfile has a handful of processes; what has more is no Procfile.
                _ if procfile.notes.len() == MAX_NOTES => {}
                other => procfile.notes.push(format!(
                    "the Procfile's `{}` process is not run: `web` and `release` are in this version",
                    crate::problems::quoted(other)
                )),
            }
        }
        procfile
    }

    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        for (path, command) in [("web.run", &self.web), ("web.release", &self.release)] {
            if let Some(command) = command {
                let value = Some(Value::Text(command.clone()));
                settings.offer(path.to_owned(), Setting { value, source: Source::Procfile, span: None });
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_and_release_are_taken_and_others_are_noted() {
        let procfile = Procfile::parse(
            "# how it runs\nweb: bin/serve -p $PORT\nrelease : bin/migrate\n\nworker: bin/work\nnonsense\n",
        );
        assert_eq!(procfile.web.as_deref(), Some("bin/serve -p $PORT"));
        assert_eq!(procfile.release.as_deref(), Some("bin/migrate"));
        assert_eq!(
            procfile.notes,
            ["the Procfile's `worker` process is not run: `web` and `release` are in this version"]
        );
    }
}
