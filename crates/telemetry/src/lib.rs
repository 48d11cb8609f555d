//! Log records, metrics and their exposition.
