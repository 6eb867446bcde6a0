//! The rules of the house that a machine can check. Each failure lists every place at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

#[path = "tidy/houses.rs"]
mod houses;
#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use houses::{BEYOND, HOUSES, House, PURE_NEVER};
use source::{Source, block_end, files, root, sources};

/// Most lines of a file.
const FILE_LINES: usize = 600;
/// Most lines of a function, from its name to its closing brace.
const FUNCTION_LINES: usize = 70;
/// Lines above an unsafe block in which its reason stands.
const REASON_LINES: usize = 12;

/// Fails with every offence on a line of its own.
fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

fn house(module: &str) -> Option<&'static House> {
    HOUSES.iter().find(|house| house.name == module)
}

/// The number of the line in which a byte of the text is.
fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where a word begins, each time it stands alone.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |one: char| one.is_alphanumeric() || one == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !text[..*at].chars().next_back().is_some_and(part)
            && !text[*at + word.len()..].chars().next().is_some_and(part)
    })
}

#[test]
fn every_file_of_a_module_says_first_which_kind_it_is() {
    let mut offences = Vec::new();
    for file in sources("src") {
        let Some(module) = file.module() else { continue };
        let Some(house) = house(module) else {
            offences.push(format!("{}: `{module}` is not in tests/tidy/houses.rs", file.path));
            continue;
        };
        let wanted = format!("//! {}. ", house.kind);
        // A part of any module may be pure, and then keeps to it.
        if !file.shipped.is_empty() && !file.text.starts_with(&wanted) && !file.is_pure() {
            offences.push(format!("{}:1: begins with something else than `{wanted}`", file.path));
        }
    }
    none(offences);
}

#[test]
fn the_map_of_the_house_is_the_table() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rows: BTreeSet<String> =
        HOUSES.iter().map(|one| format!("[`{}`] | {} |", one.name, one.kind)).collect();
    let drawn: BTreeSet<String> = map
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .map(|row| format!("[`{} |", row.rsplit_once(" | ").unwrap().0))
        .collect();
    assert_eq!(drawn, rows);
}

/// What follows each `crate::` of the code: `wire::keeper`, or `sys` where a list of its parts follows.
fn uses(code: &str) -> Vec<(usize, String)> {
    let name =
        |text: &str| text.chars().take_while(|one| one.is_alphanumeric() || *one == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        let module = name(rest);
        let below = rest[module.len()..].strip_prefix("::").map(name).unwrap_or_default();
        found.push((at, if below.is_empty() { module } else { format!("{module}::{below}") }));
    }
    found
}

fn covers(allowed: &str, used: &str) -> bool {
    used == allowed || used.strip_prefix(allowed).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn nobody_uses_what_the_table_does_not_give_them() {
    let mut offences = Vec::new();
    let mut needed = BTreeSet::new();
    for file in sources("src") {
        let Some(house) = file.module().and_then(house) else { continue };
        for (at, used) in uses(&file.shipped) {
            if covers(house.name, &used) || house.uses.iter().any(|one| covers(one, &used)) {
                continue;
            }
            match BEYOND.iter().position(|one| one.file == file.path && covers(one.uses, &used)) {
                Some(reason) => drop(needed.insert(reason)),
                None => offences.push(format!(
                    "{}:{}: {} may not use `{used}`",
                    file.path,
                    line(&file.shipped, at),
                    house.name
                )),
            }
        }
    }
    for (at, beyond) in BEYOND.iter().enumerate() {
        assert!(beyond.why.len() > 5);
        if !needed.contains(&at) {
            offences.push(format!(
                "tests/tidy/houses.rs: {} does not use `{}` any more",
                beyond.file, beyond.uses
            ));
        }
    }
    none(offences);
}

#[test]
fn nobody_calls_a_crate_that_the_table_does_not_give_them() {
    let crates = direct();
    let mut offences = Vec::new();
    for file in sources("src") {
        let Some(house) = file.module().and_then(house) else { continue };
        for name in crates.iter().filter(|name| !house.crates.contains(&name.as_str())) {
            for at in
                words(&file.shipped, name).filter(|at| file.shipped[at + name.len()..].starts_with("::"))
            {
                // A path that merely has such a part, as `wire::log::…` would.
                if !file.shipped[..at].ends_with("::") {
                    offences.push(format!("{}:{}: `{name}`", file.path, line(&file.shipped, at)));
                }
            }
        }
        for never in PURE_NEVER.iter().filter(|_| file.is_pure()) {
            if let Some(at) = file.shipped.find(never) {
                offences.push(format!(
                    "{}:{}: `{never}` in a pure module",
                    file.path,
                    line(&file.shipped, at)
                ));
            }
        }
    }
    none(offences);
}

#[test]
fn unsafe_is_below_sys_and_says_on_what_it_relies() {
    let mut offences = Vec::new();
    for file in sources("src") {
        let lines: Vec<&str> = file.text.lines().collect();
        for at in words(&file.code, "unsafe") {
            let number = line(&file.code, at);
            if !file.path.starts_with("src/sys/") {
                offences.push(format!("{}:{number}: unsafe code outside of src/sys", file.path));
                continue;
            }
            let is_block = file.code[at..].trim_start_matches("unsafe").trim_start().starts_with('{');
            let above = &lines[number.saturating_sub(REASON_LINES + 1)..number];
            if is_block && !above.iter().any(|line| line.contains("// SAFETY: ")) {
                offences.push(format!("{}:{number}: no `// SAFETY:` above", file.path));
            }
        }
    }
    none(offences);
}

#[test]
fn files_and_functions_are_short() {
    let mut offences = Vec::new();
    for file in sources("src").iter().chain(&sources("tests")).chain(&sources("benches")) {
        let length = file.text.lines().count();
        if length >= FILE_LINES {
            offences.push(format!("{}: {length} lines", file.path));
        }
        for at in words(&file.code, "fn") {
            let rest = &file.code[at..];
            let is_named = rest[2..].trim_start().starts_with(|one: char| one.is_alphabetic() || one == '_');
            let end = block_end(&file.code, at);
            let length = file.code[at..end].matches('\n').count() + 1;
            if is_named && length > FUNCTION_LINES {
                let name = rest.split(['(', '<']).next().unwrap();
                offences.push(format!("{}:{}: `{name}` has {length} lines", file.path, line(&file.code, at)));
            }
        }
    }
    none(offences);
}

#[test]
fn policy_writes_every_case_out() {
    let mut offences = Vec::new();
    for file in sources("src/policy") {
        for (at, _) in file.shipped.match_indices("_ =>").chain(file.shipped.match_indices("_ if ")) {
            let before = file.shipped[..at].chars().next_back().unwrap_or(' ');
            if before.is_whitespace() {
                offences.push(format!("{}:{}: a `_` arm", file.path, line(&file.shipped, at)));
            }
        }
    }
    none(offences);
}

#[test]
fn nothing_waits_by_sleeping() {
    let mut offences = Vec::new();
    for file in sources("src").iter().chain(&sources("tests")).chain(&sources("benches")) {
        for (at, _) in file.code.match_indices("thread::sleep") {
            offences.push(format!("{}:{}: wait for the event itself", file.path, line(&file.code, at)));
        }
    }
    none(offences);
}

/// Whoever chooses tests by `user_` or leaves out those with `root_` gets what the first word of a name says.
#[test]
fn nobody_ends_because_nobody_hears_him() {
    // Those macros panic where the descriptor cannot be written, and a panic is the end of a process.
    let mut offences = Vec::new();
    for file in sources("src") {
        for word in ["print", "println", "eprint", "eprintln"] {
            let code = &file.shipped;
            let calls = words(code, word).filter(|at| code[at + word.len()..].starts_with('!'));
            offences.extend(calls.map(|at| format!("{}:{}: `{word}!`", file.path, line(code, at))));
        }
    }
    none(offences);
}

#[test]
fn names_of_tests_say_who_runs_them_once() {
    let mut offences = Vec::new();
    for source in sources("tests").iter().chain(&sources("src")) {
        for at in words(&source.code, "fn") {
            let name: String = source.code[at..]
                .trim_start_matches("fn")
                .trim_start()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let both = [("root_", "user_"), ("user_", "root_")];
            if both.iter().any(|(first, other)| name.starts_with(first) && name.contains(other)) {
                offences.push(format!("{}:{}: {name}", source.path, line(&source.code, at)));
            }
        }
    }
    none(offences);
}

#[test]
fn nothing_is_left_for_later_or_from_where_it_was_written() {
    // In parts, so that this file does not offend.
    let marks = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    let places = [concat!("/wo", "rk/"), concat!("/tmp", "/wt"), concat!("/tmp", "/brief")];
    let mut offences = Vec::new();
    for path in ["src", "units", "tests", "benches", "man", "docs", "fuzz", ".ci"]
        .iter()
        .flat_map(|folder| files(&root().join(folder)))
        .chain(top_level())
    {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let marked = marks.iter().flat_map(|mark| words(&text, mark).map(move |at| (at, *mark)));
        let placed = places.iter().flat_map(|place| text.match_indices(place));
        for (at, word) in marked.chain(placed) {
            offences.push(format!("{}:{}: `{word}`", path.display(), line(&text, at)));
        }
    }
    none(offences);
}

fn top_level() -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    // In a work tree `.git` is a file that says where the rest is.
    entries.filter(|path| path.is_file() && !path.ends_with(".git")).collect()
}

#[test]
fn the_top_level_is_what_convention_puts_there() {
    for name in [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "deny.toml",
        "clippy.toml",
        "rustfmt.toml",
        ".ci/run",
        "docs/architecture.md",
        "man/supervise.1",
        "man/supervise.8",
        "man/supervise-unit.5",
        "units/reference.toml",
        "units/hello/try",
        "src",
        "tests",
    ] {
        assert!(root().join(name).exists(), "{name} is missing");
    }
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    assert!(!ignored.contains("Cargo.lock"), "the lock file belongs to the program");
    if root().join(".git").exists() {
        let tracked = Command::new("git")
            .args(["-c", "safe.directory=*", "ls-files", "--error-unmatch", "Cargo.lock"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(tracked.status.success(), "Cargo.lock is not tracked");
    }
}

/// The crates of the manifest, as code names them.
fn direct() -> BTreeSet<String> {
    linked(&["--depth", "1"]).iter().map(|name| name.replace('-', "_")).collect()
}

#[test]
fn no_crate_is_asked_for_that_nobody_calls() {
    let given: BTreeSet<String> =
        HOUSES.iter().flat_map(|one| one.crates).map(|name| (*name).to_owned()).collect();
    assert_eq!(direct(), given, "the manifest against tests/tidy/houses.rs");
    let code: String = sources("src").into_iter().map(|file| file.shipped).collect();
    let called = |name: &String| words(&code, name).any(|at| code[at + name.len()..].starts_with("::"));
    none(direct().into_iter().filter(|name| !called(name)).collect());
}

/// The crates linked into the program, which starts as root: the names that `cargo tree` prints.
fn linked(more: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--format", "{p}", "--target", "x86_64-unknown-linux-gnu"])
        .args(more)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "supervise").map(str::to_owned).collect()
}

#[test]
fn every_crate_linked_into_what_starts_as_root_is_explained() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let section = text.split("\n## ").find(|part| part.starts_with("Crates")).expect("a section `Crates`");
    let mut explained = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells[2].len() > 10, "no reason in: {row}");
        explained.extend(cells[1].split(", ").map(|name| name.trim_matches('`').to_owned()));
    }
    assert_eq!(explained, linked(&[]));
}

#[test]
fn code_is_told_from_comments_strings_and_tests() {
    let text =
        "a // unsafe\n/* fn */ b \"un\\\"safe\" 'x' &'a r#\"fn \" fn\"# c\n#[cfg(test)]\nmod tests { d }\ne";
    let code = source::blank(text);
    let kept: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(kept.join(" "), "a b &'a c #[cfg(test)] mod tests { d } e");
    assert_eq!(code.len(), text.len());
    let file = Source { path: String::new(), text: String::new(), shipped: String::new(), code };
    assert_eq!(words(&file.code, "tests").count(), 1);
    assert_eq!((block_end("fn a() { { } } fn", 0), block_end("mod b; {}", 0)), (14, 6));
}
