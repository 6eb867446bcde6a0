//! PURE. Which known word somebody may have meant. Never guesses when nothing is near.

/// The known word nearest to `word`, and how many edits it is away: at most one for three characters.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<(&'a str, usize)> {
    let lower = word.to_lowercase().replace('_', "-");
    let reach = (word.chars().count() / 3).max(1);
    known
        .filter(|known| known.len().abs_diff(word.len()) <= reach && !known.is_empty())
        .map(|known| (known, distance(&lower, &known.to_lowercase())))
        .filter(|(known, edits)| *edits <= reach && *edits < known.chars().count())
        .min_by_key(|(_, edits)| *edits)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `one` into `other`.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut older: Vec<usize> = Vec::new();
    let mut old: Vec<usize> = (0..=other.len()).collect();
    let mut last = None;
    for (row, letter) in one.chars().enumerate() {
        let mut new = vec![row + 1];
        for (column, target) in other.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&old, column) + usize::from(letter != *target);
            let mut best = replaced.min(at(&old, column + 1) + 1).min(at(&new, column) + 1);
            let swapped = column > 0 && last == Some(*target) && other.get(column - 1) == Some(&letter);
            if swapped {
                best = best.min(at(&older, column - 1) + 1);
            }
            new.push(best);
        }
        last = Some(letter);
        older = std::mem::replace(&mut old, new);
    }
    old.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(distance("dealy", "delay"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn only_what_is_near_is_meant() {
        let known = ["stop-timeout", "start-timeout", "user", "group"];
        assert_eq!(nearest("stop_timeout", known.into_iter()), Some(("stop-timeout", 0)));
        assert_eq!(nearest("usr", known.into_iter()), Some(("user", 1)));
        assert_eq!(nearest("nofile", known.into_iter()), None);
    }
}
