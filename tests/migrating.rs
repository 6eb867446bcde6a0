//! The page for those who come from another supervisor names only what there is.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use supervise::unit::keys::{KEYS, Table};

#[test]
fn every_key_that_the_page_names_is_a_key() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/migrating.md")).unwrap();
    let mut named = 0;
    let mut wrong = Vec::new();
    for part in page.split('`').skip(1).step_by(2) {
        // `[table] key`; the first words of other programs' tables have a colon or stand alone.
        let Some((table, key)) = part.strip_prefix('[').and_then(|part| part.split_once("] ")) else {
            continue;
        };
        let table = table.strip_suffix(".NAME").unwrap_or(table);
        let table = if table == "top" { "" } else { table };
        if table == "include" {
            continue; // supervisord's
        }
        named += 1;
        let known =
            |of: Table| of.name() == table && KEYS.iter().any(|one| one.table == of && one.name == key);
        if !Table::ALL.into_iter().any(known) {
            wrong.push(part);
        }
    }
    assert!(wrong.is_empty(), "no such keys: {wrong:?}");
    assert!(named > 120, "{named} keys: is the page still read?");
}
