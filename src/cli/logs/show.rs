//! USER. A line of a log as it is printed: with its time and its service, safe for a terminal. Never changes what
//! goes to a file or a program.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::lines::{Line, Moment};
use crate::cli::text::{self, Paint, Tone};

/// What is printed of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Time, service, content.
    Text,
    /// The bytes of the content alone, as they came.
    Raw,
    /// One JSON object.
    Json,
}

/// How lines are printed.
#[derive(Debug)]
pub struct Show {
    /// What of them.
    pub form: Form,
    /// Whether what acts on a terminal is escaped.
    pub safe: bool,
    /// Colours, or none.
    pub paint: Paint,
    /// Where the clocks are that the times are of.
    pub zone: TimeZone,
    /// Columns for the name of the service; 0 where there is only one.
    pub width: usize,
    second: Option<(u64, String)>,
}

impl Show {
    /// One that has shown nothing yet.
    pub fn new(form: Form, safe: bool, paint: Paint, zone: TimeZone, width: usize) -> Self {
        Self { form, safe, paint, zone, width, second: None }
    }

    /// Adds a line to what goes out.
    pub fn line(&mut self, out: &mut Vec<u8>, service: &str, line: &Line) {
        match self.form {
            Form::Raw => out.extend(&line.content),
            Form::Json => {
                let message = String::from_utf8_lossy(&line.content);
                let value = json!({
                    "time": timestamp(line.at).to_string(),
                    "service": service,
                    "stream": line.which.word(),
                    "message": message,
                });
                out.extend(text::json(&value.to_string()).into_bytes());
            }
            Form::Text => {
                let time = self.time(line.at);
                out.extend(self.paint.tint(Tone::Quiet, &time).into_bytes());
                out.push(b' ');
                if self.width > 0 {
                    let name = format!("{service:<width$}", width = self.width);
                    out.extend(self.paint.one_of_many(service, &name).into_bytes());
                    out.push(b' ');
                }
                match self.safe {
                    true => out.extend(escaped(&line.content).into_bytes()),
                    false => out.extend(&line.content),
                }
            }
        }
        out.push(b'\n');
    }

    /// `2026-11-23 04:12:45.123`, with a `Z` where that is UTC.
    fn time(&mut self, (seconds, nanos): Moment) -> String {
        let head = match &self.second {
            Some((known, head)) if *known == seconds => head.clone(),
            _ => {
                let zoned = timestamp((seconds, 0)).to_zoned_datetime(self.zone.clone());
                let head = zoned.strftime("%Y-%m-%d %H:%M:%S").to_string();
                self.second = Some((seconds, head.clone()));
                head
            }
        };
        let end = if self.zone == TimeZone::UTC { "Z" } else { "" };
        format!("{head}.{:03}{end}", nanos / 1_000_000)
    }
}

fn timestamp((seconds, nanos): Moment) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::new(seconds, i32::try_from(nanos).unwrap_or(0)).unwrap_or(Timestamp::MAX)
}

/// Bytes for a terminal: what is no text as `\xff`, what would act as its escape; a tab stays one.
fn escaped(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let parts: Vec<String> = chunk.valid().split('\t').map(text::shown).collect();
        safe.push_str(&parts.join("\t"));
        chunk.invalid().iter().for_each(|byte| safe.push_str(&format!("\\x{byte:02x}")));
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cri::Which;

    fn printed(form: Form, safe: bool, content: &[u8]) -> String {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let mut show = Show::new(form, safe, Paint::new(false), zone, 5);
        let line = Line { at: (1_795_403_565, 123_456_789), which: Which::Stderr, content: content.to_vec() };
        let mut out = Vec::new();
        show.line(&mut out, "web", &line);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_line_has_its_time_and_its_service() {
        assert_eq!(
            printed(Form::Text, true, b"Gr\xc3\xbc\xc3\x9fe\t1"),
            "2026-11-23 04:12:45.123 web   Grüße\t1\n"
        );
        let json = "{\"message\":\"a\",\"service\":\"web\",\"stream\":\"stderr\",\"time\":\"2026-11-23T03:12:45.123456789Z\"}\n";
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&printed(Form::Json, true, b"a")), value(json));
        assert_eq!(printed(Form::Raw, true, b"\x1b[1m\r"), "\x1b[1m\r\n");
    }

    #[test]
    fn nothing_acts_on_a_terminal_and_everything_reaches_a_file() {
        let hostile = b"\x1b[2J\r\x7f\xc2\x9b1m\xe2\x80\xaetxt\xff\x00\x07";
        let text = printed(Form::Text, true, hostile);
        assert!(text.ends_with(" web   \\x1b[2J\\r\\x7f\\u{9b}1m\\u{202e}txt\\xff\\x00\\x07\n"), "{text}");
        assert!(printed(Form::Text, false, hostile).contains("\u{1b}[2J\r\u{7f}\u{9b}1m\u{202e}txt"));
        assert!(
            !printed(Form::Json, true, hostile).contains(['\u{1b}', '\r', '\u{7f}', '\u{9b}', '\u{202e}'])
        );
    }
}
