//! What `init` makes of folders.

use manifest::Surroundings;
use manifest::init::{Detection, FolderListing, detect};

/// A folder from the names of its files and what is in them.
fn folder(name: &str, files: &[(&str, &str)]) -> FolderListing {
    FolderListing {
        folder_name: name.to_owned(),
        entries: files.iter().map(|(name, _)| (*name).to_owned()).collect(),
        contents: files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        ..FolderListing::default()
    }
}

fn shown(folder: &FolderListing) -> String {
    let Detection { manifest, recognised, to_fill_in } = detect(folder);
    let surroundings = Surroundings { procfile: folder.contents.get("Procfile").cloned() };
    if let Err(problems) = manifest::read("switchback.toml", &manifest, &surroundings) {
        let codes: Vec<_> = problems.iter().map(|problem| problem.code()).collect();
        assert_eq!(codes, ["manifest::not_filled_in"], "{manifest}");
        assert!(!to_fill_in.is_empty(), "{manifest}");
    }
    let said = recognised.iter().map(|line| format!("recognised: {line}\n"));
    let asked = to_fill_in.iter().map(|line| format!("to fill in: {line}\n"));
    std::iter::once(manifest).chain(said).chain(asked).collect()
}

macro_rules! becomes {
    ($($name:ident: $folder:expr;)*) => {
        $(
            #[test]
            fn $name() {
                insta::assert_snapshot!(shown(&$folder));
            }
        )*
    };
}

becomes! {
    an_empty_folder_gives_a_manifest_to_fill_in: folder("My App", &[]);
    a_rust_app_is_built_by_cargo: folder("front page", &[
        ("Cargo.toml", "[package]\nname = \"frontpage\"\n[dependencies]\ntokio-postgres = \"0.7\"\n"),
    ]);
    a_rust_workspace_is_asked_for_its_binary: folder("shop", &[("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n")]);
    a_node_app_starts_by_its_script: folder("chat", &[
        ("package.json", r#"{"scripts": {"build": "tsc", "start": "node dist/main.js"}, "dependencies": {"pg": "8"}}"#),
        ("package-lock.json", ""),
    ]);
    a_node_app_without_dependencies_installs_nothing: folder("shop", &[
        ("package.json", r#"{"scripts": {"start": "node server.js"}}"#),
        ("server.js", ""),
    ]);
    a_flask_app_gets_a_server: folder("guestbook", &[
        ("requirements.txt", "Flask==3.0\npsycopg[binary]>=3\n"),
        ("app.py", ""),
    ]);
    a_fastapi_app_gets_a_server: folder("api", &[
        ("pyproject.toml", "[project]\nname = \"api\"\ndependencies = [\"fastapi>=0.1\", \"uvicorn[standard]\", \"asyncpg\"]\n"),
        ("main.py", ""),
    ]);
    an_app_with_alembic_is_migrated: folder("api", &[
        ("requirements.txt", "fastapi\nuvicorn\nasyncpg\nalembic\n"),
        ("main.py", ""),
        ("alembic.ini", ""),
    ]);
    an_app_whose_migrations_nobody_is_known_to_apply_is_asked_for_the_command: folder("shop", &[
        ("Cargo.toml", "[package]\nname = \"shop\"\n[dependencies]\npostgres = \"0.19\"\n"),
        ("migrations", ""),
    ]);
    a_django_app_is_migrated: folder("blog", &[
        ("requirements.txt", "django\ngunicorn\npsycopg2-binary\n"),
        ("manage.py", "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')"),
    ]);
    a_plain_python_script_is_run: folder("guestbook", &[("requirements.txt", "pg8000==1.31.6\n"), ("app.py", "")]);
    a_go_app_is_built_into_bin: folder("short", &[
        ("go.mod", "module example.com/team/short/v2\n\nrequire github.com/jackc/pgx/v5 v5.0.0\n"),
        ("main.go", ""),
    ]);
    a_procfile_wins_over_what_is_guessed: folder("blog", &[
        ("Procfile", "web: bin/serve\nrelease: bin/migrate\nworker: bin/work\n"),
        ("package.json", r#"{"scripts": {"start": "x"}}"#),
        ("migrations", ""),
    ]);
    a_folder_named_like_a_reserved_database_gets_another_name: folder("postgres", &[
        ("requirements.txt", "asyncpg\n"),
        ("main.py", ""),
    ]);
}
