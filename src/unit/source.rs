//! PURE. Places in a text: lines, columns, and the line to show with a caret. Never shows a value of the
//! environment, and nothing that a terminal would obey.

use std::fmt;
use std::ops::Range;

/// Most characters of a line that are shown; the rest is cut around the caret.
const SHOWN_MAX: usize = 120;
/// How many of them stand before the caret when the line is cut at its start.
const BEFORE_CARET: usize = 40;
/// Most characters of a user's word that a message repeats.
const WORD_MAX: usize = 64;
/// How many blanks a tab is shown as, so that the caret below it stands right on every terminal.
const TAB: &str = "    ";

/// A place in a file, with what is needed to show it later without the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the caller named it.
    pub path: String,
    /// Which line, from 1.
    pub line: usize,
    /// Which character of the line, from 1.
    pub column: usize,
    /// The bytes of the text that are meant; inside the text, start not after end.
    pub span: Range<usize>,
    shown: String,
    caret: usize,
    width: usize,
}

impl Place {
    /// The start of a file of which there is nothing to show.
    pub fn whole_file(path: &str) -> Self {
        Source::new(path, "").place(0..0)
    }

    /// The line and the carets below it, in two lines with a gutter.
    pub fn picture(&self) -> String {
        let gutter = " ".repeat(self.line.to_string().len());
        let line = format!("  {} | {}", self.line, self.shown);
        let below = format!("  {gutter} | {}{}", " ".repeat(self.caret), "^".repeat(self.width));
        format!("{}\n{below}", line.trim_end())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", visible(&self.path), self.line, self.column)
    }
}

/// A text with its name and the starts of its lines.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub path: &'a str,
    pub text: &'a str,
    starts: Vec<usize>,
    secrets: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    pub fn new(path: &'a str, text: &'a str) -> Self {
        let mut starts = vec![0];
        starts.extend(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1));
        Self { path, text, starts, secrets: Vec::new() }
    }

    /// From now on these bytes are shown as stars.
    pub fn hide(&mut self, span: Range<usize>) {
        self.secrets.push(span);
    }

    /// Where the value at `span` holds `part` as it stands: its bytes, or all of the value where escapes make
    /// the two differ.
    pub fn inside(&self, span: &Range<usize>, part: &str) -> Range<usize> {
        match self.text.get(span.clone()).and_then(|raw| raw.find(part)) {
            Some(at) if !part.is_empty() => span.start + at..span.start + at + part.len(),
            Some(_) | None => span.clone(),
        }
    }

    /// The line, numbered from 0, that holds byte `at`, and its start.
    fn line_of(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at).saturating_sub(1);
        (line, self.starts.get(line).copied().unwrap_or_default())
    }

    /// The line numbered from 0, without its end.
    fn line(&self, line: usize) -> &'a str {
        let start = self.starts.get(line).copied().unwrap_or(self.text.len());
        let end = self.starts.get(line + 1).copied().unwrap_or(self.text.len());
        let line = self.text.get(start..end).unwrap_or_default();
        let line = line.strip_suffix('\n').unwrap_or(line);
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// The lines with the byte that each starts at.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.starts.iter().enumerate().map(|(line, start)| (*start, self.line(line)))
    }

    /// Whether `at` is on a line that holds a table header, by its first character.
    pub fn on_header(&self, at: usize) -> bool {
        self.line(self.line_of(at).0).trim_start().starts_with('[')
    }

    /// Which line, from 1, holds byte `at`.
    pub fn line_number(&self, at: usize) -> usize {
        self.line_of(at).0 + 1
    }

    /// Whether byte `at` is not to be shown.
    pub fn hidden(&self, at: usize) -> bool {
        self.secrets.iter().any(|secret| secret.contains(&at))
    }

    /// The place of `span`; a span outside of the text or inside of a character is moved to the nearest one
    /// that is not.
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = self.text.floor_char_boundary(span.start.min(self.text.len()));
        let end = self.text.ceil_char_boundary(span.end.clamp(start, self.text.len()));
        let (line, line_start) = self.line_of(start);
        let column = self.text.get(line_start..start).unwrap_or_default().chars().count() + 1;
        let (shown, caret, width) = self.picture(self.line(line), line_start, start..end);
        Place { path: self.path.to_owned(), line: line + 1, column, span: start..end, shown, caret, width }
    }

    /// The line as it can be shown, where the caret starts and how wide it is, in characters.
    fn picture(&self, line: &str, line_start: usize, span: Range<usize>) -> (String, usize, usize) {
        let caret_at = (span.start - line_start).min(line.len());
        let before = line.get(..caret_at).unwrap_or_default();
        // Only a line that is too long is cut at its start.
        let cut = line.chars().nth(SHOWN_MAX).is_some();
        let from = match before.char_indices().rev().nth(BEFORE_CARET - 1) {
            Some((from, _)) if cut => from,
            Some(_) | None => 0,
        };
        let window = line_start + from..line_start + from + SHOWN_MAX * 4; // bytes of that many characters
        let meets = |secret: &&Range<usize>| secret.start < window.end && window.start < secret.end;
        let secrets: Vec<&Range<usize>> = self.secrets.iter().filter(meets).collect();
        let mut shown = if from > 0 { "…".to_owned() } else { String::new() };
        let (mut room, mut caret, mut width) = (SHOWN_MAX, shown.chars().count(), 0);
        for (offset, letter) in line.get(from..).unwrap_or_default().char_indices() {
            let at = line_start + from + offset;
            let hidden = secrets.iter().any(|secret| secret.contains(&at));
            let piece = if hidden { "*".to_owned() } else { show(letter) };
            let length = piece.chars().count();
            if length > room {
                shown.push('…');
                break;
            }
            room -= length;
            shown.push_str(&piece);
            if at < span.start {
                caret += length;
            } else if at < span.end {
                width += length;
            }
        }
        (shown, caret, width.max(1))
    }
}

/// One character as it can be shown on a terminal.
fn show(letter: char) -> String {
    if letter == '\t' {
        TAB.to_owned()
    } else if obeyed(letter) {
        letter.escape_default().to_string()
    } else {
        letter.to_string()
    }
}

/// Whether a terminal, or a reader's eye, would be led astray by it: control characters, changes of
/// direction, characters without width and other line ends.
fn obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(letter, '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text with everything that a terminal would obey escaped.
pub(super) fn visible(text: &str) -> String {
    text.chars()
        .map(|letter| if obeyed(letter) { letter.escape_default().to_string() } else { letter.into() })
        .collect()
}

/// The same of a text of several lines, which stay lines: for what paths and words of units are told in.
pub fn visible_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(visible).collect();
    lines.join("\n")
}

/// A user's word in backticks, escaped, and cut where it is long.
pub(super) fn tick(word: &str) -> String {
    let mut rest = word.chars();
    let kept: String = rest.by_ref().take(WORD_MAX).collect();
    let cut = if rest.next().is_some() { "…" } else { "" };
    format!("`{}{cut}`", visible(&kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(text: &str, span: Range<usize>) -> String {
        Source::new("x", text).place(span).picture()
    }

    #[test]
    fn a_column_is_a_character_and_the_caret_stands_below_it() {
        let place = Source::new("x", "a = 1\n\u{e9}\u{e9} = 2\r\n").place(11..12);
        assert_eq!((place.line, place.column), (2, 4), "{place:?}");
        assert_eq!(place.picture(), "  2 | éé = 2\n    |    ^");
    }

    #[test]
    fn tabs_and_what_a_terminal_obeys_keep_the_caret_right() {
        assert_eq!(picture("\ta\t= 1", 1..2), "  1 |     a    = 1\n    |     ^");
        assert_eq!(picture("\u{1b}[2J = 1", 5..6), "  1 | \\u{1b}[2J = 1\n    |           ^");
        assert_eq!(picture("\u{202e}x", 3..4), "  1 | \\u{202e}x\n    |         ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}here{}", "a".repeat(5000), "b".repeat(5000));
        let shown = picture(&text, 5000..5004);
        assert_eq!(shown.lines().next().unwrap().chars().count(), "  1 | ……".chars().count() + SHOWN_MAX);
        assert_eq!(shown.lines().last().unwrap(), format!("    | {}^^^^", " ".repeat(BEFORE_CARET + 1)));
        assert!(shown.contains("ahereb"));
    }

    #[test]
    fn the_end_of_a_text_and_spans_outside_of_it_are_places() {
        assert_eq!(picture("a = ", 4..4), "  1 | a =\n    |     ^");
        assert_eq!(picture("a\n", 2..2), "  2 |\n    | ^");
        let place = Source::new("x", "\u{e9}").place(1..900);
        assert_eq!((place.span, place.line, place.column), (0..2, 1, 1));
    }

    #[test]
    fn what_is_hidden_is_not_shown() {
        let mut source = Source::new("x", "a = \"secret\"");
        source.hide(4..12);
        let picture = source.place(0..1).picture();
        assert!(!picture.contains("secret"), "{picture}");
    }
}
