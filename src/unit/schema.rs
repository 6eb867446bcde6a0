//! PURE. `units/schema.json`, printed from the key table: JSON Schema for editors that complete and check TOML. Never
//! stricter than the parser, which alone decides.

use super::keys::{Key, Preset, Shape, Since, Table};
use super::reference::takes;

/// The whole schema.
pub fn schema() -> String {
    let mut top: Vec<String> = Table::Top.keys().map(|key| property(key, 4)).collect();
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Top) {
        top.push(match table {
            Table::Dev => format!("    \"dev\": {{ \"description\": {}, \"type\": \"object\" }}", text(table.doc())),
            Table::Socket => format!(
                "    \"socket\": {{\n      \"description\": {},\n      \"type\": \"object\",\n      \"additionalProperties\": {{\n{}\n      }}\n    }}",
                text(table.doc()),
                object(table, 8)
            ),
            _ => format!(
                "    \"{}\": {{\n      \"description\": {},\n{}\n    }}",
                table.name(),
                text(table.doc()),
                object(table, 6)
            ),
        });
    }
    format!(
        "{{\n  \"$schema\": \"http://json-schema.org/draft-07/schema#\",\n  \"title\": \"A unit of supervise\",\n  \
         \"type\": \"object\",\n  \"additionalProperties\": false,\n  \"properties\": {{\n{}\n  }}\n}}\n",
        top.join(",\n")
    )
}

fn object(table: Table, indent: usize) -> String {
    let blank = " ".repeat(indent);
    let keys: Vec<String> = table.keys().map(|key| property(key, indent + 2)).collect();
    let required: Vec<String> = table
        .keys()
        .filter(|key| matches!(key.preset, Preset::Required(_)))
        .map(|key| text(key.name))
        .collect();
    let keys = keys.join(",\n");
    // `command` may stand in another layer of the same unit, so only what a socket needs is said to be missing.
    let required = match (table, required.is_empty()) {
        (Table::Socket, false) => format!("{blank}\"required\": [{}],\n", required.join(", ")),
        _ => String::new(),
    };
    format!(
        "{blank}\"type\": \"object\",\n{blank}\"additionalProperties\": false,\n{required}{blank}\"properties\": {{\n{keys}\n{blank}}}"
    )
}

fn property(key: &Key, indent: usize) -> String {
    let later = if key.since == Since::Later { " Not supported yet." } else { "" };
    let description = text(&format!("{}{later} Takes {}.", key.doc, takes(key)));
    let default = match key.preset {
        Preset::Is(value) => format!(", \"default\": {value}"),
        Preset::Unset(_) | Preset::Required(_) => String::new(),
    };
    let blank = " ".repeat(indent);
    format!("{blank}\"{}\": {{ \"description\": {description}, {}{default} }}", key.name, kind(key.shape))
}

/// What a value of this shape is in JSON.
fn kind(shape: Shape) -> String {
    const LIST: &str = r#""type": "array", "items": { "type": "string" }"#;
    match shape {
        Shape::Flag => r#""type": "boolean""#.to_owned(),
        Shape::Number(least, i64::MAX) => format!("\"type\": \"integer\", \"minimum\": {least}"),
        Shape::Number(least, most) => {
            format!("\"type\": \"integer\", \"minimum\": {least}, \"maximum\": {most}")
        }
        Shape::Count | Shape::Size(_) | Shape::Account => r#""type": ["integer", "string"]"#.to_owned(),
        Shape::Texts | Shape::Command => {
            r#""type": ["array", "string"], "items": { "type": "string" }"#.to_owned()
        }
        Shape::Names | Shape::Units | Shape::Variables | Shape::Capabilities | Shape::Whos | Shape::Paths => {
            LIST.to_owned()
        }
        Shape::Commands => r#""type": "array", "items": { "type": ["array", "string"] }"#.to_owned(),
        Shape::Codes => {
            r#""type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 255 }"#.to_owned()
        }
        Shape::Accounts | Shape::Processors => {
            r#""type": "array", "items": { "type": ["integer", "string"] }"#.to_owned()
        }
        Shape::Environment => r#""type": "object", "additionalProperties": { "type": "string" }"#.to_owned(),
        Shape::Reload => r#""type": "object", "minProperties": 1, "maxProperties": 1"#.to_owned(),
        Shape::Choice(choices) => {
            let words = choices.iter().filter(|(word, _)| !word.starts_with('{')).map(|(word, _)| text(word));
            let words = format!("\"enum\": [{}]", words.collect::<Vec<_>>().join(", "));
            match choices.iter().any(|(word, _)| word.starts_with('{')) {
                true => format!("\"anyOf\": [{{ {words} }}, {{ \"type\": \"object\" }}]"),
                false => words,
            }
        }
        Shape::Text
        | Shape::Path
        | Shape::Directory
        | Shape::SocketName
        | Shape::GivenName
        | Shape::Host
        | Shape::UrlPath
        | Shape::Percent
        | Shape::Duration(_)
        | Shape::DurationOrOff(_)
        | Shape::Mode
        | Shape::Signal
        | Shape::Address => r#""type": "string""#.to_owned(),
    }
}

/// A JSON string; the table has no control characters.
fn text(words: &str) -> String {
    format!("\"{}\"", words.replace('\\', "\\\\").replace('"', "\\\""))
}
