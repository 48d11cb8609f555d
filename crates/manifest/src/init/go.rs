//! Apps in Go, by `go.mod`.

use super::{FolderListing, Guess, is_plain_word};

const DRIVERS: &[&str] = &["github.com/jackc/pgx", "github.com/lib/pq", "gorm.io/driver/postgres"];

pub(super) fn guess(folder: &FolderListing) -> Option<Guess> {
    let module_file = folder.content("go.mod")?;
    let mut guess = Guess::default();
    guess.recognised.push("go.mod: an app in Go".to_owned());
    let driver = DRIVERS.iter().find(|driver| module_file.contains(*driver));
    guess.postgres_driver = driver.map(|driver| (*driver).to_owned());

    let name = module_file.lines().find_map(|line| line.trim().strip_prefix("module ")).and_then(binary_name);
    let binary = format!("bin/{}", name.unwrap_or("app"));
    let package = match (folder.has("cmd") && !folder.has("main.go"), name) {
        (true, Some(name)) => {
            guess.to_fill_in.push(format!("look at `build`: the main package was taken to be ./cmd/{name}"));
            format!("./cmd/{name}")
        }
        _ => ".".to_owned(),
    };
    guess.build = Some(format!("go build -o {binary} {package}"));
    guess.run = Some(binary.clone());
    guess.include.push(binary);
    Some(guess)
}

/// The last part of a module path that is not its major version.
fn binary_name(module: &str) -> Option<&str> {
    let major_version =
        |part: &str| part.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    let mut parts = module.trim().trim_matches('"').rsplit('/');
    parts.find(|part| !major_version(part)).filter(|part| is_plain_word(part))
}
