//! What the other commands need from the machine, found or installed.
//!
//! On Debian and Ubuntu what is missing comes from the distribution. Nothing that was running is touched, and nothing
//! that is installed here gets started: we run the programs ourselves. Elsewhere the person is told what to install.

use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::house;
use crate::shell;

/// Tests run under it where they can: a process a test, and groups with limits.
const NEXTEST_VERSION: &str = "0.9.143";

/// A program this house uses.
pub struct Need {
    what: &'static str,
    packages: &'static [&'static str],
    present: fn() -> bool,
}

/// What a command needs.
pub struct Needs;

impl Needs {
    pub const DEMO: &'static [Need] = &[C_COMPILER, LIBCLANG, POSTGRES, CURL];
    pub const TEST: &'static [Need] = &[C_COMPILER, LIBCLANG, POSTGRES, CURL, PYTHON, NODE, SQLSMITH];
    pub const BENCH_EDGE: &'static [Need] = &[C_COMPILER, LIBCLANG, HAPROXY, NGINX, VARNISH, WRK, H2LOAD];
    pub const BENCH_GENERATOR: &'static [Need] = &[C_COMPILER, LIBCLANG, NGINX];
    pub const BENCH_PGPROXY: &'static [Need] = &[C_COMPILER, LIBCLANG, POSTGRES, PGBOUNCER, PGPOOL];
    pub const BENCH_REPORT: &'static [Need] = &[C_COMPILER, CHROMIUM];
}

const C_COMPILER: Need =
    Need { what: "a C compiler", packages: &["gcc", "libc6-dev"], present: || shell::find("cc").is_some() };
// Reads the headers of PostgreSQL's grammar while it is built. The package of the compiler is the smallest that brings the
// library together with the headers that belong to it, and it has the same name everywhere.
const LIBCLANG: Need = Need { what: "libclang", packages: &["clang"], present: has_libclang };
// The contributed modules come with the server since PostgreSQL 10, and `postgresql-contrib` names both.
const POSTGRES: Need =
    Need { what: "PostgreSQL", packages: &["postgresql", "postgresql-contrib"], present: has_postgres };
const CURL: Need = Need { what: "curl", packages: &["curl"], present: || shell::find("curl").is_some() };
const PYTHON: Need =
    Need { what: "Python with venv", packages: &["python3", "python3-venv"], present: has_python_venv };
const NODE: Need = Need {
    what: "Node.js with npm",
    packages: &["nodejs", "npm"],
    present: || shell::find("node").is_some() && shell::find("npm").is_some(),
};
const SQLSMITH: Need =
    Need { what: "sqlsmith", packages: &["sqlsmith"], present: || shell::find("sqlsmith").is_some() };
const HAPROXY: Need =
    Need { what: "HAProxy", packages: &["haproxy"], present: || shell::find("haproxy").is_some() };
const NGINX: Need =
    Need { what: "nginx", packages: &["nginx-light"], present: || shell::find("nginx").is_some() };
const VARNISH: Need =
    Need { what: "Varnish", packages: &["varnish"], present: || shell::find("varnishd").is_some() };
const PGBOUNCER: Need =
    Need { what: "PgBouncer", packages: &["pgbouncer"], present: || shell::find("pgbouncer").is_some() };
const PGPOOL: Need =
    Need { what: "pgpool-II", packages: &["pgpool2"], present: || shell::find("pgpool").is_some() };
// Of no test: it is the largest of all packages. The tests run a page's script over a stand-in for a browser.
const CHROMIUM: Need =
    Need { what: "Chromium", packages: &["chromium"], present: || shell::find("chromium").is_some() };
const WRK: Need = Need { what: "wrk", packages: &["wrk"], present: || shell::find("wrk").is_some() };
const H2LOAD: Need =
    Need { what: "h2load", packages: &["nghttp2-client"], present: || shell::find("h2load").is_some() };

/// May we install without asking?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    Ask,
    Given,
}

impl Consent {
    pub fn from_flags(flags: &mut Flags) -> Consent {
        if flags.switch("--yes") { Consent::Given } else { Consent::Ask }
    }
}

/// Installs what is missing. Does nothing, quickly, when all is there.
///
/// # Errors
/// When something is missing and cannot be installed; the message says by which line a person can.
pub fn install(needs: &[Need], consent: Consent) -> Result {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    let line = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    eprintln!("    missing: {}", names.join(", "));
    if shell::find("apt-get").is_none() {
        return Err(Failure::new(format!(
            "please install {} with your system's package manager (on Debian: {line})",
            names.join(", ")
        )));
    }
    let mut command = if is_root() {
        Command::new("sh")
    } else {
        ask(consent, &line)?;
        let mut sudo = Command::new("sudo");
        sudo.arg("sh");
        sudo
    };
    // sudo may ask for a password on the terminal; the script itself reads nothing.
    eprintln!("    $ {line}");
    command.args(["-c", INSTALL, "install"]).args(&packages).stdout(Stdio::null());
    if is_root() {
        command.stdin(Stdio::null());
    }
    let status = command.status().map_err(Failure::while_doing("apt-get"))?;
    if !status.success() {
        return Err(Failure::new(format!("installing failed; see above, or try `{line}` yourself")));
    }
    match missing.iter().find(|need| !(need.present)()) {
        None => Ok(()),
        Some(need) => Err(Failure::new(format!("{} is still not found after installing it", need.what))),
    }
}

/// Packages are installed with their services kept still, by the two switches that Debian has for it; both are put
/// back as they were. The package lists are fetched only when a package is not in them, or no longer to be had.
const INSTALL: &str = r#"
set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
shipped=/usr/share/postgresql-common/createcluster.conf
made_policy=; kept=; made_cluster=
restore() {
    if [ -n "$made_policy" ]; then rm -f "$policy"; fi
    if [ -n "$kept" ]; then cp -p "$kept" "$cluster"; rm -f "$kept"; fi
    if [ -n "$made_cluster" ]; then
        if [ -e "$shipped" ]; then cp "$shipped" "$cluster"; else rm -f "$cluster"; fi
    fi
}
trap restore EXIT
trap 'exit 130' INT TERM HUP
if [ ! -e "$policy" ]; then
    made_policy=1
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
if [ -e "$cluster" ]; then
    kept=$(mktemp)
    cp -p "$cluster" "$kept"
else
    made_cluster=1
    mkdir -p /etc/postgresql-common
fi
printf '\ncreate_main_cluster = false\n' >> "$cluster"
known=1
for package in "$@"; do
    apt-cache show "$package" > /dev/null 2>&1 || known=
done
[ -n "$known" ] || apt-get -qq update
install() {
    apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold install "$@"
}
install "$@" || { [ -n "$known" ] && apt-get -qq update && install "$@"; }
"#;

fn ask(consent: Consent, line: &str) -> Result {
    let by_hand = || Failure::new(format!("please run `sudo {line}`, or come back with --yes"));
    if shell::find("sudo").is_none() {
        return Err(Failure::new(format!("please run as root: `{line}`")));
    }
    if consent == Consent::Given {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(by_hand());
    }
    eprint!("    run `sudo {line}`? [y/N] ");
    std::io::stderr().flush().map_err(Failure::while_doing("stderr"))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Failure::while_doing("stdin"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(by_hand()) }
}

/// The arguments before `run` of the test runner: nextest where it is or can be had.
pub fn nextest() -> Option<Vec<String>> {
    let own = house::tools().join("bin/cargo-nextest");
    if shell::find("cargo-nextest").is_none() && !own.is_file() {
        eprintln!("    cargo-nextest is missing: building it once, into {}", house::tools().display());
        let mut install = shell::cargo();
        // Without optimisation it is built in a fraction of the time, and it is not what takes long in a test run.
        install.args(["install", "--quiet", "--locked", "--debug", "--version", NEXTEST_VERSION, "--root"]);
        if let Err(failure) = shell::run(install.arg(house::tools()).arg("cargo-nextest")) {
            eprintln!("    {failure}\n    going on with `cargo test`");
            return None;
        }
    }
    let program = shell::find("cargo-nextest").unwrap_or(own);
    Some(vec![program.display().to_string(), "nextest".to_owned()])
}

pub fn is_root() -> bool {
    shell::read(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

fn has_libclang() -> bool {
    // Debian has a folder for each version, and splits the library from the headers it needs.
    let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let versions =
        entries("/usr/lib".into()).filter(|entry| entry.file_name().as_bytes().starts_with(b"llvm-"));
    let has_library = |lib: &Path| {
        entries(lib.to_owned()).any(|entry| entry.file_name().as_bytes().starts_with(b"libclang"))
    };
    let has_headers = |lib: &Path| {
        entries(lib.join("clang")).any(|version| version.path().join("include/stddef.h").is_file())
    };
    let libraries = versions.map(|version| version.path().join("lib"));
    shell::find("clang").is_some() || libraries.into_iter().any(|lib| has_library(&lib) && has_headers(&lib))
}

fn has_postgres() -> bool {
    // Debian keeps the server's programs out of PATH, a folder for each major version.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin/initdb")).any(|path| path.is_file());
    let trigrams = |share: &Path| share.join("extension/pg_trgm.control").is_file();
    let contributed = || {
        let versions = std::fs::read_dir("/usr/share/postgresql").into_iter().flatten().flatten();
        versions.map(|version| version.path()).any(|share| trigrams(&share))
    };
    (debian && contributed()) || shell::find("initdb").is_some()
}

fn has_python_venv() -> bool {
    // Debian splits `ensurepip` off: `venv` alone imports, and then fails.
    Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}
