//! The tests' own tools, tested: what stands for every app, and what cleans up after every test.

mod app;
mod leftovers;
