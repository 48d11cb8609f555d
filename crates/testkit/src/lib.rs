//! A whole Switchback in a test.
