//! Searches in machines that are made of scripts.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

struct Machine {
    folder: tempfile::TempDir,
    majors: Vec<PathBuf>,
    packages: Packages,
    said: RefCell<Vec<Progress>>,
}

/// Written by a shell: were it open here, another test's fork could hold it open when it is to be executed.
fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#, "sh"]);
    assert!(shell.arg(path).arg(text).status().unwrap().success());
}

/// As a package would lay it out below `root`.
fn install(root: &Path, version: &str) -> PathBuf {
    let major = version.split('.').next().unwrap();
    let bin = root.join(format!("usr/lib/postgresql/{major}/bin"));
    script(&bin.join("postgres"), &format!("echo 'postgres (PostgreSQL) {version} (Fake {version}-1)'"));
    script(&bin.join("initdb"), "exit 1");
    let share = root.join(format!("usr/share/postgresql/{major}"));
    fs::create_dir_all(&share).unwrap();
    fs::write(share.join("postgres.bki"), "").unwrap();
    bin
}

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        for needed in ["app", "bin"] {
            fs::create_dir(folder.path().join(needed)).unwrap();
        }
        Machine { folder, majors: Vec::new(), packages: Packages::Never, said: RefCell::default() }
    }

    fn with(mut self, version: &str) -> Machine {
        let bin = install(self.folder.path(), version);
        self.majors.push(bin);
        self
    }

    /// An archive with one PostgreSQL, whose package lacks a library that another package has.
    fn with_archive(mut self, major: u32) -> Machine {
        let (bin, package) = (self.folder.path().join("bin"), self.folder.path().join("package"));
        install(&package, &format!("{major}.4"));
        let library = package.join("usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(&library).unwrap();
        script(
            &bin.join("apt-cache"),
            &format!(
                "case $1 in\n\
                 show) echo 'Package: postgresql-{major}'; exit 100;;\n\
                 depends) echo postgresql-{major}; echo '  Depends: libfoo7'; echo libfoo7;;\n\
                 esac"
            ),
        );
        script(&bin.join("apt-get"), "shift; for name; do : > ${name}_1_all.deb; done");
        let copy = format!("cp -r {}/usr \"$3/\"", package.display());
        script(&bin.join("dpkg"), &format!("case $2 in *libfoo7*) : > \"$3/has-foo\";; *) {copy};; esac"));
        let missing = "echo '\tlibfoo.so.7 => not found'";
        script(
            &bin.join("ldd"),
            &format!(
                "echo '\tlibc.so.6 => /lib/libc.so.6 (0x0)'; test -e \"${{1%%/usr/*}}/has-foo\" || {missing}"
            ),
        );
        self.packages = Packages::Fetch;
        self
    }

    fn app(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    fn find(&self) -> Result<PostgresEngine, EngineError> {
        let search = Search {
            folder: self.app(),
            cache: self.folder.path().join("cache"),
            bin_dirs: self.majors.clone(),
            path: Some(format!("{}:/usr/bin:/bin", self.folder.path().join("bin").display()).into()),
            packages: self.packages,
        };
        search.find(&|progress| self.said.borrow_mut().push(progress))
    }

    fn uninstall(&mut self, major: usize) {
        let bin = self.majors.remove(major);
        fs::remove_dir_all(bin.parent().unwrap()).unwrap();
    }
}

// The scripts are found beside the real /usr/bin, which therefore must not hold a `postgres`; distributions that put it
// there would answer these searches with it.

#[test]
fn the_newest_that_is_installed_is_taken() {
    let machine = Machine::new().with("14.9").with("16.2").with("15.18");
    let engine = machine.find().unwrap();
    assert_eq!((engine.version.to_string().as_str(), engine.source), ("16.2", Source::Installed));
    assert!(engine.program("initdb").is_file());
    assert!(engine.env.is_empty());
}

#[test]
fn one_that_is_too_old_or_not_whole_is_passed_over_and_named() {
    let machine = Machine::new().with("9.6").with("15.1");
    fs::remove_file(machine.majors[1].join("initdb")).unwrap();
    let error = machine.find().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("9.6 is older than 13"), "{text}");
    assert!(text.contains("`initdb` is missing"), "{text}");
    assert!(error.hint().contains("install postgresql"), "{}", error.hint());
    assert!(error.hint().contains("systemctl disable --now postgresql"));
}

#[test]
fn a_lock_holds_its_major_against_a_newer_one() {
    let mut machine = Machine::new().with("15.1");
    write_lock(&machine.app(), &machine.find().unwrap()).unwrap();
    let lock = fs::read_to_string(machine.app().join(LOCK_FILE)).unwrap();
    assert!(lock.contains("[engine.postgres]") && lock.contains("digest = "), "{lock}");
    machine = machine.with("16.2");
    assert_eq!(machine.find().unwrap().version.to_string(), "15.1");
    assert!(machine.said.borrow().is_empty());

    // A minor upgrade is taken, and said.
    install(machine.folder.path(), "15.3");
    assert_eq!(machine.find().unwrap().version.to_string(), "15.3");
    assert_eq!(machine.said.take(), [Progress::Notice("PostgreSQL 15.1 has become 15.3".to_owned())]);
}

#[test]
fn a_lock_that_root_writes_belongs_to_the_owner_of_the_folder() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !crate::user::running_as_root() {
        eprintln!("skipped: only root may give files away");
        return;
    }
    let machine = Machine::new().with("15.4");
    chown(machine.app(), Some(3_999_999), Some(3_999_998)).unwrap();
    write_lock(&machine.app(), &machine.find().unwrap()).unwrap();
    let lock = fs::metadata(machine.app().join(LOCK_FILE)).unwrap();
    assert_eq!((lock.uid(), lock.gid()), (3_999_999, 3_999_998));
}

#[test]
fn a_locked_major_that_is_gone_leaves_a_clear_choice() {
    let mut machine = Machine::new().with("15.1");
    write_lock(&machine.app(), &machine.find().unwrap()).unwrap();
    machine = machine.with("16.2");
    machine.uninstall(0);
    let error = machine.find().unwrap_err();
    assert!(
        matches!(&error, EngineError::LockedVersionGone { version, .. } if version.major() == 15),
        "{error:?}"
    );
    let hint = error.hint();
    assert!(
        hint.contains("postgresql-15") && hint.contains("switchback.lock") && hint.contains("16.2"),
        "{hint}"
    );
}

#[test]
fn a_lock_that_does_not_read_is_an_error_and_not_a_new_choice() {
    let machine = Machine::new().with("15.1");
    for text in ["engine = 1", "[engine.postgres]\nversion = '15'", "<<<<<<< HEAD"] {
        fs::write(machine.app().join(LOCK_FILE), text).unwrap();
        assert!(matches!(machine.find(), Err(EngineError::LockUnreadable { .. })), "{text}");
    }
}

#[test]
fn without_an_installed_one_the_packages_are_unpacked_with_the_libraries_they_lack() {
    let machine = Machine::new().with_archive(15);
    let engine = machine.find().unwrap();
    assert_eq!((engine.version.to_string().as_str(), engine.source), ("15.4", Source::Unpacked));
    assert!(engine.bin_dir.starts_with(machine.folder.path().join("cache")));
    assert!(engine.env["LD_LIBRARY_PATH"].ends_with("x86_64-linux-gnu"), "{:?}", engine.env);
    let unpacked: Vec<_> = machine.said.take();
    assert!(unpacked.contains(&Progress::Unpacking { package: "libfoo7".to_owned() }), "{unpacked:?}");

    // The second time, also by its lock, nothing is fetched.
    assert_eq!(machine.find().unwrap(), engine);
    write_lock(&machine.app(), &engine).unwrap();
    assert_eq!(machine.find().unwrap(), engine);
    assert!(machine.said.borrow().is_empty());
}

#[test]
fn half_unpacked_packages_of_a_crash_are_begun_again() {
    let machine = Machine::new().with_archive(15);
    let left = machine.folder.path().join("cache/engines/postgresql-15.partial/usr");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("half"), "").unwrap();
    let engine = machine.find().unwrap();
    assert!(!machine.folder.path().join("cache/engines/postgresql-15/usr/half").exists());
    assert!(engine.program("postgres").is_file());
}
