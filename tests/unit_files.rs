//! Unit files as people write them: those that are right read, and those that are wrong say everything that is
//! wrong with them, word for word.
//!
//! `UPDATE=1 cargo test --test unit_files` writes the expected texts and `units/reference.toml` anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use supervise::unit::{self, Context, Layer, Problem, Unit};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The `.toml` files of a directory, in the order of their names.
fn units(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(here().join("tests/units").join(directory)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect::<Vec<_>>().join("\n")
}

/// What is said about a file, as the user would see it; files beside it hold what lies under and over it. One called
/// `ahead-…` is read as if everything that is known were supported.
fn said(path: &Path) -> Result<Unit, Vec<Problem>> {
    let bytes = fs::read(path).unwrap();
    let name = format!("{}.toml", stem(path));
    let text = unit::text(&name, &bytes).map_err(|problem| vec![*problem])?;
    let under = fs::read_to_string(path.with_extension("toml.under")).ok();
    let over = fs::read_to_string(path.with_extension("toml.over")).ok();
    let over_name = format!("{name}.d/10-over.toml");
    let mut layers = Vec::new();
    layers.extend(under.as_deref().map(|text| Layer { path: "defaults.toml", text }));
    layers.push(Layer { path: &name, text });
    layers.extend(over.as_deref().map(|text| Layer { path: &over_name, text }));
    if stem(path).starts_with("ahead-") {
        Unit::parse_ahead(stem(path), &layers)
    } else {
        Unit::parse_layers(stem(path), &layers)
    }
}

/// Compares, or writes where `UPDATE` is set. Says how to write when the two differ.
fn compare(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "{} differs; `UPDATE=1 cargo test --test unit_files` writes it anew",
        path.strip_prefix(here()).unwrap_or(path).display()
    );
}

#[test]
fn every_bad_unit_says_all_that_is_wrong_with_it() {
    let paths = units("bad");
    assert!(paths.len() >= 25, "only {} cases", paths.len());
    for path in paths {
        match said(&path) {
            Ok(_) => panic!("{} reads, and should not", path.display()),
            Err(problems) => compare(&path.with_extension("expected"), &shown(&problems)),
        }
    }
}

#[test]
fn twenty_mistakes_give_twenty_messages() {
    let problems = said(&here().join("tests/units/bad/twenty.toml")).unwrap_err();
    assert_eq!(problems.len(), 20);
    let places: Vec<_> = problems.iter().map(|problem| problem.place.span.start).collect();
    assert!(places.is_sorted(), "not in the order of the file: {places:?}");
}

#[test]
fn every_good_unit_reads() {
    let paths = units("good");
    assert!(paths.len() >= 5, "only {} cases", paths.len());
    for path in paths {
        match said(&path) {
            Ok(unit) => compare(&path.with_extension("expected"), &listed(&unit)),
            Err(problems) => panic!("{}", shown(&problems)),
        }
    }
}

/// A unit, one value in a line. Places are another test's business.
fn listed(unit: &Unit) -> String {
    let Unit { name, path: _, description, documentation, service, restart, sockets, limits, .. } = unit;
    let Unit { health, deploy, dependencies, log, sandbox, access, places: _, .. } = unit;
    let mut text = format!("{name:?} {description:?} {documentation:?}\n");
    let fds: Vec<(&str, i32)> = (3..).zip(sockets).map(|(fd, socket)| (socket.name.as_str(), fd)).collect();
    let context = Context { name, instance: 0, generation: 1, fds: &fds, directories: &[] };
    text += &format!("argv {:?}\n", service.command.expand(&context));
    text += &format!("environment {:?}\n", service.environment.0);
    let unit::Service { server, start, user, group, groups, directory, umask, ready, .. } = service;
    text += &format!("server {server:?} start {start:?} ready {ready:?}\n");
    text += &format!("user {user:?} group {group:?} groups {groups:?}\n");
    text += &format!("directory {directory:?} umask {umask:04o}\n");
    let unit::Service { settle_ms, start_timeout_ms, stop_signal, stop_timeout_ms, .. } = service;
    let before: Vec<_> = service.before_start.iter().map(|command| command.expand(&context)).collect();
    text += &format!("before-start {before:?}\n");
    text += &format!("kind {:?} success-codes {:?}\n", service.kind, service.success_codes);
    text += &format!("settle {settle_ms} start-timeout {start_timeout_ms:?}\n");
    text += &format!("stop-signal {stop_signal} stop-timeout {stop_timeout_ms:?}\n");
    text += &format!("{restart:?}\n{limits:?}\n");
    for unit::Socket { name, listen, mode, user, group, backlog, nodelay, kind, .. } in sockets {
        text += &format!("socket {name} {listen} {listen:?} {kind:?}\n");
        text += &format!("  {mode:04o} {user:?} {group:?} backlog {backlog} nodelay {nodelay}\n");
    }
    for unit::Socket { keepalive, freebind, inherit, .. } in sockets {
        text += &format!("  keepalive {keepalive} freebind {freebind} inherit {inherit:?}\n");
    }
    let capabilities: Vec<String> = service.capabilities.iter().map(ToString::to_string).collect();
    let unit::Service { environment_files, pass_environment, instances, reload, watchdog_ms, .. } = service;
    text += &format!("capabilities {capabilities:?} files {environment_files:?} pass {pass_environment:?}\n");
    text += &format!("instances {instances} watchdog {watchdog_ms:?} reload {reload:?}\n");
    let unit::Service { idle_stop_ms, essential, schedule, tty, .. } = service;
    text += &format!("idle-stop {idle_stop_ms:?} essential {essential} schedule {schedule:?} tty {tty}\n");
    let directories = unit::Directory::ALL.map(|which| service.directory_of(which));
    text += &format!("directories {directories:?}\n");
    text += &format!("{health:?}\n{deploy:?}\n{dependencies:?}\n{log:?}\n{sandbox:?}\n{access:?}\n");
    text
}

#[test]
fn too_much_is_refused_before_it_is_read() {
    let big = format!("description = \"{}\"\n", "a".repeat(unit::FILE_BYTES_MAX));
    let said = shown(&Unit::parse("big", "big.toml", &big).unwrap_err());
    assert!(said.starts_with("big.toml:1:1: the file has 262161 bytes, which is too many\n"), "{said}");
    assert_eq!(said.matches("big.toml:").count(), 1, "{said}");
    assert!(unit::text("big.toml", big.as_bytes()).is_err());
}

#[test]
fn a_large_environment_and_a_large_command_are_refused() {
    let long = "a".repeat(70 * 1024);
    let text = format!("[service]\ncommand = [\"x\", \"{long}\", \"{long}\"]\n");
    let said = shown(&Unit::parse("a", "a.toml", &text).unwrap_err());
    assert!(said.contains("the command has 143364 bytes, which is too many"), "{said}");
    let under = format!("[service.environment]\nA = \"{long}\"\n");
    let text = format!("[service]\ncommand = [\"x\"]\n[service.environment]\nB = \"{long}\"\n");
    let layers = [Layer { path: "defaults.toml", text: &under }, Layer { path: "a.toml", text: &text }];
    let said = shown(&Unit::parse_layers("a", &layers).unwrap_err());
    assert!(said.contains("the environment has 143366 bytes, which is too many"), "{said}");
    assert!(!said.contains("aaa"), "{said}");
}

#[test]
fn problems_without_end_are_counted() {
    let keys: String = (0..250).map(|key| format!("key-{key} = 1\n")).collect();
    let problems = Unit::parse("a", "a.toml", &format!("[service]\ncommand = [\"x\"]\n{keys}")).unwrap_err();
    assert_eq!(problems.len(), unit::PROBLEMS_MAX + 1);
    assert!(shown(&problems).contains("a.toml:102:1: and 150 more problems"), "{}", shown(&problems));
}

#[test]
fn a_files_cost_does_not_grow_with_the_square_of_its_size() {
    // Each of these took minutes where a step looked at everything again for every key.
    let sockets: String = (0..20_000).map(|index| format!("s{index}={{}},")).collect();
    let variables: String = (0..20_000).map(|index| format!("a{index}=1,")).collect();
    for text in [
        format!("socket = {{{sockets}}}\n"),
        format!("service.environment = {{{variables}}}\n"),
        format!("service.command = ['{}']\n", "{".repeat(200_000)),
        "[".repeat(200_000),
        "a.".repeat(100_000),
        "\"".repeat(200_000),
    ] {
        let layers = [Layer { path: "defaults.toml", text: &text }, Layer { path: "a.toml", text: &text }];
        let start = std::time::Instant::now();
        assert!(Unit::parse_layers("a", &layers).is_err());
        assert!(start.elapsed().as_secs() < 60, "{:?} for {}", start.elapsed(), &text[..20]);
    }
}

#[test]
fn where_things_are_written_is_known_until_it_is_forgotten() {
    let text = "[service]\ncommand = [\"x\"]\n\n[socket.http]\nlisten = \":80\"\n";
    let mut unit = Unit::parse("a", "a.toml", text).unwrap();
    let place = |unit: &Unit, key: &str| unit.places.of(key).map(ToString::to_string);
    assert_eq!(place(&unit, "service.command").as_deref(), Some("a.toml:2:11"));
    assert_eq!(place(&unit, "socket.http.listen").as_deref(), Some("a.toml:5:10"));
    assert_eq!(place(&unit, "service.user"), None);
    let moved = Unit::parse("a", "b.toml", &format!("# moved\n{text}")).unwrap();
    assert!(unit != moved && unit.says_the_same(&moved));
    let other = Unit::parse("a", "a.toml", &text.replace(":80", ":81")).unwrap();
    assert!(!unit.says_the_same(&other));
    unit.forget_places();
    assert_eq!(place(&unit, "service.command"), None);
}

#[test]
fn the_reference_is_printed_from_the_key_table() {
    compare(&here().join("units/reference.toml"), &unit::reference());
}

#[test]
fn the_schema_is_printed_from_the_key_table_and_is_json() {
    compare(&here().join("units/schema.json"), &unit::schema());
    let schema: serde_json::Value = serde_json::from_str(&unit::schema()).unwrap();
    let key = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone();
    assert_eq!(key("/properties/limits/properties/nice/minimum"), -20);
    assert_eq!(key("/properties/restart/properties/delay/default"), "250ms");
    assert_eq!(key("/properties/socket/additionalProperties/required/0"), "listen");
    assert_eq!(key("/properties/service/additionalProperties"), false);
}

/// What holds for every problem of every text.
fn check(text: &str, problems: &[Problem]) {
    assert!(!problems.is_empty() && problems.len() <= unit::PROBLEMS_MAX + 1);
    let starts: Vec<usize> = problems.iter().map(|problem| problem.place.span.start).collect();
    assert!(starts.is_sorted(), "not in the order of the file: {starts:?}");
    for problem in problems {
        let (place, shown) = (&problem.place, problem.to_string());
        let before = text.get(..place.span.start).expect("a span that starts outside of the text");
        assert!(text.get(place.span.clone()).is_some(), "{:?} is not inside of the text", place.span);
        assert_eq!(place.line, before.matches('\n').count() + 1);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        assert_eq!(place.column, column);
        let odd = |letter: char| letter.is_control() && letter != '\n';
        assert!(!shown.contains(odd), "{shown:?}");
        let lines = 3 + usize::from(problem.hint().is_some());
        assert_eq!(shown.lines().count(), lines, "{shown}");
        let carets = shown.lines().nth(2).unwrap_or_default();
        assert!(carets.ends_with('^') && carets.chars().count() < 200, "{shown}");
    }
}

fn parse_and_check(text: &str) {
    match Unit::parse("shop", "shop.toml", text) {
        Ok(unit) => assert_eq!(Unit::parse("shop", "shop.toml", text), Ok(unit)),
        Err(problems) => check(text, &problems),
    }
}

/// Texts of all cases, to be damaged.
fn cases() -> Vec<String> {
    let paths = units("bad").into_iter().chain(units("good"));
    paths.filter_map(|path| fs::read_to_string(path).ok()).filter(|text| text.len() < 10_000).collect()
}

/// One of the texts with some bytes taken out and others put in.
fn damaged() -> impl Strategy<Value = String> {
    let scraps = prop::sample::select(vec![
        "",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "=",
        ".",
        "\n",
        "\\",
        "#",
        "\u{0}",
        "\u{1b}",
        "\t",
        "é",
        "\"\"\"",
        "0",
        "-1",
        "[service]",
        "{fd:x}",
        "\u{202e}",
        "99999999999999999999",
        "= {",
        ",",
    ]);
    let cuts = prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize, scraps), 1..4);
    (prop::sample::select(cases()), cuts).prop_map(|(mut text, cuts)| {
        for (at, length, scrap) in cuts {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.ceil_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, scrap);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        parse_and_check(&text);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        match unit::text("shop.toml", &bytes) {
            Ok(text) => parse_and_check(text),
            Err(problem) => prop_assert!(problem.place.span.end <= bytes.len()),
        }
    }

    #[test]
    fn no_text_of_toml_pieces_makes_the_parser_panic(text in "([a-z\\[\\]{}=\"'.,#\n \\\\0-9é\t-]|service|socket|environment|command|listen|\\[socket\\.a\\]\n){0,60}") {
        parse_and_check(&text);
    }

    #[test]
    fn no_damaged_unit_makes_the_parser_panic(text in damaged()) {
        parse_and_check(&text);
    }

    #[test]
    fn no_damage_shows_a_variables_value(at in any::<prop::sample::Index>(), length in 0..3_usize, scrap in "[\"'\\[\\]{}=.\n#a]{0,2}") {
        let whole = "[service]\ncommand = [\"x\"]\n[service.environment]\nKEY = \"hunter2\"\nother = \"hunter2\"\n[restart]\ndelay = \"x\"\n";
        let first = whole.find("hunter2").unwrap();
        let last = whole.rfind("hunter2").unwrap();
        let start = at.index(whole.len());
        let end = (start + length).min(whole.len());
        let outside = |value: usize| end <= value || start >= value + "hunter2".len();
        prop_assume!(outside(first) && outside(last));
        let mut text = whole.to_owned();
        text.replace_range(start..end, &scrap);
        if let Err(problems) = Unit::parse("shop", "shop.toml", &text) {
            prop_assert!(!shown(&problems).contains("hunter2"), "{text}\n{}", shown(&problems));
        }
    }
}

#[test]
fn a_wrong_name_is_that_of_the_units_own_file() {
    let layers = [
        Layer { path: "defaults.toml", text: "[service]\nuser = \"al\"\n" },
        Layer { path: "units/README", text: "[service]\ncommand = \"x\"\n" },
    ];
    let said = shown(&Unit::parse_layers("README", &layers).unwrap_err());
    assert!(said.starts_with("units/README:1:1: `README` cannot be the name of a unit"), "{said}");
}
