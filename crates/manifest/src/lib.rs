//! switchback.toml to a resource graph and its problems.
