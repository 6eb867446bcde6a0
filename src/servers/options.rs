//! PURE. Options of a command line. Never knows which options there are: callers name those that they look for.

/// The words up to `--`, behind which nothing is an option.
fn before_end(words: &[String]) -> impl Iterator<Item = (usize, &str)> {
    words.iter().map(String::as_str).enumerate().take_while(|(_, word)| *word != "--")
}

/// The same words with each short option on its own: `-Dw2` is `-D -w2`. `flags` are those that take no value; what
/// stands behind any other one is its value.
pub fn unbundled(words: &[String], flags: &[char]) -> Vec<String> {
    let end = before_end(words).count();
    let mut apart = Vec::new();
    for word in words.get(..end).unwrap_or_default() {
        let mut rest = word.strip_prefix('-').unwrap_or_default();
        if !rest.starts_with(flags) {
            apart.push(word.clone());
            continue;
        }
        while let Some(behind) = rest.strip_prefix(flags) {
            apart.push(format!("-{}", rest.strip_suffix(behind).unwrap_or(rest)));
            rest = behind;
        }
        if !rest.is_empty() {
            apart.push(format!("-{rest}"));
        }
    }
    apart.extend(words.iter().skip(end).cloned());
    apart
}

/// Whether one of these options without a value is there.
pub fn has(words: &[String], names: &[&str]) -> bool {
    before_end(words).any(|(_, word)| names.contains(&word.split('=').next().unwrap_or(word)))
}

/// The values of one of these options, in each of their forms: `--bind X`, `--bind=X`, `-b X`, `-bX`.
pub fn values<'a>(words: &'a [String], names: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, word) in before_end(words) {
        for name in names {
            let long = name.starts_with("--");
            match word.strip_prefix(name) {
                Some("") => found.extend(words.get(at + 1).map(String::as_str)),
                Some(rest) if long => found.extend(rest.strip_prefix('=')),
                Some(rest) => found.push(rest.strip_prefix('=').unwrap_or(rest)),
                None => {}
            }
        }
    }
    found
}

/// The last value of one of these options, which is the one that counts.
pub fn value<'a>(words: &'a [String], names: &[&str]) -> Option<&'a str> {
    values(words, names).last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_in_each_of_its_forms() {
        let words: Vec<String> = "--bind a --bind=b -b c -bd --binder e --flag --other=x -- --bind f"
            .split(' ')
            .map(str::to_owned)
            .collect();
        assert_eq!(values(&words, &["--bind", "-b"]), ["a", "b", "c", "d"]);
        assert_eq!(value(&words, &["--none"]), None);
        assert!(has(&words, &["--flag"]) && has(&words, &["--other"]) && !has(&words, &["--bin"]));
    }

    #[test]
    fn short_options_in_one_word_come_apart() {
        let apart = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            unbundled(&words, &['D', 'B']).join(" ")
        };
        assert_eq!(apart("-Dw2 app -DB -D -BDl info"), "-D -w2 app -D -B -D -B -D -l info");
        // Of an option that takes one all the rest is its value.
        let same = "-w2D --Daemon -bD - app:D -- -Dw2";
        assert_eq!(apart(same), same);
    }
}
