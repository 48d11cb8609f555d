//! The drivers and ORMs that the proxy is tested with, of the versions that `crates/pgproxy/tests/drivers` names, in the
//! target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Result};
use crate::house;
use crate::shell;

/// Installs what is missing or of another version. Does nothing, quickly, when all is there.
///
/// # Errors
/// When something cannot be installed.
pub fn install() -> Result {
    let named = house::root().join("crates/pgproxy/tests/drivers");
    let folder = house::target().join("drivers");
    up_to_date(&folder.join("python"), &[named.join("requirements.txt")], |python| {
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(python))?;
        let mut pip = Command::new(python.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "-r",
        ]);
        shell::run(pip.arg(named.join("requirements.txt")))
    })?;
    let lists = [named.join("package.json"), named.join("package-lock.json")];
    up_to_date(&folder.join("node"), &lists, |node| {
        for list in &lists {
            let name = list.file_name().unwrap_or_default();
            std::fs::copy(list, node.join(name)).map_err(Failure::while_doing(list.display()))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]);
        shell::run(npm.current_dir(node))
    })
}

/// Calls `install` for a new `folder`, unless there is one that was made by the same `lists`.
fn up_to_date(folder: &Path, lists: &[PathBuf], install: impl FnOnce(&Path) -> Result) -> Result {
    let stamp = folder.join("installed");
    let texts: std::io::Result<Vec<String>> = lists.iter().map(std::fs::read_to_string).collect();
    let wanted = texts.map_err(Failure::while_doing("the lists of drivers"))?.concat();
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(Failure::while_doing(folder.display()))?;
    }
    std::fs::create_dir_all(folder).map_err(Failure::while_doing(folder.display()))?;
    install(folder)?;
    // Written last: what was interrupted is made anew.
    std::fs::write(&stamp, wanted).map_err(Failure::while_doing(stamp.display()))
}
