//! A small app in a folder: a Python program of the standard library alone, and a manifest.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::folder::Folder;

const PROGRAM: &str = include_str!("app.py");

/// An app in a temporary folder. What its program can do, and what it can be told to do wrong, stands at the top of
/// `app.py`.
///
/// Changes are written at once, so that they can be made before `up` and while it runs: [`App::knob`] and
/// [`App::version`] are part of the next release, the other ones of the next plan.
#[derive(Debug)]
pub struct App {
    name: String,
    /// Before the folder it stands in, which cannot be removed around it.
    disk: Option<Disk>,
    folder: Folder,
    manifest: Manifest,
    knobs: BTreeMap<String, serde_json::Value>,
}

/// By table (`""` is the top), by key, a value as TOML spells it.
type Manifest = BTreeMap<&'static str, BTreeMap<String, String>>;

impl App {
    /// An app at stage 1, on any free port, with an instance that is up in a blink, a grace of five seconds, and
    /// deployments that are compared for one second.
    pub fn python(name: &str) -> App {
        let folder = Folder::new();
        folder.write("app/app.py", PROGRAM);
        let (manifest, knobs) = (Manifest::new(), BTreeMap::new());
        let app = App { name: name.to_owned(), disk: None, folder, manifest, knobs };
        app.set("", "app", quoted(name))
            .set("", "stage", 1)
            .set("web", "run", quoted("exec python3 app.py"))
            .set("web", "grace", quoted("5s"))
            .set("web", "start_timeout", quoted("20s"))
            .set("web", "deploy", r#"{ window = "1s" }"#)
            .set("edge", "listen", quoted("127.0.0.1:0"))
            .version("1")
    }

    /// The same with a PostgreSQL behind it, which it speaks to through `psql` at `POST /sql`.
    pub fn guestbook(name: &str) -> App {
        App::python(name).set("db", "engine", quoted("postgres"))
    }

    /// Puts the state folder on a disk of its own.
    ///
    /// # Errors
    /// When this user may not mount: why.
    pub fn on_a_disk_of(self, megabytes: u64) -> Result<App, String> {
        let disk = Disk::mount(&self.state_dir(), megabytes << 20)?;
        Ok(App { disk: Some(disk), ..self })
    }

    /// Puts a folder below the state folder on a disk of its own.
    ///
    /// # Errors
    /// When this user may not mount: why.
    pub fn with_a_disk_at(self, below: &str, megabytes: u64) -> Result<App, String> {
        let disk = Disk::mount(&self.state_dir().join(below), megabytes << 20)?;
        Ok(App { disk: Some(disk), ..self })
    }

    /// As [`App::with_a_disk_at`], with one that can be frozen.
    ///
    /// # Errors
    /// When this user may not mount or freeze: why.
    pub fn with_a_freezable_disk_at(self, below: &str, megabytes: u64) -> Result<App, String> {
        let disk = Disk::mount_freezable(&self.state_dir().join(below), megabytes << 20)?;
        Ok(App { disk: Some(disk), ..self })
    }

    /// The one of [`App::on_a_disk_of`] or [`App::with_a_disk_at`].
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    pub(crate) fn disk_answers_again(&self) {
        if let Some(disk) = &self.disk {
            disk.answer_again();
        }
    }

    pub fn stage(self, stage: u8) -> App {
        self.set("", "stage", stage)
    }

    pub fn instances(self, instances: u32) -> App {
        self.set("web", "instances", instances)
    }

    /// Sets a key of the manifest. `table` is `""` for the top; `value` is spelled as in TOML.
    pub fn set(mut self, table: &'static str, key: &str, value: impl Display) -> App {
        self.change(table, key, value);
        self
    }

    /// As [`App::set`], of an app that is already owned by a [`crate::Switchback`].
    pub fn change(&mut self, table: &'static str, key: &str, value: impl Display) {
        self.keep_stage();
        self.manifest.entry(table).or_default().insert(key.to_owned(), value.to_string());
        self.folder.write("app/switchback.toml", &self.manifest_text());
    }

    /// Sets what the program calls itself: in the body of `/` and in `X-App-Version`.
    pub fn version(self, version: &str) -> App {
        self.write("version", version)
    }

    /// Turns a knob of the program (see `app.py`).
    pub fn knob(mut self, name: &str, value: impl Into<serde_json::Value>) -> App {
        self.turn(name, value);
        self
    }

    /// As [`App::knob`], of an app that is already owned by a [`crate::Switchback`]. `null` turns it off.
    pub fn turn(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.knobs.insert(name.to_owned(), value.into());
        let text = serde_json::to_string_pretty(&self.knobs).expect("knobs are JSON");
        self.folder.write("app/knobs.json", &text);
    }

    /// Writes a file of the app's folder.
    pub fn write(self, name: &str, text: &str) -> App {
        self.put(name, text);
        self
    }

    /// As [`App::write`], of an app that is already owned by a [`crate::Switchback`].
    pub fn put(&self, name: &str, text: &str) {
        self.folder.write(&format!("app/{name}"), text);
    }

    /// Gives the folder with all that is in it to another user, as root can.
    ///
    /// # Panics
    /// When we are not root.
    pub fn give_to(&self, uid: u32) {
        for entry in std::fs::read_dir(self.dir()).expect("the app's folder") {
            let path = entry.expect("an entry of it").path();
            std::os::unix::fs::lchown(path, Some(uid), Some(uid)).expect("we are root");
        }
        std::os::unix::fs::lchown(self.dir(), Some(uid), Some(uid)).expect("we are root");
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with the code and the manifest.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    /// The state folder, outside the app's own.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The manifest as it stands in the folder: commands may have rewritten it.
    pub fn manifest(&self) -> String {
        std::fs::read_to_string(self.dir().join("switchback.toml")).expect("the manifest is there")
    }

    /// Everything of this app, and nothing else, is under it.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// `switchback stage` rewrites one line of the manifest; what is written here later must not take that back.
    fn keep_stage(&mut self) {
        let text = std::fs::read_to_string(self.dir().join("switchback.toml")).unwrap_or_default();
        if let Some(stage) = text.lines().find_map(|line| line.strip_prefix("stage = ")) {
            self.manifest.entry("").or_default().insert("stage".to_owned(), stage.to_owned());
        }
    }

    fn manifest_text(&self) -> String {
        let mut text = String::new();
        for (table, keys) in &self.manifest {
            if !table.is_empty() {
                text.push_str(&format!("\n[{table}]\n"));
            }
            for (key, value) in keys {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        text
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
