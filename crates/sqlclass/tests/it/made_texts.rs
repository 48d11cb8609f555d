//! The properties, over the statements of the table and over made texts.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::{properties, table};

#[test]
fn the_properties_hold_for_every_statement_of_the_table() {
    for row in table::rows() {
        properties::fold(row.sql.as_bytes());
        properties::verdict(row.sql.as_bytes());
    }
}

/// Pieces that make something like SQL, and often SQL itself.
const PIECES: &[&str] = &[
    "SELECT ",
    "1",
    " FROM t",
    " WHERE ",
    "name",
    "=",
    "'a'",
    "(",
    ")",
    ",",
    ";",
    "lower(",
    "nextval('s')",
    "E'\\''",
    "$$x$$",
    "-- c\n",
    "/* c */",
    "::int",
    "+",
    " AND ",
    "WITH t AS (",
    "INSERT INTO t VALUES (",
    "$1",
    "\"t\"",
    "'",
    "\"",
    "EXPLAIN ",
    "(ANALYZE 0) ",
    "SET a = ",
    "BEGIN",
    " ORDER BY ",
    "current_setting('port')",
    "1.5",
    "b'1'",
    "\\",
    "0x1",
    "set_config('a', 'b', false)",
    "U&\"a\"",
    " LIMIT ",
    "*",
    "COPY t TO ",
    "STDOUT",
    "DECLARE c CURSOR FOR ",
];

proptest! {
    #[test]
    fn the_properties_hold_for_texts_of_pieces(pieces in vec(select(PIECES), 0..12)) {
        let text = pieces.concat();
        properties::fold(text.as_bytes());
        properties::verdict(text.as_bytes());
    }

    #[test]
    fn the_properties_hold_for_bytes(bytes in vec(any::<u8>(), 0..100)) {
        properties::fold(&bytes);
        properties::verdict(&bytes);
    }
}
