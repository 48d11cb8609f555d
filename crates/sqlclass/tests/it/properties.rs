//! What must hold for whatever bytes a client sends. Shared by the fuzz targets (`fuzz/`), which find the bytes, and by the
//! tests here, which run over made ones.

use sqlclass::{
    Because, Builder, Catalog, Context, Flag, Folder, Query, Scope, SearchPath, classify, details, fuzzing,
};

/// A text has one key; what follows as white space changes nothing, and literals do not count.
pub fn fold(input: &[u8]) {
    let scope = Scope { epoch: 1, search_path: 1 };
    let fold = |text: &[u8]| Folder::new(5).fold(text, scope);
    let folded = fold(input);
    assert_eq!(folded, fold(input));
    let Some(other) = fuzzing::with_other_literals(input) else { return };
    // Doubling the marks may make it too long to be folded.
    if let (Some(folded), Some(other)) = (folded, fold(&other)) {
        let same_hint = folded.hint == other.hint;
        assert!(folded.key == other.key || !same_hint, "{}", String::from_utf8_lossy(input));
        assert_eq!(fold(&[input, b"\n "].concat()).map(|folded| folded.key), Some(folded.key));
    }
}

/// Texts that differ in their literals have one verdict, unless that says that it depends on them.
pub fn verdict(input: &[u8]) {
    let (catalog, search_path) = (catalog(), SearchPath::of(["public"]));
    let context = Context { catalog: &catalog, search_path: &search_path, hint: None };
    let statement = classify(input, context);
    if let Ok(text) = str::from_utf8(input) {
        details(text);
    }
    let Some(other) = fuzzing::with_other_literals(input) else { return };
    let other_statement = classify(&other, context);
    let is_judged = |because| !matches!(because, Because::Unparsed | Because::TooLong);
    if is_judged(statement.because)
        && is_judged(other_statement.because)
        && !statement.flags.contains(Flag::ByLiteral)
    {
        let texts = [input, &other].map(String::from_utf8_lossy);
        assert_eq!(statement, other_statement, "{texts:?}");
    }
}

/// Enough names for a text to be a read.
fn catalog() -> Catalog {
    let mut builder = Builder::default();
    let mut row = |query, columns: &[&str]| builder.row(query, columns).expect("a row of the query");
    let functions =
        [("lower", "i"), ("count", "i"), ("now", "s"), ("nextval", "v"), ("pg_advisory_lock", "v")];
    for (at, (name, volatility)) in functions.iter().enumerate() {
        row(Query::Functions, &[&at.to_string(), "pg_catalog", name, volatility, "", "false"]);
    }
    for (at, name) in ["t", "people"].iter().enumerate() {
        row(Query::Relations, &[&(100 + at).to_string(), "public", name, "r"]);
    }
    for (at, name) in ["=", "<", ">", "<=", ">=", "+", "-", "*", "||"].iter().enumerate() {
        row(Query::Operators, &[&(200 + at).to_string(), "pg_catalog", name]);
    }
    for (at, name) in ["int4", "text", "bool", "date"].iter().enumerate() {
        row(Query::Types, &[&(300 + at).to_string(), "pg_catalog", name]);
    }
    builder.finish(1)
}
