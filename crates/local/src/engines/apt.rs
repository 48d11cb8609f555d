//! The few things asked of `apt-get`, `apt-cache`, `dpkg` and `ldd`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::packages::PackagesError;

/// The package archive that the machine's owner has configured.
pub(super) struct Apt<'a> {
    /// `PATH`; `None`: as we have it.
    pub path: Option<&'a OsStr>,
}

impl Apt<'_> {
    /// The first of these majors that the archive has.
    pub fn newest_of(&self, majors: impl Iterator<Item = u32>) -> Result<u32, PackagesError> {
        let majors: Vec<(u32, String)> = majors.map(|major| (major, format!("postgresql-{major}"))).collect();
        let mut command = self.command("apt-cache");
        command.arg("show").arg("--no-all-versions").args(majors.iter().map(|(_, name)| name));
        // It fails when one of the names is unknown, and still shows the others.
        let shown = output(&mut command)?.stdout;
        let shown = String::from_utf8_lossy(&shown);
        let has = |name: &str| shown.lines().any(|line| line.strip_prefix("Package: ") == Some(name));
        let found = majors.iter().find(|(_, name)| has(name));
        found.map(|(major, _)| *major).ok_or(PackagesError::NotInArchive)
    }

    /// Into `folder`, as `.deb` files. Needs no privilege.
    pub fn download(&self, packages: &[String], folder: &Path) -> Result<(), PackagesError> {
        succeed(self.command("apt-get").arg("download").args(packages).current_dir(folder)).map(drop)
    }

    pub fn unpack(&self, deb: &Path, root: &Path) -> Result<(), PackagesError> {
        succeed(self.command("dpkg").arg("-x").args([deb, root])).map(drop)
    }

    /// All packages that `package` needs, directly or not.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>, PackagesError> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--recurse"]);
        command.args(
            ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"]
                .map(|no| format!("--no-{no}")),
        );
        let text = succeed(command.arg(package))?.stdout;
        let text = String::from_utf8_lossy(&text);
        let names = text.lines().filter(|line| !line.starts_with([' ', '<', '|']));
        Ok(names.map(|name| name.trim().to_owned()).collect())
    }

    /// The shared libraries that `program` would not find.
    pub fn missing_libraries(
        &self,
        program: &Path,
        env: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, PackagesError> {
        let text = succeed(self.command("ldd").arg(program).envs(env))?.stdout;
        let text = String::from_utf8_lossy(&text);
        let missing = text.lines().filter(|line| line.contains("=> not found"));
        Ok(missing.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        if let Some(path) = self.path {
            command.env("PATH", path);
        }
        command
    }
}

fn output(command: &mut Command) -> Result<Output, PackagesError> {
    command.output().map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => PackagesError::NoApt,
        _ => PackagesError::Io(cause),
    })
}

fn succeed(command: &mut Command) -> Result<Output, PackagesError> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(output);
    }
    let first = command.get_args().next().unwrap_or_default().to_string_lossy();
    Err(PackagesError::Command {
        command: format!("{} {first}", command.get_program().to_string_lossy()),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
