//! PURE. Names of services as operators write them: globs, and the nearest name to a wrong one. Never a
//! regular expression, never more work than the lengths multiplied.

/// The longest name or glob a request may hold, in bytes.
pub const MOST_NAME: usize = 128;
/// How many names a request may hold.
pub const MOST_NAMES: usize = 1024;

/// No service has that name, or none matches that glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// As the operator wrote it.
    pub name: String,
    /// The one that was probably meant.
    pub near: Option<String>,
    /// The file of a unit of that name, which nobody has read.
    pub file: Option<String>,
}

/// Whether this is a pattern and not a name.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether `name` matches `glob`: `*` any text, `?` one character, `[abc]`, `[a-z]` and `[!a-z]` one of a set.
///
/// A `[` that is never closed stands for itself. Needs at most as many steps as the lengths multiplied.
pub fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut at, mut read) = (0, 0);
    // Where the last star is and how much of the name it has eaten: only that one is ever taken back.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&character) = name.get(read) {
        if glob.get(at) == Some(&'*') {
            star = Some((at, read));
            at += 1;
        } else if let Some(after) = one(&glob, at, character) {
            at = after;
            read += 1;
        } else if let Some((place, eaten)) = star {
            star = Some((place, eaten + 1));
            at = place + 1;
            read = eaten + 1;
        } else {
            return false;
        }
    }
    glob.iter().skip(at).all(|rest| *rest == '*')
}

/// Where the pattern goes on when its element at `at` takes `character`.
fn one(glob: &[char], at: usize, character: char) -> Option<usize> {
    match glob.get(at)? {
        '?' => Some(at + 1),
        '[' => match set(glob, at) {
            Some((members, negated, after)) => {
                let inside = members.iter().any(|(low, high)| (*low..=*high).contains(&character));
                (inside != negated).then_some(after)
            }
            None => (character == '[').then_some(at + 1),
        },
        literal => (*literal == character).then_some(at + 1),
    }
}

/// The ranges of a set, whether it is negated, and where the pattern goes on after it.
type Set = (Vec<(char, char)>, bool, usize);

/// The set that begins at `at`, if it ends.
fn set(glob: &[char], at: usize) -> Option<Set> {
    let negated = glob.get(at + 1) == Some(&'!');
    let first = at + 1 + usize::from(negated);
    // A `]` that comes first belongs to the set.
    let end = glob.iter().skip(first + 1).position(|found| *found == ']')? + first + 1;
    let mut inside = glob.get(first..end)?;
    let mut members = Vec::new();
    loop {
        inside = match inside {
            [low, '-', high, rest @ ..] => {
                members.push((*low, *high));
                rest
            }
            [single, rest @ ..] => {
                members.push((*single, *single));
                rest
            }
            [] => return Some((members, negated, end + 1)),
        };
    }
}

/// The name that was probably meant: the one with the fewest edits, if those are at most a third of it.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wanted.chars().count() / 3).max(1);
    let near = names.into_iter().map(|name| (edits(wanted, name), name)).min_by_key(|(cost, _)| *cost)?;
    (near.0 <= allowed).then_some(near.1)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut older: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, left) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, top) in to.iter().enumerate() {
            let cell = |line: &[usize], place: usize| line.get(place).copied().unwrap_or(usize::MAX - 1);
            let mut cost = (cell(&above, column) + usize::from(left != top))
                .min(cell(&above, column + 1) + 1)
                .min(cell(&current, column) + 1);
            let swapped =
                row > 0 && column > 0 && from.get(row - 1) == Some(top) && to.get(column - 1) == Some(left);
            if swapped {
                cost = cost.min(cell(&older, column - 1) + 1);
            }
            current.push(cost);
        }
        older = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(0)
}

/// The services that `wanted` names, each once, in the order of `wanted` and, for a glob, of `all`.
///
/// `None` and an empty list both mean all of them. Errors: the first name or glob that finds none.
pub fn resolve<'a>(wanted: &[String], all: &[&'a str]) -> Result<Vec<&'a str>, Unknown> {
    if wanted.is_empty() {
        return Ok(all.to_vec());
    }
    let mut taken = std::collections::HashSet::new();
    let mut found = Vec::new();
    for text in wanted {
        let mut some = false;
        // A name is compared as it is, so that a unit with a strange name can still be reached.
        for name in all.iter().filter(|name| **name == text || (is_glob(text) && matches(text, name))) {
            some = true;
            if taken.insert(*name) {
                found.push(*name);
            }
        }
        if !some {
            let near = if is_glob(text) { None } else { nearest(text, all.iter().copied()) };
            return Err(Unknown { name: text.clone(), near: near.map(str::to_owned), file: None });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (glob, name, expected) in [
            ("bagels-*", "bagels-web", true),
            ("bagels-*", "bagels-", true),
            ("bagels-*", "bagels", false),
            ("*", "", true),
            ("*web*", "a-web-1", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("web[0-9]", "web7", true),
            ("web[!0-9]", "web7", false),
            ("web[!0-9]", "webx", true),
            ("[]-]x", "]x", true),
            ("[abc", "[abc", true),
            ("[abc", "a", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXcXb", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_long() {
        let glob = "*a".repeat(60) + "b";
        assert!(!matches(&glob, &"a".repeat(4000)));
    }

    #[test]
    fn the_nearest_name_is_near() {
        let all = ["web", "worker", "bagels-web", "redis"];
        assert_eq!(nearest("wbe", all), Some("web"));
        assert_eq!(nearest("workr", all), Some("worker"));
        assert_eq!(nearest("bagel-web", all), Some("bagels-web"));
        assert_eq!(nearest("postgres", all), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn names_and_globs_become_services_each_once_in_the_operators_order() {
        let all = ["api", "bagels-a", "bagels-b", "web"];
        let wanted = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(resolve(&[], &all), Ok(all.to_vec()));
        assert_eq!(
            resolve(&wanted(&["web", "bagels-*", "web"]), &all),
            Ok(vec!["web", "bagels-a", "bagels-b"])
        );
        assert_eq!(
            resolve(&wanted(&["api", "wbe"]), &all),
            Err(Unknown { name: "wbe".into(), near: Some("web".into()), file: None })
        );
        assert_eq!(
            resolve(&wanted(&["x*"]), &all),
            Err(Unknown { name: "x*".into(), near: None, file: None })
        );
    }

    proptest! {
        #[test]
        fn no_glob_panics_and_a_name_matches_itself(glob in ".{0,40}", name in "[a-z0-9._-]{0,40}") {
            let _ = matches(&glob, &name);
            prop_assert!(matches(&name, &name));
            let longer = format!("{name}*");
            prop_assert!(matches(&longer, &name));
        }

        #[test]
        fn edits_count_the_same_both_ways(one in "[ab]{0,6}", other in "[ab]{0,6}") {
            prop_assert_eq!(edits(&one, &other), edits(&other, &one));
            prop_assert_eq!(edits(&one, &other) == 0, one == other);
        }
    }
}
