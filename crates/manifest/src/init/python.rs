//! Apps in Python, by `requirements.txt` or `pyproject.toml`.

use toml::{Table, Value};

use super::{FolderListing, Guess, is_plain_word};

const DRIVERS: &[&str] =
    &["psycopg", "psycopg2", "psycopg2-binary", "psycopg-binary", "asyncpg", "pg8000", "aiopg"];

pub(super) fn guess(folder: &FolderListing) -> Option<Guess> {
    let packages = packages(folder)?;
    let has = |name: &str| packages.iter().any(|package| package == name);
    let mut guess = Guess {
        include: vec![".venv".to_owned()],
        postgres_driver: DRIVERS.iter().find(|driver| has(driver)).map(|driver| (*driver).to_owned()),
        ..Guess::default()
    };

    // Scripts of a virtual environment name the folder it was made in; `python -m` works in every copy of it.
    let python = ".venv/bin/python";
    let gunicorn = |app: &str| format!("{python} -m gunicorn --bind 127.0.0.1:$PORT {app}");
    let mut server = None;
    if has("django") {
        guess.recognised.push("a Django app in Python".to_owned());
        server = Some("gunicorn");
        guess.release = Some(format!("{python} manage.py migrate --noinput"));
        match django_project(folder) {
            Some(project) => guess.run = Some(gunicorn(&format!("{project}.wsgi"))),
            None => {
                guess.run = Some(gunicorn("project.wsgi"));
                guess
                    .to_fill_in
                    .push("write the name of the Django project in place of `project` into `run`".to_owned());
            }
        }
    } else if has("fastapi") || has("starlette") {
        guess.recognised.push("a FastAPI or Starlette app in Python".to_owned());
        server = Some("uvicorn");
        let module = module(folder, &["main", "app"], &mut guess);
        guess.run = Some(format!("{python} -m uvicorn --host 127.0.0.1 --port $PORT {module}:app"));
    } else if has("flask") {
        guess.recognised.push("a Flask app in Python".to_owned());
        server = Some("gunicorn");
        let module = module(folder, &["app", "wsgi", "main"], &mut guess);
        guess.run = Some(gunicorn(&format!("{module}:app")));
    } else {
        guess.recognised.push("an app in Python".to_owned());
        let script = ["app.py", "main.py", "server.py"].into_iter().find(|script| folder.has(script));
        guess.run = script.map(|script| format!("{python} {script}"));
    }
    // A Django app has its own.
    if guess.release.is_none() && has("alembic") && folder.has("alembic.ini") {
        guess.release = Some(format!("{python} -m alembic upgrade head"));
    }
    let listed = if folder.has("requirements.txt") { "-r requirements.txt" } else { "." };
    let missing = server.filter(|server| !has(server)).map(|server| format!(" {server}")).unwrap_or_default();
    guess.build = Some(format!("python3 -m venv .venv && .venv/bin/pip install -q {listed}{missing}"));
    Some(guess)
}

/// The first of the usual modules that exists; the first of all when none does.
fn module(folder: &FolderListing, usual: &[&'static str], guess: &mut Guess) -> &'static str {
    let found = usual.iter().find(|module| folder.has(&format!("{module}.py")));
    if found.is_none() {
        guess
            .to_fill_in
            .push("look at `run`: the module with the app was not found and is a guess".to_owned());
    }
    found.or(usual.first()).copied().unwrap_or("app")
}

/// What `manage.py` says before `.settings`.
fn django_project(folder: &FolderListing) -> Option<&str> {
    let (_, after) = folder.content("manage.py")?.split_once("DJANGO_SETTINGS_MODULE")?;
    let settings = after.split(['"', '\'']).find(|part| part.contains(".settings"))?;
    settings.split_once(".settings").map(|(project, _)| project).filter(|project| is_plain_word(project))
}

/// Names of the packages the app asks for. `None` when it is no Python app.
fn packages(folder: &FolderListing) -> Option<Vec<String>> {
    let requirements = folder.content("requirements.txt");
    let project = folder.content("pyproject.toml").and_then(|text| toml::from_str::<Table>(text).ok());
    if requirements.is_none() && project.is_none() {
        return None;
    }
    let mut names: Vec<String> =
        requirements.into_iter().flat_map(str::lines).filter_map(package_name).collect();
    if let Some(project) = project {
        let standard = project.get("project").and_then(|project| project.get("dependencies"));
        let lines = standard.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        names.extend(lines.filter_map(package_name));
        let poetry = project.get("tool").and_then(|tool| tool.get("poetry")?.get("dependencies")?.as_table());
        names.extend(poetry.into_iter().flat_map(Table::keys).filter_map(|name| package_name(name)));
    }
    Some(names)
}

/// `psycopg2-binary` of `Psycopg2_binary[pool]>=2.9 ; python_version > "3"`.
fn package_name(line: &str) -> Option<String> {
    let line = line.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = &line[..line.find(|c| !plain(c)).unwrap_or(line.len())];
    let begins_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    begins_well.then(|| name.to_ascii_lowercase().replace(['_', '.'], "-"))
}
