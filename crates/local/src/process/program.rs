//! From the command of a [`Spec`] to a file that can be executed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Command, SpawnError, Spec, shell};

/// How the program is called in errors.
pub(super) fn label(command: &Command) -> String {
    match command {
        Command::Shell(_) => "/bin/sh".to_owned(),
        Command::Argv(argv) => argv.first().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
    }
}

/// The file to execute, and its arguments beginning with its own name.
pub(super) fn command_line(
    spec: &Spec,
    path: Option<&OsStr>,
) -> Result<(PathBuf, Vec<OsString>), SpawnError> {
    let found = |program: &str| {
        find_program(OsStr::new(program), path, &spec.cwd)
            .ok_or_else(|| SpawnError::CommandNotFound { program: program.to_owned(), cwd: spec.cwd.clone() })
    };
    match &spec.command {
        Command::Shell(line) => {
            if line.trim().is_empty() {
                return Err(SpawnError::EmptyCommand);
            }
            if let Some(program) = shell::program(line) {
                let file = found(program)?;
                // Someone else's folders may be closed to us, never to root: only a clear "no" counts.
                let executable = file.metadata().map_or(true, |m| m.permissions().mode() & 0o111 != 0);
                if !executable {
                    return Err(SpawnError::PermissionDenied { program: program.to_owned() });
                }
            }
            let script = shell::script(line);
            Ok(("/bin/sh".into(), vec!["/bin/sh".into(), "-c".into(), script.into()]))
        }
        Command::Argv(argv) => {
            let program = argv.first().filter(|p| !p.is_empty()).ok_or(SpawnError::EmptyCommand)?;
            let file = if program.as_bytes().contains(&b'/') {
                // Found from the folder the child stands in by then.
                PathBuf::from(program)
            } else {
                found(&program.to_string_lossy())?
            };
            Ok((file, argv.clone()))
        }
    }
}

/// The program of a plain command line, where a shell in `cwd` would not find it. A line that needs the shell to be understood
/// is not looked into.
pub fn missing<'a>(line: &'a str, path: Option<&OsStr>, cwd: &Path) -> Option<&'a str> {
    shell::program(line).filter(|program| find_program(OsStr::new(program), path, cwd).is_none())
}

/// As a shell in `cwd` would find it.
fn find_program(program: &OsStr, path: Option<&OsStr>, cwd: &Path) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        let file = cwd.join(program);
        return file.exists().then_some(file);
    }
    std::env::split_paths(path?).map(|dir| cwd.join(dir).join(program)).find(|file| {
        let is_program = |m: std::fs::Metadata| m.is_file() && m.permissions().mode() & 0o111 != 0;
        file.metadata().is_ok_and(is_program)
    })
}

/// Why `exec` failed, as far as its error tells.
pub(super) fn exec_error(program: String, source: io::Error, cwd: PathBuf) -> SpawnError {
    match source.raw_os_error() {
        Some(libc::ENOENT) => SpawnError::CommandNotFound { program, cwd },
        Some(libc::EACCES | libc::EPERM) => SpawnError::PermissionDenied { program },
        // The user's own limit of processes shows only here.
        Some(libc::EAGAIN | libc::ENOMEM) => SpawnError::NoRoom { source },
        Some(libc::ENOEXEC) => SpawnError::NotExecutable { program },
        _ => SpawnError::Exec { program, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_missing_where_neither_path_nor_the_folder_has_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        for name in ["server", "bin/tool"] {
            std::fs::write(dir.path().join(name), "").unwrap();
            std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let missing = |line| missing(line, Some(OsStr::new("bin")), dir.path());
        assert_eq!(missing("./server --port $PORT"), None);
        assert_eq!(missing("tool"), None);
        assert_eq!(missing("./other --port $PORT"), Some("./other"));
        assert_eq!(missing("server"), Some("server"));
        assert_eq!(missing("cd web && ./other"), None);
    }
}
