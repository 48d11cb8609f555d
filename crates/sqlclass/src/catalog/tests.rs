use super::*;

/// A catalog of hand-made rows.
fn catalog(rows: &[(Query, &[&str])]) -> Catalog {
    let mut builder = Builder::default();
    for (query, columns) in rows {
        builder.row(*query, columns).unwrap();
    }
    builder.finish(1)
}

fn name(name: &str) -> Name<'_> {
    Name { schema: None, name }
}

#[test]
fn what_reaches_a_volatile_function_needs_the_primary_however_far_away() {
    let catalog = catalog(&[
        (Query::Functions, &["1", "public", "writes", "v", "", "false"]),
        (Query::Functions, &["2", "pg_catalog", "random", "v", "", "false"]),
        (Query::Relations, &["10", "public", "near", "v"]),
        (Query::Relations, &["11", "public", "far", "v"]),
        (Query::Relations, &["12", "public", "around", "v"]),
        (Query::Relations, &["13", "public", "harmless", "v"]),
        (Query::References, &["r", "10", "f", "1"]),
        (Query::References, &["r", "11", "r", "12"]),
        (Query::References, &["r", "12", "r", "11"]),
        (Query::References, &["r", "12", "r", "10"]),
        (Query::References, &["r", "13", "f", "2"]),
    ]);
    let path = SearchPath::of(["public"]);
    let place = |relation| catalog.relation(name(relation), &path);
    for relation in ["near", "far", "around"] {
        assert_eq!(place(relation), Some(Place::Primary), "{relation}");
    }
    assert_eq!(place("harmless"), Some(Place::Anywhere));
    assert_eq!(place("unheard"), None);
    assert_eq!(catalog.implicit(), Place::Anywhere);
}

#[test]
fn an_implicit_cast_by_a_volatile_function_can_run_anywhere() {
    let rows: &[(Query, &[&str])] = &[
        (Query::Functions, &["1", "public", "cast", "v", "", "false"]),
        (Query::References, &["i", "0", "f", "1"]),
    ];
    assert_eq!(catalog(rows).implicit(), Place::Primary);
}

#[test]
fn functions_of_extensions_are_known_by_their_extension() {
    let catalog = catalog(&[
        (Query::Functions, &["1", "public", "uuid_generate_v4", "v", "uuid-ossp", "false"]),
        (Query::Functions, &["2", "mine", "uuid_generate_v4", "v", "", "false"]),
        (Query::Functions, &["3", "public", "crosstab", "s", "tablefunc", "false"]),
    ]);
    let place = |schema, function| catalog.function(name(function), &SearchPath::of([schema])).unwrap().place;
    assert_eq!(place("public", "uuid_generate_v4"), Place::Anywhere);
    assert_eq!(place("mine", "uuid_generate_v4"), Place::Primary);
    assert_eq!(place("public", "crosstab"), Place::Primary);
}

#[test]
fn rows_of_another_shape_are_refused() {
    let mut builder = Builder::default();
    let short = RowError::Columns { query: Query::Types, found: 1 };
    assert_eq!(builder.row(Query::Types, &["1"]), Err(short));
    let error = builder.row(Query::Types, &["one", "public", "t"]).unwrap_err();
    assert_eq!(error.to_string(), "`one` in a row of Types is not what stands there");
}
