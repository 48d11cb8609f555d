use super::*;

fn folded(sql: &str) -> Option<String> {
    folded_text(sql.as_bytes()).map(|text| String::from_utf8(text).expect("UTF-8 stays UTF-8"))
}

#[test]
fn a_folded_text_can_be_read() {
    let check = |sql: &str, expected: &str| assert_eq!(folded(sql).as_deref(), Some(expected), "{sql}");
    check("SELECT  Name, 'x''y' FROM T WHERE id=10 -- c", "select name, ' from t where id=0");
    check("select E'\\'' , $1, $a$ $ $a$,\"A\"\"b\"", "select e' , $1, ',\"A\"\"b\"");
    check("a+-1.5e3/2 -/**/-3", "a+-0/0 - -0");
    check("/* a */", "");
}

#[test]
fn a_text_that_cannot_be_told_is_not_folded() {
    for sql in [
        "'a", "$a$ b", "$a b", "/* a", "\"a", "1a", "0x1", "1.2.3", "'a' 'b'", "U&\"a\"", "a\0b", "$", "E'\\",
    ] {
        assert_eq!(folded(sql), None, "{sql}");
    }
}
