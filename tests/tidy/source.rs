//! One source file as the rules look at it: its text, and its code with comments, strings and tests blanked out.

use std::fs;
use std::path::{Path, PathBuf};

/// A file below the repository.
pub struct Source {
    /// Relative to the repository.
    pub path: String,
    /// As it is.
    pub text: String,
    /// The same lines without comments and the contents of strings.
    pub code: String,
    /// `code` without what is compiled for tests only.
    pub shipped: String,
}

impl Source {
    /// Reads one file.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let code = blank(&text);
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let shipped = if name.ends_with("/tests.rs") || name.contains("/tests/") {
            String::new()
        } else {
            without_tests(&code)
        };
        Self { path: name, text, code, shipped }
    }

    /// Whether it says of itself that it is pure.
    pub fn is_pure(&self) -> bool {
        self.text.starts_with("//! PURE. ")
    }

    /// The module directly below `src` that it belongs to; None for the roots of the crate and other folders.
    pub fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        below.split_once('/').map(|(module, _)| module)
    }
}

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder of the repository, in order of their paths.
pub fn sources(folder: &str) -> Vec<Source> {
    files(&root().join(folder))
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| Source::read(path))
        .collect()
}

/// Every file below a folder, without what builds and tests leave there.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(listing) = fs::read_dir(folder) else { return found };
    for entry in listing.map(Result::unwrap) {
        let name = entry.file_name();
        let made = ["target", "corpus", "artifacts", "__pycache__"].iter().any(|one| name == *one);
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !made {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// The text with comments and the contents of strings and characters as spaces; lines stay where they are.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match skipped(bytes, at) {
            Some(end) => end,
            None => {
                out.push(if bytes[at].is_ascii() { char::from(bytes[at]) } else { ' ' });
                at += 1;
                continue;
            }
        };
        out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment, string or character that begins at `at` ends; None where none does.
fn skipped(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
    let in_word = before.is_ascii_alphanumeric() || before == b'_';
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(find(bytes, at + 2, b"*/"));
    }
    if !in_word && (rest.starts_with(b"r\"") || rest.starts_with(b"r#")) {
        let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return Some(find(bytes, at + 2 + hashes, end.as_bytes()));
        }
    }
    if rest.starts_with(b"\"") {
        return Some(closing(bytes, at + 1, b'"'));
    }
    // A character, not a lifetime: `'x'` or `'\…'`.
    if rest.starts_with(b"'") && (rest.get(1) == Some(&b'\\') || rest.get(2) == Some(&b'\'')) {
        return Some(closing(bytes, at + 1, b'\''));
    }
    None
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let found = bytes[from..].windows(what.len()).position(|part| part == what);
    found.map_or(bytes.len(), |place| from + place + what.len())
}

fn closing(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The end of the block whose `{` is the first at or after `from`, or of the item that ends with `;` before it.
pub fn block_end(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (place, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return place + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return place + 1,
            _ => {}
        }
    }
    code.len()
}

fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = block_end(&out, start);
        let lines: String = out[start..end].chars().filter(|one| *one == '\n').collect();
        out.replace_range(start..end, &lines);
    }
    out
}
