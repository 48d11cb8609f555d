//! The lines of a suggested manifest.

use super::Guess;

/// A manifest longer than this is not what `init` promises.
const MAX_LINES: usize = 10;

const DATABASE_HINT: &str = "# For a PostgreSQL database: a [db] table with engine = \"postgres\".";

pub(super) fn manifest(app: &str, guess: &Guess, from_procfile: &[&str]) -> String {
    let mut lines = vec![
        format!("app   = {}", quoted(app)),
        "stage = 1  # 2: two zones, 3: read replicas".to_owned(),
        String::new(),
    ];
    lines.push(match from_procfile {
        [] => "[web]".to_owned(),
        kinds => format!("[web]  # {} from the Procfile", kinds.join(" and ")),
    });
    let include: Vec<String> = guess.include.iter().map(|path| quoted(path)).collect();
    let values = [
        ("build", guess.build.as_deref().map(quoted)),
        ("run", guess.run.as_deref().map(quoted)),
        ("release", guess.release.as_deref().map(quoted)),
        ("include", (!include.is_empty()).then(|| format!("[{}]", include.join(", ")))),
    ];
    lines.extend(values.into_iter().filter_map(|(key, value)| Some(format!("{key:<7} = {}", value?))));
    lines.push(String::new());
    match guess.postgres_driver {
        Some(_) => lines.extend(["[db]".to_owned(), "engine = \"postgres\"".to_owned()]),
        None => lines.push(DATABASE_HINT.to_owned()),
    }
    while lines.len() > MAX_LINES
        && let Some(blank) = lines.iter().position(String::is_empty)
    {
        lines.remove(blank);
    }
    lines.join("\n") + "\n"
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
