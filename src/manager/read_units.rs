//! ROOT. Unit files from disk: which there are, and their text, judged by who could have written them. Never
//! parses one.

use crate::sys::errno::reason;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::files;

/// The most bytes of a unit file.
const MOST_BYTES: u64 = 256 * 1024;

/// One layer of a unit: a file and what was in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layer {
    /// Where it was.
    pub path: String,
    /// What it said.
    pub text: String,
}

/// Everything that was found of one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Defaults, the unit, drop-ins: in the order in which they are laid over one another.
    pub layers: Vec<Layer>,
    /// Why it is not to be used, where it is not.
    pub problems: Vec<String>,
}

/// Reads all units. Earlier directories win over later ones. What concerns no single unit is in the second
/// part.
pub fn read_all(directories: &[PathBuf]) -> (BTreeMap<String, Found>, Vec<String>) {
    let mut units: BTreeMap<String, Found> = BTreeMap::new();
    let mut problems = Vec::new();
    for directory in directories {
        let names = match toml_files(directory) {
            Ok(names) => names,
            Err(error) => {
                problems.push(format!("{}: {}", directory.display(), reason(&error)));
                continue;
            }
        };
        let defaults =
            directory.parent().map(|parent| parent.join("defaults.toml")).filter(|path| path.exists());
        for (name, path) in names {
            if units.contains_key(&name) {
                continue;
            }
            let mut found = Found::default();
            let drop_ins = toml_files(&directory.join(format!("{name}.toml.d"))).unwrap_or_default();
            let layers = defaults.iter().chain([&path]).chain(drop_ins.iter().map(|(_, path)| path));
            for path in layers {
                match read_one(path) {
                    Ok(text) => found.layers.push(Layer { path: path.display().to_string(), text }),
                    Err(problem) => found.problems.push(problem),
                }
            }
            units.insert(name, found);
        }
    }
    (units, problems)
}

/// The `.toml` files of a directory by their names, in order. One that does not exist has none.
fn toml_files(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in listing {
        let path = entry?.path();
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        if let (true, true, Some(name)) =
            (is_toml, path.is_file(), path.file_stem().and_then(|name| name.to_str()))
        {
            found.push((name.to_owned(), path.clone()));
        }
    }
    found.sort();
    Ok(found)
}

fn read_one(path: &Path) -> Result<String, String> {
    let said = |error: io::Error| format!("{}: {}", path.display(), reason(&error));
    let me = files::effective_user();
    if let Some(part) = files::unsafe_part(path, me).map_err(said)? {
        return Err(format!(
            "{}: `{}` can be written by others than root and the supervisor's user\nhint: chown root and chmod go-w it",
            path.display(),
            part.display()
        ));
    }
    let (bytes, ..) = files::read_steady(path, MOST_BYTES).map_err(said)?;
    String::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8", path.display()))
}
