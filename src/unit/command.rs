//! PURE. The command: its words, the placeholders in them, and what a string would have meant to a shell. Never
//! runs one.

use std::ops::Range;

use super::fault::CommandFault;
use super::keys::{PLACEHOLDERS, Since};

/// What a service executes: at least one word, and the first is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The words, program first.
    pub argv: Vec<Word>,
}

/// One word of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Its parts in order.
    pub pieces: Vec<Piece>,
}

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// `{fd:NAME}`: the number of the descriptor of this socket of the unit.
    Fd(String),
    /// `{name}`: the unit's name.
    Name,
    /// `{instance}`: the instance's number.
    Instance,
    /// `{generation}`: the generation's number.
    Generation,
    /// `{runtime-directory}` and the like: the path of that directory.
    Directory(Directory),
}

/// Which of the directories that a unit can have made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Directory {
    /// `runtime-directory`
    Runtime,
    /// `state-directory`
    State,
    /// `cache-directory`
    Cache,
}

impl Directory {
    /// Every one, in the order of the key table.
    pub const ALL: [Self; 3] = [Self::Runtime, Self::State, Self::Cache];

    /// The key of `[service]`, which is also the word of the placeholder.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Runtime => "runtime-directory",
            Self::State => "state-directory",
            Self::Cache => "cache-directory",
        }
    }
}

/// What placeholders become.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The unit's name.
    pub name: &'a str,
    /// The instance's number.
    pub instance: u32,
    /// The generation's number, from 1.
    pub generation: u64,
    /// Names of the sockets and the descriptors that the service will have them at.
    pub fds: &'a [(&'a str, i32)],
    /// Paths of the directories that the unit has made for it.
    pub directories: &'a [(Directory, &'a str)],
}

impl Command {
    /// The words as the service gets them. A socket that `context` does not have stays as it was written: the
    /// parser lets none through that the unit does not have.
    pub fn expand(&self, context: &Context<'_>) -> Vec<String> {
        self.argv.iter().map(|word| word.expand(context)).collect()
    }

    /// The words as they are written, placeholders and all.
    pub fn written(&self) -> Vec<String> {
        let word = |word: &Word| word.pieces.iter().map(Piece::written).collect();
        self.argv.iter().map(word).collect()
    }

    /// Names of the sockets whose descriptors it asks for, in order.
    pub fn sockets(&self) -> impl Iterator<Item = &str> {
        self.argv.iter().flat_map(|word| &word.pieces).filter_map(|piece| match piece {
            Piece::Fd(name) => Some(name.as_str()),
            Piece::Text(_) | Piece::Name | Piece::Instance | Piece::Generation | Piece::Directory(_) => None,
        })
    }
}

impl Word {
    fn expand(&self, context: &Context<'_>) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Fd(name) => match context.fds.iter().find(|(socket, _)| socket == name) {
                    Some((_, fd)) => text.push_str(&fd.to_string()),
                    None => text.push_str(&piece.written()),
                },
                Piece::Name => text.push_str(context.name),
                Piece::Instance => text.push_str(&context.instance.to_string()),
                Piece::Generation => text.push_str(&context.generation.to_string()),
                Piece::Directory(which) => {
                    match context.directories.iter().find(|(directory, _)| directory == which) {
                        Some((_, path)) => text.push_str(path),
                        None => text.push_str(&piece.written()),
                    }
                }
            }
        }
        text
    }
}

impl Piece {
    /// It as a unit has it.
    pub(super) fn written(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Fd(name) => format!("{{fd:{name}}}"),
            Self::Name => "{name}".to_owned(),
            Self::Instance => "{instance}".to_owned(),
            Self::Generation => "{generation}".to_owned(),
            Self::Directory(which) => format!("{{{}}}", which.key()),
        }
    }
}

/// Takes a word apart. The second half is what is wrong with its placeholders, each with its text.
pub(super) fn pieces(word: &str) -> (Word, Vec<(String, CommandFault)>) {
    let (mut pieces, mut faults, mut text) = (Vec::new(), Vec::new(), String::new());
    let mut rest = word;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at_checked(open).unwrap_or((rest, ""));
        text.push_str(before);
        let Some(inner) = placeholder(after) else {
            text.push('{');
            rest = after.get(1..).unwrap_or_default();
            continue;
        };
        match known(inner) {
            Ok(piece) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(piece);
            }
            Err(fault) => faults.push((format!("{{{inner}}}"), fault)),
        }
        if PLACEHOLDERS.contains(&(inner, Since::Later)) {
            let fault = CommandFault::PlaceholderNotYet { word: inner.to_owned() };
            faults.push((format!("{{{inner}}}"), fault));
        }
        rest = after.get(inner.len() + 2..).unwrap_or_default();
    }
    text.push_str(rest);
    if !text.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces.shrink_to_fit(); // most are one, and there are thousands of words
    (Word { pieces }, faults)
}

/// What stands between the braces at the start of `text`, if it has the form `[a-z][a-z-]*(:[a-z0-9._-]+)?`;
/// anything else in braces, such as JSON or a shell's variable, stays as it is.
fn placeholder(text: &str) -> Option<&str> {
    let text = text.strip_prefix('{')?;
    let right = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b':')
    };
    // What cannot stand in one ends the search, so that a line of nothing but braces costs no more than any other.
    let end = text.bytes().position(|byte| !right(byte))?;
    let inner = text.get(..end).filter(|_| text.as_bytes().get(end) == Some(&b'}'))?;
    let (word, name) = match inner.split_once(':') {
        Some((word, name)) => (word, Some(name)),
        None => (inner, None),
    };
    let named = name.is_none_or(|name| !name.is_empty() && !name.contains(':'));
    let worded = word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (worded && named).then_some(inner)
}

fn known(inner: &str) -> Result<Piece, CommandFault> {
    match inner {
        "name" => Ok(Piece::Name),
        "instance" => Ok(Piece::Instance),
        "generation" => Ok(Piece::Generation),
        _ => match (inner.strip_prefix("fd:"), Directory::ALL.into_iter().find(|which| which.key() == inner))
        {
            (Some(name), _) => Ok(Piece::Fd(name.to_owned())),
            (None, Some(which)) => Ok(Piece::Directory(which)),
            (None, None) => Err(CommandFault::Placeholder { word: inner.to_owned() }),
        },
    }
}

/// Splits a string as a shell would, without being one. What only a shell would understand is a fault, at its
/// bytes of `text`: to pass it on as it stands is never what somebody meant.
pub(super) fn split(text: &str) -> Result<Vec<String>, (Range<usize>, CommandFault)> {
    let joined = scan(text)?;
    let words = shlex::split(&joined).ok_or((0..text.len(), CommandFault::Unfinished))?;
    match words.first() {
        Some(first) if assigns(first) => {
            let word = first.split('=').next().unwrap_or_default().to_owned();
            Err((0..text.len(), CommandFault::Assignment { word }))
        }
        Some(_) | None => Ok(words),
    }
}

/// Whether a shell would take the word for a variable's assignment.
fn assigns(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| super::model::is_variable(name))
}

/// Looks for the first thing that only a shell understands. In double quotes a shell still replaces `$` and
/// backticks; in single quotes nothing. Gives back the text with its lines joined where a backslash ends them:
/// shlex takes such an end for an empty word.
fn scan(text: &str) -> Result<String, (Range<usize>, CommandFault)> {
    let mut joined = String::with_capacity(text.len());
    let mut quote = None; // which one, and where it was opened
    let mut at_word = true; // whether a word would start here
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let here = at..at + letter.len_utf8();
        let special = |length: usize| {
            let word = text.get(at..at + length).unwrap_or_default().to_owned();
            Err((at..at + length, CommandFault::Shell { word }))
        };
        match (quote, letter) {
            (Some((open, _)), _) if letter == open => quote = None,
            (Some(('\'', _)), _) => {}
            (_, '\\') => {
                match letters.next() {
                    None => return Err((here, CommandFault::Unfinished)),
                    Some((_, '\n')) => {}
                    Some((_, next)) => {
                        joined.extend([letter, next]);
                        at_word = false;
                    }
                }
                continue;
            }
            (_, '$' | '`') => return special(1),
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some((letter, at)),
            (None, '|' | '&' | '<' | '>') => {
                let twice = letters.peek().is_some_and(|(_, next)| *next == letter);
                return special(if twice { 2 } else { 1 });
            }
            (None, ';' | '*' | '(' | ')') => return special(1),
            (None, '#' | '~') if at_word => return special(1),
            (None, _) => {}
        }
        // A file with the line ends of another system has these in its long strings.
        let line_end =
            letter == '\r' && quote.is_none() && letters.peek().is_some_and(|(_, next)| *next == '\n');
        if !line_end {
            joined.push(letter);
        }
        at_word = quote.is_none() && letter.is_ascii_whitespace();
    }
    match quote {
        Some((_, open)) => Err((open..open + 1, CommandFault::Unfinished)),
        None => Ok(joined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap()
    }

    fn refused(text: &str) -> (String, CommandFault) {
        let (span, fault) = split(text).unwrap_err();
        (text.get(span).unwrap().to_owned(), fault)
    }

    #[test]
    fn a_string_is_split_like_a_shell_would() {
        assert_eq!(
            words("gunicorn -w 2 'a b' \"c d\" e\\ f x'y'\"z\""),
            ["gunicorn", "-w", "2", "a b", "c d", "e f", "xyz"]
        );
        assert_eq!(words("a\n  b \\\n c"), ["a", "b", "c"]);
        assert_eq!(
            words("echo '$HOME' '|' \"a;b\" '*' \\$x a#b a~b"),
            ["echo", "$HOME", "|", "a;b", "*", "$x", "a#b", "a~b"]
        );
        assert_eq!(words("a\\\nb 'c\\\nd' \"e\\\nf\""), ["ab", "c\\\nd", "ef"]);
        assert_eq!(words("a\r\nb 'c\r\n'"), ["a", "b", "c\r\n"]);
        assert_eq!(words("  "), Vec::<String>::new());
    }

    #[test]
    fn what_only_a_shell_understands_is_refused_where_it_stands() {
        for (text, word) in [
            ("a $HOME", "$"),
            ("a \"$HOME\"", "$"),
            ("a `b`", "`"),
            ("a | b", "|"),
            ("a || b", "||"),
            ("a && b", "&&"),
            ("a &", "&"),
            ("a; b", ";"),
            ("a >> b", ">>"),
            ("a < b", "<"),
            ("a *.py", "*"),
            ("(a)", "("),
            ("a ~/b", "~"),
            ("a # b", "#"),
        ] {
            assert_eq!(
                refused(text),
                (word.to_owned(), CommandFault::Shell { word: word.to_owned() }),
                "{text}"
            );
        }
        assert_eq!(refused("\\\n# b").0, "#");
        assert_eq!(refused("a 'b"), ("'".to_owned(), CommandFault::Unfinished));
        assert_eq!(refused("a b\\"), ("\\".to_owned(), CommandFault::Unfinished));
        assert_eq!(refused("A=1 b").1, CommandFault::Assignment { word: "A".to_owned() });
    }

    #[test]
    fn only_words_in_braces_are_placeholders() {
        for literal in
            ["{}", "{PORT}", "{\"a\":1}", "{a", "a}", "{fd:}", "{-a}", "{1}", "{a b}", "${HOME}", "{é}"]
        {
            assert_eq!(
                pieces(literal),
                (Word { pieces: vec![Piece::Text(literal.to_owned())] }, vec![]),
                "{literal}"
            );
        }
        assert_eq!(pieces("{word}").1.len(), 1);
        assert_eq!(pieces("{fd:health}").0.pieces, [Piece::Fd("health".to_owned())]);
        assert_eq!(
            pieces("{state-directory}/db").0.pieces.first(),
            Some(&Piece::Directory(Directory::State))
        );
        assert_eq!(pieces("{{name}").0.pieces, [Piece::Text("{".to_owned()), Piece::Name]);
        assert_eq!(pieces("").0.pieces, [Piece::Text(String::new())]);
    }

    #[test]
    fn placeholders_become_what_they_stand_for() {
        let argv =
            ["fd://{fd:web}", "{name}-{instance}", "g{generation}", "{}", "{fd:none}", "{cache-directory}/x"];
        let command = Command { argv: argv.iter().map(|word| pieces(word).0).collect() };
        let directories = [(Directory::Cache, "/var/cache/shop")];
        let context = Context {
            name: "shop",
            instance: 2,
            generation: 7,
            fds: &[("web", 3)],
            directories: &directories,
        };
        let words = ["fd://3", "shop-2", "g7", "{}", "{fd:none}", "/var/cache/shop/x"];
        assert_eq!(command.expand(&context), words);
        assert_eq!(command.sockets().collect::<Vec<_>>(), ["web", "none"]);
    }
}
