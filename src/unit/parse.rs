//! PURE. A unit file, or several laid over each other, to a unit or all of its problems. Never stops at the first.

use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use super::build::Builder;
use super::fault::{Fault, FileFault};
use super::model::{Unit, is_name};
use super::problem::Problem;
use super::read::{Layered, looks_like_variable};
use super::settings::{Draft, Settings, Spot};
use super::source::{Place, Source};
use super::{FILE_BYTES_MAX, PROBLEMS_MAX};

/// One file of a unit: its name for messages, and its content.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The file.
    pub path: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// The text of a file's bytes.
///
/// # Errors
/// They are not UTF-8, or more than [`FILE_BYTES_MAX`].
pub fn text<'a>(path: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Problem>> {
    if bytes.len() > FILE_BYTES_MAX {
        let fault = FileFault::TooBig { bytes: bytes.len() };
        return Err(Box::new(Problem::error(Place::whole_file(path), fault)));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        // What stands before the first wrong byte is text, and enough to show where that is.
        let good = bytes
            .get(..error.valid_up_to())
            .and_then(|good| std::str::from_utf8(good).ok())
            .unwrap_or_default();
        let mut source = Source::new(path, good);
        hide_likely_values(&mut source);
        Box::new(Problem::error(source.place(good.len()..good.len()), FileFault::NotText))
    })
}

impl Unit {
    /// Reads the unit file `path`, whose content is `text`, as the unit `name`.
    ///
    /// # Errors
    /// Every problem, in file order; [`PROBLEMS_MAX`] at most, and then how many more.
    pub fn parse(name: &str, path: &str, text: &str) -> Result<Self, Vec<Problem>> {
        Self::parse_layers(name, &[Layer { path, text }])
    }

    /// Reads several files as one unit, each laid over those before it: `defaults.toml`, the unit's own file,
    /// its drop-ins in the order of their names. Tables merge, everything else replaces; what a later file
    /// replaces has to be right all the same.
    ///
    /// The unit's own file is the first whose name is `NAME.toml` or, where it has a wrong name, `NAME`; else the first.
    ///
    /// # Errors
    /// As [`Unit::parse`], file after file.
    pub fn parse_layers(name: &str, layers: &[Layer<'_>]) -> Result<Self, Vec<Problem>> {
        whole(Self::read(name, layers, false))
    }

    /// What could be read of a unit in which not all is right, beside all of its problems. What was wrong has its
    /// default and no place: to be looked at, and never to be run.
    pub fn parse_partly(name: &str, layers: &[Layer<'_>]) -> (Self, Vec<Problem>) {
        Self::read(name, layers, false)
    }

    /// As [`Unit::parse_layers`], as if everything that is known were supported: what a key means is settled, and can be tested,
    /// before what it does is there.
    ///
    /// # Errors
    /// As [`Unit::parse`], without what is only not supported yet.
    pub fn parse_ahead(name: &str, layers: &[Layer<'_>]) -> Result<Self, Vec<Problem>> {
        whole(Self::read(name, layers, true))
    }

    fn read(name: &str, layers: &[Layer<'_>], ahead: bool) -> (Self, Vec<Problem>) {
        let mut sources: Vec<Source<'_>> =
            layers.iter().map(|layer| Source::new(layer.path, layer.text)).collect();
        let own = layers.iter().position(|layer| is_own(name, layer.path)).unwrap_or_default();
        let mut found = Vec::new();
        if !is_name(name) {
            let fault = FileFault::Name { name: name.to_owned() };
            found.push(Draft { spot: Spot { layer: own, span: 0..0 }, fault: fault.into() });
        }
        let (mut settings, mut partial) = (Settings::default(), false);
        for (layer, source) in sources.iter_mut().enumerate() {
            let (over, whole) = read_layer(layer, source, ahead, &mut found);
            settings.overlay(over);
            partial |= !whole;
        }
        if ahead {
            found.retain(|draft| !draft.fault.is_not_yet());
        }
        let unit = Builder { sources: &sources, own, partial, found: &mut found }.build(name, settings);
        (unit, problems(found, &sources))
    }
}

fn whole((unit, problems): (Unit, Vec<Problem>)) -> Result<Unit, Vec<Problem>> {
    if problems.is_empty() { Ok(unit) } else { Err(problems) }
}

fn is_own(name: &str, path: &str) -> bool {
    let file = Path::new(path).file_name().and_then(|file| file.to_str());
    file.is_some_and(|file| file == name || file.strip_suffix(".toml") == Some(name))
}

/// One layer's settings, and whether they are all that it says.
fn read_layer(
    layer: usize,
    source: &mut Source<'_>,
    ahead: bool,
    found: &mut Vec<Draft>,
) -> (Settings, bool) {
    let text = source.text;
    if text.len() > FILE_BYTES_MAX {
        let fault = FileFault::TooBig { bytes: text.len() };
        found.push(Draft { spot: Spot { layer, span: 0..0 }, fault: fault.into() });
        return (Settings::default(), false);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let errors = first_errors(errors, source);
    if !errors.is_empty() {
        hide_likely_values(source);
    }
    let mut astray = false; // a header that is not one puts the keys below it into the wrong table
    for (span, message) in &errors {
        let fault = syntax_fault(message, span, source);
        astray |= source.on_header(span.start) && !matches!(fault, FileFault::Twice { .. });
        found.push(Draft { spot: Spot { layer, span: span.clone() }, fault: fault.into() });
    }
    if astray {
        return (Settings::default(), false);
    }
    let before = found.len();
    let doubtful = !errors.is_empty();
    let Some(settings) = (Layered { layer, source, doubtful, ahead, found }).read(document.get_ref()) else {
        return (Settings::default(), false);
    };
    if errors.is_empty() {
        return (settings, true);
    }
    // What the TOML parser made of a line that it could not read is not what somebody wrote there.
    let lines: Vec<usize> = errors.iter().map(|(span, _)| source.line_number(span.start)).collect();
    let mut index = 0;
    found.retain(|draft| {
        index += 1;
        index <= before || lines.binary_search(&source.line_number(draft.spot.span.start)).is_err()
    });
    (settings, false)
}

/// The parser's errors in file order, the first of each line: what it says after that is mostly about how it went
/// on. Of a list or table that is never closed, which swallows all that follows, only its start and its end.
fn first_errors(errors: Vec<toml::de::Error>, source: &Source<'_>) -> Vec<(Range<usize>, String)> {
    let mut errors: Vec<_> =
        errors.into_iter().map(|error| (error.span().unwrap_or(0..0), error.message().to_owned())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let open =
        |message: &str| ["unclosed array", "unclosed inline"].iter().any(|start| message.starts_with(start));
    let within = |message: &str| message.contains("array") || message.contains("between key-value pairs");
    if errors.iter().any(|(_, message)| open(message))
        && let Some(first) = errors.iter().position(|(_, message)| within(message))
    {
        let mut index = 0;
        errors.retain(|(_, message)| {
            index += 1;
            index <= first + 1 || open(message)
        });
    }
    errors.dedup_by_key(|(span, _)| source.line_number(span.start));
    errors
}

/// What the TOML parser says, in our words where there are better ones.
fn syntax_fault(message: &str, span: &Range<usize>, source: &Source<'_>) -> FileFault {
    let word = source.text.get(span.clone()).unwrap_or_default().trim();
    if message.starts_with("duplicate key") {
        FileFault::Twice { key: word.trim_matches(['"', '\'']).to_owned() }
    } else if message.starts_with("string values must be quoted") && !source.hidden(span.start) {
        FileFault::Unquoted { word: word.to_owned() }
    } else {
        let plain = message.split(", expected literal string").next().unwrap_or_default();
        FileFault::Syntax { message: plain.to_owned() }
    }
}

/// Hides what may be a variable's value in a text that is not TOML, where only its lines can be gone by.
fn hide_likely_values(source: &mut Source<'_>) {
    let (mut below_header, mut open) = (false, false);
    let mut spans = Vec::new();
    for (start, line) in source.lines() {
        let trimmed = line.trim_start();
        if !open && is_header(trimmed) {
            below_header = trimmed.contains("environment");
            continue;
        }
        below_header |= !open && trimmed.starts_with('[') && trimmed.contains("environment");
        let (key, value) = match line.split_once('=') {
            Some((key, value)) if !open => (key, value),
            Some(_) | None => ("", line),
        };
        let named = key.contains("environment") || looks_like_variable(key.trim().trim_matches('"'));
        if open || below_header || named {
            spans.push(start + line.len() - value.trim_start().len()..start + line.len());
        }
        // A value that goes on below: an open brace, or a string in triple quotes.
        let odd = |mark: &str| line.matches(mark).count() % 2 == 1;
        let braces = line.matches('{').count() > line.matches('}').count();
        open = if open {
            !(line.contains('}') || odd("\"\"\"") || odd("'''"))
        } else {
            (below_header || named) && (braces || odd("\"\"\"") || odd("'''"))
        };
    }
    for span in spans {
        source.hide(span);
    }
}

/// Whether a line is a table's header and surely nothing else.
fn is_header(line: &str) -> bool {
    let line = line.trim_end();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
    line.starts_with('[') && line.ends_with(']') && line.bytes().all(plain)
}

/// In the order of the files and of their lines, and not without end.
fn problems(mut found: Vec<Draft>, sources: &[Source<'_>]) -> Vec<Problem> {
    found.sort_by_key(|draft| (draft.spot.layer, draft.spot.span.start));
    let more = found.len().saturating_sub(PROBLEMS_MAX);
    if more > 0 {
        found.truncate(PROBLEMS_MAX);
        if let Some(spot) = found.last().map(|draft| draft.spot.clone()) {
            found.push(Draft { spot, fault: Fault::File(FileFault::More { count: more }) });
        }
    }
    let nothing = Source::new("", "");
    let problem = |draft: Draft| {
        let source = sources.get(draft.spot.layer).unwrap_or(&nothing);
        Problem::error(source.place(draft.spot.span), draft.fault)
    };
    found.into_iter().map(problem).collect()
}
