//! Apps in Rust, by `Cargo.toml`.

use toml::{Table, Value};

use super::{FolderListing, Guess, is_plain_word};

const DRIVERS: &[&str] = &["tokio-postgres", "deadpool-postgres", "postgres"];

/// These speak to PostgreSQL when one of their features says so.
const DRIVERS_BY_FEATURE: &[&str] = &["sqlx", "diesel", "diesel-async", "sea-orm"];

pub(super) fn guess(folder: &FolderListing) -> Option<Guess> {
    let manifest: Table = toml::from_str(folder.content("Cargo.toml")?).ok()?;
    let mut guess = Guess { postgres_driver: postgres_driver(&manifest), ..Guess::default() };
    guess.recognised.push("Cargo.toml: an app in Rust".to_owned());
    // Whatever the environment says about target folders, the binary is then where `run` looks.
    guess.build = Some("cargo build --release --target-dir target".to_owned());
    match binary(&manifest) {
        Some(name) => {
            let path = format!("target/release/{name}");
            guess.run = Some(path.clone());
            guess.include.push(path);
        }
        None => guess.to_fill_in.push(
            "Cargo.toml names no binary of its own: write its path under target/release into `run` and `include`"
                .to_owned(),
        ),
    }
    Some(guess)
}

/// The binary that `cargo run` would take: `default-run`, otherwise the first, otherwise the package's name.
fn binary(manifest: &Table) -> Option<&str> {
    let package = manifest.get("package")?;
    let first = manifest.get("bin").and_then(|bins| bins.get(0)).and_then(|bin| bin.get("name"));
    let name = package.get("default-run").or(first).or(package.get("name"))?;
    name.as_str().filter(|name| is_plain_word(name))
}

fn postgres_driver(manifest: &Table) -> Option<String> {
    let workspace = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let tables = [manifest.get("dependencies"), workspace];
    tables.into_iter().flatten().filter_map(Value::as_table).find_map(|dependencies| {
        let speaks = |(name, wanted): &(&String, &Value)| {
            DRIVERS.contains(&name.as_str())
                || (DRIVERS_BY_FEATURE.contains(&name.as_str()) && has_postgres_feature(wanted))
        };
        dependencies.iter().find(speaks).map(|(name, _)| name.clone())
    })
}

fn has_postgres_feature(dependency: &Value) -> bool {
    let features = dependency.get("features").and_then(Value::as_array);
    let mut names = features.into_iter().flatten().filter_map(Value::as_str);
    names.any(|feature| feature.contains("postgres"))
}
