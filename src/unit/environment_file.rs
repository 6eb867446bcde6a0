//! PURE. Environment files: one `NAME=value` in a line, with the quotes of systemd.exec(5). Never shows a value, and
//! replaces nothing in one.

use super::keys::Table;
use super::model::is_variable;
use super::source::tick;

/// Most bytes of one environment file.
pub const ENVIRONMENT_FILE_BYTES_MAX: usize = super::ENVIRONMENT_BYTES_MAX;

/// The variables of a file, in order. The error is the number of the line and what is wrong with it, with a hint
/// where there is one; no value is in it.
pub fn environment_file(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let mut variables = Vec::new();
    let mut rest =
        Letters { letters: text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable(), line: 1 };
    while let Some(first) = rest.letters.peek().copied() {
        match first {
            '#' | ';' => rest.skip_line(),
            letter if letter.is_ascii_whitespace() => drop(rest.next()),
            _ => {
                let line = rest.line;
                let name = rest.name();
                check(&name, rest.letters.peek() == Some(&'=')).map_err(|words| (line, words))?;
                rest.next();
                let value = rest.value().map_err(|words| (line, words))?;
                if value.contains('\0') {
                    return Err((line, format!("the value of {} holds a NUL", tick(&name))));
                }
                variables.push((name, value));
            }
        }
    }
    Ok(variables)
}

fn check(name: &str, assigned: bool) -> Result<(), String> {
    if !assigned {
        // The whole line may be a secret that lost its name.
        return Err("there is no `=`\nhint: write `NAME=value`".to_owned());
    }
    if let Some(rest) = name.strip_prefix("export ") {
        return Err(format!("only a shell understands `export`\nhint: write `{}=…`", rest.trim()));
    }
    if !is_variable(name) {
        let what = if name.len() > 64 { "this".to_owned() } else { tick(name) };
        return Err(format!(
            "{what} cannot be the name of a variable\nhint: a variable's name has letters, digits and `_`, and starts with no digit"
        ));
    }
    if Table::Service.key(name).is_some() {
        return Err(format!("{} is a key of `[service]`, and here it would be a variable", tick(name)));
    }
    Ok(())
}

struct Letters<'a> {
    letters: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Letters<'_> {
    fn next(&mut self) -> Option<char> {
        let letter = self.letters.next();
        self.line += usize::from(letter == Some('\n'));
        letter
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|letter| letter != '\n') {}
    }

    /// Up to the `=` or the end of the line.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(letter) = self.letters.peek().copied().filter(|letter| !matches!(letter, '=' | '\n')) {
            name.push(letter);
            self.next();
        }
        name.trim().to_owned()
    }

    /// Up to the end of the line: words in quotes as long as there are any, and then text without them.
    fn value(&mut self) -> Result<String, String> {
        let mut value = String::new();
        loop {
            match self.next() {
                None | Some('\n') => return Ok(value),
                Some(letter) if letter.is_ascii_whitespace() => {}
                Some(quote @ ('\'' | '"')) => self.quoted(quote, &mut value)?,
                Some(first) => {
                    self.plain(first, &mut value);
                    return Ok(value);
                }
            }
        }
    }

    fn quoted(&mut self, quote: char, value: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                None => {
                    return Err("a quote that does not end\nhint: end it, or escape it as `\\\"`".to_owned());
                }
                Some(letter) if letter == quote => return Ok(()),
                Some('\\') if quote == '"' => match self.next() {
                    Some('\n') | None => {}
                    Some(letter @ ('"' | '\\' | '`' | '$')) => value.push(letter),
                    Some(letter) => value.extend(['\\', letter]),
                },
                Some(letter) => value.push(letter),
            }
        }
    }

    /// Blanks at the end do not count, unless they are escaped.
    fn plain(&mut self, first: char, value: &mut String) {
        let mut kept = value.len();
        let mut next = Some(first);
        while let Some(letter) = next.filter(|letter| *letter != '\n') {
            if letter == '\\' {
                match self.next() {
                    Some('\n') | None => {}
                    Some(escaped) => {
                        value.push(escaped);
                        kept = value.len();
                    }
                }
            } else {
                value.push(letter);
                if !letter.is_ascii_whitespace() {
                    kept = value.len();
                }
            }
            next = self.next();
        }
        value.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        environment_file(text).unwrap()
    }

    fn one(text: &str) -> String {
        let mut all = read(text);
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0).1
    }

    #[test]
    fn files_read_as_systemd_reads_them() {
        let text = "# a comment\n; another\n\n A = 1\nB=\nA=2\r\nC='x\ny'# z\n";
        let expected = [("A", "1"), ("B", ""), ("A", "2"), ("C", "x\ny# z")];
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(read(text), expected);
        for (text, value) in [
            ("A=a b  ", "a b"),
            ("A=  a", "a"),
            ("A=\"a b \"", "a b "),
            ("A='$HOME \\n'", "$HOME \\n"),
            ("A=\"\\$x \\n \\\"q\\\"\"", "$x \\n \"q\""),
            ("A=$HOME", "$HOME"),
            ("A=a\\\nb", "ab"),
            ("A=\"a\\\nb\"", "ab"),
            ("A=a\\ ", "a "),
            ("A=a#b;c=d", "a#b;c=d"),
            ("A=\"a\"'b'", "ab"),
            ("A=a\"b\"", "a\"b\""),
            ("\u{feff}A=é", "é"),
        ] {
            assert_eq!(one(text), value, "{text}");
        }
        assert_eq!(read(""), []);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_value() {
        for (text, line, words) in [
            ("A=1\nhunter2\n", 2, "there is no `=`"),
            ("export A=hunter2", 1, "only a shell understands `export`\nhint: write `A=…`"),
            ("# x\n1A=hunter2", 2, "`1A` cannot be the name of a variable"),
            ("user=hunter2", 1, "`user` is a key of `[service]`"),
            ("A='\n'\nB=\"hunter2\n\n", 3, "a quote that does not end"),
            ("A=hunter2\0", 1, "the value of `A` holds a NUL"),
        ] {
            let (at, said) = environment_file(text).unwrap_err();
            assert!(at == line && said.starts_with(words), "{text}: {at}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
