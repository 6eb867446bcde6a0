//! PURE. `man/supervise-unit.5`, printed from the key table. Never written by hand.

use super::keys::{Key, Preset, Since, Table};
use super::reference::takes;

const HEAD: &str = "\
.TH SUPERVISE\\-UNIT 5 \"\" \"supervise\" \"File formats\"
.SH NAME
supervise\\-unit \\- a service and its sockets, for supervise(1)
.SH SYNOPSIS
.nf
\\fINAME\\fR.toml
\\fINAME\\fR.toml.d/*.toml
defaults.toml
.fi
.SH DESCRIPTION
";

/// The paragraphs above the keys.
const ABOUT: &[&str] = &[
    "A unit is a TOML file that describes one service and its sockets: `web.toml` describes the service `web`. A \
     name is `[a-z0-9][a-z0-9._-]{0,62}`. Units are read from the directories of `supervise run`, earlier ones \
     before later ones.",
    "`defaults.toml` beside the directory is laid under every unit of it, and the drop-ins `web.toml.d/*.toml` \
     over `web.toml`, in the order of their names: tables merge, everything else replaces.",
    "An unknown key, a bad value, an unknown user: that unit does not run, and the others do. All problems of all \
     files are told at once, each with its line. Files that others than root and the supervisor's user can write \
     are refused.",
    "Durations are written `\"250ms\"`, `\"10s\"`, `\"5min\"`, `\"1h\"`, and `\"off\"` for no limit; sizes `\"64K\"`, \
     `\"10M\"`, `\"1G\"`.",
];

const EXAMPLE: &str = "\
.SH EXAMPLE
.EX
[service]
command = [\"bin/gunicorn\", \"bagels.wsgi\", \"\\-\\-workers\", \"2\"]
user = \"bagels\"
directory = \"/srv/bagels/current\"
environment = { DJANGO_SETTINGS_MODULE = \"bagels.settings\" }

[socket.http]
listen = \"0.0.0.0:80\"

[socket.local]
listen = \"/run/bagels/http.sock\"
group = \"www\\-data\"
.EE
.SH SEE ALSO
.BR supervise (1),
.BR sd_listen_fds (3)
";

/// The whole page.
pub fn manual() -> String {
    let mut page = HEAD.to_owned();
    for (at, paragraph) in ABOUT.iter().enumerate() {
        if at > 0 {
            page.push_str(".PP\n");
        }
        page.push_str(&paragraph_of(paragraph));
    }
    page.push_str(".SH KEYS\n");
    for table in Table::ALL {
        page.push_str(&format!(".SS {}\n", plain(table.header())));
        page.push_str(&paragraph_of(table.doc()));
        for key in table.keys() {
            row(&mut page, key);
        }
    }
    page.push_str(EXAMPLE);
    page
}

fn row(page: &mut String, key: &Key) {
    let preset = match key.preset {
        Preset::Is(value) => format!("Default: `{value}`."),
        Preset::Unset(value) => format!("Unset by default; an example: `{value}`."),
        Preset::Required(value) => format!("Required; an example: `{value}`."),
    };
    let later = match key.since {
        Since::Now => "",
        Since::Later => " Not supported yet.",
    };
    page.push_str(&format!(".TP\n.B {}\n", plain(key.name)));
    page.push_str(&paragraph_of(&format!("{}{later} Takes {}. {preset}", key.doc, takes(key))));
}

/// A paragraph as roff: backticks become bold, and nothing is a request by accident.
pub fn paragraph_of(text: &str) -> String {
    let mut line = String::new();
    for (at, part) in text.split('`').enumerate() {
        let is_code = at % 2 == 1;
        line.push_str(if is_code { "\\fB" } else { "" });
        line.push_str(&plain(part));
        line.push_str(if is_code { "\\fR" } else { "" });
    }
    let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{line}\n")
}

/// Text as roff that prints as it is.
pub fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let lead = if text.starts_with(char::is_whitespace) { " " } else { "" };
    let trail = if text.len() > 1 && text.ends_with(char::is_whitespace) { " " } else { "" };
    let text = format!("{lead}{}{trail}", words.join(" "));
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('…', "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_prints_as_it_is() {
        assert_eq!(paragraph_of(".so `a-b` c\\d  e"), "\\&.so \\fBa\\-b\\fR c\\ed e\n");
        assert_eq!(plain(" a 'b' "), " a \\(aqb\\(aq ");
        assert_eq!(plain(" "), " ");
    }

    #[test]
    fn every_key_has_its_row() {
        let page = manual();
        for table in Table::ALL {
            for key in table.keys() {
                assert!(page.contains(&format!(".B {}\n", plain(key.name))), "{}", key.name);
            }
        }
    }
}
