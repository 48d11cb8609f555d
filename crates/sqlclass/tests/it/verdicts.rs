//! Every statement of the table gets its verdict; what we call a read runs on a hot standby, and says there what it says
//! on the primary.

use sqlclass::{
    Catalog, Class, Classifier, Context, FINGERPRINT, Flag, MAX_TEXT, SearchPath, Session, Source, classify,
    classify_prepared,
};

use crate::servers::{Server, Servers};
use crate::table::{self, Answers, Row};

const SCHEMA: &str = include_str!("schema.sql");

/// One pair of servers for all of it: starting them takes longer than asking.
#[test]
fn every_statement_gets_its_verdict_and_reads_run_on_a_standby() {
    let servers = Servers::start(SCHEMA);
    let refusal = servers.ask(Server::Standby, "public", "SELECT volatile_one(1)").unwrap_err();
    assert!(refusal.contains("25006"), "a standby refuses writes: {refusal}");
    let catalog = servers.catalog();
    let rows = table::rows();
    assert!(rows.len() >= 200);

    let mut classifier = Classifier::new(5);
    let mut wrong = Vec::new();
    for row in &rows {
        let statement = judge(&mut classifier, &catalog, row);
        let words = table::words(statement);
        if words != row.expected {
            wrong.push(format!("line {}: {}\n  is {words:?}\n  not {:?}", row.line, row.sql, row.expected));
        }
        if statement.class == Class::Read {
            wrong.extend(differs_on_the_standby(&servers, row));
        }
    }
    wrong.extend(built_ins_that_differ(&servers, &catalog));
    wrong.extend(changes_that_go_unnoticed(&servers));
    assert!(wrong.is_empty(), "\n{}\n{} of {} are wrong", wrong.join("\n"), wrong.len(), rows.len());
}

fn judge(classifier: &mut Classifier, catalog: &Catalog, row: &Row) -> sqlclass::Statement {
    let search_path = &row.path();
    let session = Session { catalog, search_path, search_path_id: row.search_path_id };
    let statement = classifier.classify(row.sql.as_bytes(), session).statement;
    let again = classifier.classify(row.sql.as_bytes(), session);
    assert_eq!(again.statement, statement, "from memory: {}", row.sql);
    let is_remembered = !statement.flags.contains(Flag::ByLiteral);
    assert_eq!(again.source == Source::Cache, is_remembered, "{}", row.sql);
    statement
}

fn differs_on_the_standby(servers: &Servers, row: &Row) -> Option<String> {
    let mut sql = row.sql.replace("$1", "NULL");
    if sql.starts_with("DECLARE") {
        sql = format!("BEGIN READ ONLY; {sql}; FETCH ALL FROM c; COMMIT");
    }
    let ask = |server| servers.ask(server, &row.search_path, &sql);
    match ask(Server::Standby) {
        Err(error) => Some(format!("line {}: the standby refuses {sql}\n  {error}", row.line)),
        Ok(_) if row.answers == Answers::New => None,
        standby => {
            let primary = ask(Server::Primary);
            let says = format!("line {}: {sql}\n  standby {standby:?}\n  primary {primary:?}", row.line);
            (primary != standby).then_some(says)
        }
    }
}

/// Every built-in that takes no argument, and that we let a replica call.
fn built_ins_that_differ(servers: &Servers, catalog: &Catalog) -> Vec<String> {
    const SAY_SOMETHING_NEW: &[&str] = &["now", "timestamp", "timeofday", "random"];
    let search_path = SearchPath::of(["public"]);
    let context = Context { catalog, search_path: &search_path, hint: None };
    let names = servers.rows(
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND pronargs = 0 \
         AND prokind = 'f' ORDER BY 1",
    );
    let calls = names.iter().map(|row| format!("SELECT * FROM pg_catalog.\"{}\"()", row[0]));
    let reads = calls.filter(|call| classify(call.as_bytes(), context).class == Class::Read);
    let differ = reads.filter_map(|call| {
        let ask = |server| servers.ask(server, "public", &call);
        let (standby, primary) = (ask(Server::Standby), ask(Server::Primary));
        let is_new = SAY_SOMETHING_NEW.iter().any(|name| call.contains(name));
        let differs = if is_new { standby.is_err() } else { standby != primary };
        differs.then(|| format!("{call}\n  standby {standby:?}\n  primary {primary:?}"))
    });
    differ.collect()
}

/// The fingerprint changes with what a catalog is read from, and with nothing else.
fn changes_that_go_unnoticed(servers: &Servers) -> Vec<String> {
    const NO_CHANGE: &[&str] = &[
        "CREATE TEMP TABLE x (a int); CREATE TEMP VIEW y AS SELECT volatile_one(1)",
        "INSERT INTO t (id) VALUES (100)",
        "VACUUM ANALYZE t",
    ];
    const CHANGES: &[&str] = &[
        "CREATE TABLE new (a int)",
        "ALTER TABLE new SET UNLOGGED",
        "ALTER TABLE new RENAME TO old",
        "ALTER FUNCTION stable_one(int) VOLATILE",
        "CREATE OR REPLACE VIEW v_plain AS SELECT id, name FROM t WHERE volatile_one(id) > 0",
        "CREATE POLICY p ON t USING (true)",
        "ALTER POLICY p ON t USING (volatile_one(1) = 1)",
        "ALTER DOMAIN positive ADD CHECK (is_fine_volatile(VALUE))",
        "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)",
        "CREATE SCHEMA new",
        "DROP FUNCTION stable_rows(int)",
    ];
    let fingerprint = || servers.rows(FINGERPRINT);
    let changes = |sql: &str| {
        let before = fingerprint();
        servers.ask(Server::Primary, "public", sql).unwrap();
        fingerprint() != before
    };
    let noticed = NO_CHANGE.iter().filter(|sql| changes(sql)).map(|sql| format!("no change: {sql}"));
    let unnoticed = CHANGES.iter().filter(|sql| !changes(sql)).map(|sql| format!("unnoticed: {sql}"));
    noticed.chain(unnoticed).collect()
}

/// The class of a text where no name is known.
fn class(sql: &str) -> Class {
    let (catalog, search_path) = (Catalog::empty(), SearchPath::of(["public"]));
    classify(sql.as_bytes(), Context { catalog: &catalog, search_path: &search_path, hint: None }).class
}

#[test]
fn without_a_catalog_nothing_that_has_a_name_is_a_read() {
    assert_eq!(class("SELECT 1"), Class::Read);
    for sql in ["SELECT id FROM t", "SELECT lower('a')", "SELECT 1 + 1", "SELECT 1::int", "SELECT now()"] {
        assert_eq!(class(sql), Class::Primary, "{sql}");
    }
}

#[test]
fn what_a_prepared_statement_will_do_is_said_beforehand() {
    let (catalog, search_path) = (Catalog::empty(), SearchPath::of(["public"]));
    let context = Context { catalog: &catalog, search_path: &search_path, hint: None };
    let class = |sql: &str| classify_prepared(sql.as_bytes(), context).map(|statement| statement.class);
    assert_eq!(class("PREPARE q AS SELECT 1"), Some(Class::Read));
    assert_eq!(class("PREPARE q AS DELETE FROM t"), Some(Class::Primary));
    assert_eq!(class("SELECT 1"), None);
}

/// The parser gives trees as deep as a text is long. Following them must not cost a stack.
#[test]
fn deep_statements_are_for_the_primary() {
    let deep = |head: &str, piece: &str, tail: &str, times: usize| {
        let text = [head, &piece.repeat(times), "1", &tail.repeat(times)].concat();
        assert!(text.len() <= MAX_TEXT);
        text
    };
    let texts = [
        deep("SELECT ", "NOT ", "", 4000),
        deep("SELECT ", "@ ", "", 8000),
        deep("SELECT 1", "+1", "", 8000),
        deep("SELECT ", "(SELECT ", ")", 1500),
        deep("SELECT 1", " UNION SELECT 1", "", 1000),
        deep("SELECT ", "f(", ")", 4000),
        deep("SELECT ", "CASE WHEN true THEN ", " END", 600),
    ];
    // Half of what a thread of the runtime has.
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    let judged = small.spawn(move || {
        texts.iter().for_each(|text| drop(sqlclass::details(text)));
        texts.iter().map(|text| class(text)).collect::<Vec<_>>()
    });
    let classes = judged.unwrap().join().unwrap();
    assert!(classes.iter().all(|class| *class == Class::Primary), "{classes:?}");
}

#[test]
fn a_text_too_long_to_be_looked_at_is_for_the_primary() {
    assert_eq!(class(&format!("SELECT 1{}", " ".repeat(MAX_TEXT))), Class::Primary);
}
