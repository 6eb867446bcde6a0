//! The man pages are what the tables print. `UPDATE=1 cargo test --test manual` writes them anew.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::Path;

fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, page).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "{name} is not what the tables print: `UPDATE=1 cargo test --test manual`");
}

#[test]
fn the_page_of_the_commands() {
    compare("supervise.1", &supervise::cli::manual());
}

#[test]
fn the_page_of_the_administrator() {
    compare("supervise.8", &supervise::cli::administration());
}

#[test]
fn the_page_of_unit_files() {
    compare("supervise-unit.5", &supervise::unit::manual::manual());
}
