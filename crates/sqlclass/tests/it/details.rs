//! What a proxy is told of a session's statements.

use sqlclass::{Change, Detail, Discard, Lasts, Setting, details};

fn setting(name: &str, change: Change, lasts: Lasts) -> Detail {
    Detail::Setting(Setting { name: name.to_owned(), change, lasts })
}

fn to(values: &[&str]) -> Change {
    Change::To(values.iter().map(ToString::to_string).collect())
}

#[test]
fn settings_are_told_with_their_values() {
    let check = |sql: &str, name: &str, change: Change| {
        assert_eq!(details(sql), [setting(name, change, Lasts::Session)], "{sql}");
    };
    check("SET Work_Mem = '64MB'", "work_mem", to(&["64MB"]));
    check("SET search_path TO \"$user\", Public", "search_path", to(&["$user", "public"]));
    check("SET extra_float_digits = -1", "extra_float_digits", to(&["-1"]));
    check("SET jit TO off", "jit", to(&["off"]));
    check("SET jit = true", "jit", to(&["true"]));
    check("SET TIME ZONE 'UTC'", "timezone", to(&["UTC"]));
    check("SET TIME ZONE LOCAL", "timezone", Change::Default);
    check("SET TIME ZONE INTERVAL '1' HOUR", "timezone", Change::Unknown);
    check("SET NAMES 'LATIN1'", "client_encoding", to(&["LATIN1"]));
    check("SET ROLE \"Some One\"", "role", to(&["Some One"]));
    check("SET work_mem TO DEFAULT", "work_mem", Change::Default);
    check("RESET work_mem", "work_mem", Change::Default);
    let characteristics = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY";
    check(characteristics, "default_transaction_read_only", to(&["on"]));
}

#[test]
fn settings_of_a_transaction_are_told_apart() {
    let local = details("SET LOCAL statement_timeout = 100");
    assert_eq!(local, [setting("statement_timeout", to(&["100"]), Lasts::Transaction)]);
    assert_eq!(details("SET TRANSACTION READ ONLY"), [], "what it says is in the class");
    assert_eq!(details("RESET ALL"), [Detail::ResetAll]);
}

#[test]
fn set_config_is_told_as_a_setting_wherever_it_stands() {
    let told = details(
        "SELECT set_config('My.Tenant', '7', true) FROM t WHERE set_config('x.y', $1, false) = 'a' \
         AND pg_catalog.set_config(name, 'v', false) = ''",
    );
    let expected = [
        setting("my.tenant", to(&["7"]), Lasts::Transaction),
        setting("x.y", Change::Unknown, Lasts::Session),
        Detail::UnknownSetting,
    ];
    assert_eq!(told, expected);
}

#[test]
fn names_are_told() {
    let name = |name: &str| name.to_owned();
    let check = |sql: &str, expected: &[Detail]| assert_eq!(details(sql), expected, "{sql}");
    check("PREPARE \"Q\" AS SELECT 1", &[Detail::Prepare { name: name("Q") }]);
    check("EXECUTE Q (1)", &[Detail::Execute { name: name("q") }]);
    check("DEALLOCATE q; DEALLOCATE ALL", &[Detail::Deallocate { name: name("q") }, Detail::DeallocateAll]);
    check("LISTEN a", &[Detail::Listen { channel: name("a") }]);
    check("UNLISTEN a; UNLISTEN *", &[Detail::Unlisten { channel: name("a") }, Detail::UnlistenAll]);
    check("NOTIFY a, 'b'", &[Detail::Notify { channel: name("a") }]);
    check("DISCARD PLANS", &[Detail::Discard(Discard::Plans)]);
    check("SELECT 1", &[]);
    check("not SQL", &[]);
}
