//! Apps in JavaScript or TypeScript, by `package.json`.

use serde_json::Value;

use super::{FolderListing, Guess, is_plain_word};

const DRIVERS: &[&str] = &["pg", "postgres", "pg-promise", "prisma", "@prisma/client"];

/// Lock file, how to install, how to run a script.
const MANAGERS: [(&str, &str, &str); 4] = [
    ("pnpm-lock.yaml", "pnpm install --frozen-lockfile", "pnpm"),
    ("yarn.lock", "yarn install --frozen-lockfile", "yarn"),
    ("package-lock.json", "npm ci", "npm"),
    ("package.json", "npm install", "npm"),
];

/// What frameworks build, by the dependency that builds it.
const OUTPUTS: [(&str, &str); 2] = [("next", ".next"), ("nuxt", ".output")];

pub(super) fn guess(folder: &FolderListing) -> Option<Guess> {
    let package: Value = serde_json::from_str(folder.content("package.json")?).ok()?;
    let (_, install, manager) = MANAGERS.into_iter().find(|(lock, ..)| folder.has(lock))?;
    let mut guess = Guess::default();
    guess.recognised.push(format!("package.json: an app for Node, with {manager}"));
    let has_script = |name: &str| package.get("scripts").and_then(|scripts| scripts.get(name)).is_some();
    let depends_on = |name: &str| {
        ["dependencies", "devDependencies"]
            .iter()
            .any(|kind| package.get(kind).is_some_and(|all| all.get(name).is_some()))
    };
    let kinds = ["dependencies", "devDependencies"].map(|kind| package.get(kind).and_then(Value::as_object));
    let installs = kinds.into_iter().flatten().any(|all| !all.is_empty());
    let steps =
        [installs.then(|| install.to_owned()), has_script("build").then(|| format!("{manager} run build"))];
    let steps: Vec<String> = steps.into_iter().flatten().collect();
    guess.build = (!steps.is_empty()).then(|| steps.join(" && "));
    guess.run = match has_script("start") {
        true => Some(format!("{manager} start")),
        false => main_file(folder, &package).map(|file| format!("node {file}")),
    };
    // Without dependencies npm makes no such folder, and a release that asks for it would be refused.
    guess.include.extend(installs.then(|| "node_modules".to_owned()));
    let made = OUTPUTS.iter().filter(|(framework, _)| depends_on(framework)).map(|(_, folder)| *folder);
    let ignored = ["dist", "build"]
        .into_iter()
        .filter(|name| has_script("build") && folder.git_ignored.contains(*name));
    guess.include.extend(made.chain(ignored).map(str::to_owned));
    if has_script("build") && guess.include.len() == usize::from(installs) {
        guess.to_fill_in.push("add to `include` what the build makes, if git ignores it".to_owned());
    }
    guess.postgres_driver =
        DRIVERS.iter().find(|driver| depends_on(driver)).map(|driver| (*driver).to_owned());
    if depends_on("prisma") && folder.has("prisma") {
        guess.release = Some("npx prisma migrate deploy".to_owned());
    }
    Some(guess)
}

fn main_file(folder: &FolderListing, package: &Value) -> Option<String> {
    let named = package.get("main").and_then(Value::as_str).filter(|file| is_plain_word(file));
    let usual = || ["server.js", "index.js", "app.js"].into_iter().find(|file| folder.has(file));
    named.or_else(usual).map(str::to_owned)
}
