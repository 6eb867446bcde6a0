//! PURE. Values that are one word of a form of its own: paths and hosts of a request, names of directories, shares
//! of a processor. Never knows of other keys.

use super::fault::ValueFault;
use super::model::is_name;
use super::value::{Raw, Reader};

/// Most processors' worth of time that a unit can write.
const PERCENT_MAX: u32 = 100 * 8192;
/// Longest name of a descriptor (sd_listen_fds_with_names(3)).
const GIVEN_BYTES_MAX: usize = 255;
/// Longest host name.
const HOST_BYTES_MAX: usize = 255;
/// What is below /run, /var/lib and /var/cache already, and ours.
const OURS: &str = "supervise";

impl Reader<'_> {
    /// The path of a request: nothing in it can end the line that it is sent in.
    pub(super) fn url_path(&mut self, raw: &Raw<'_>) -> Option<String> {
        let path = self.text(raw)?;
        if !path.starts_with('/') {
            let meant = path.split_once("://").map_or(path.as_str(), |(_, rest)| rest);
            let meant = match meant.find('/') {
                Some(at) if path.contains("://") => meant.get(at..).unwrap_or("/").to_owned(),
                _ if path.contains("://") => "/".to_owned(),
                _ => format!("/{path}"),
            };
            return self.misshapen(&path, "a path that begins with `/`", &format!("write `\"{meant}\"`"));
        }
        if path.contains(char::is_whitespace) || !path.is_ascii() {
            let remedy =
                "write what is not plain ASCII as `%` and two hexadecimal digits, such as `%20` for a blank";
            return self.misshapen(&path, "the path of a request", remedy);
        }
        Some(path)
    }

    /// A host name, or an address, perhaps with a port.
    pub(super) fn host(&mut self, raw: &Raw<'_>) -> Option<String> {
        let host = self.text(raw)?;
        let plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        };
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(plain) {
            return self.misshapen(&host, "a host name", "write it such as `\"bagels.example\"`");
        }
        Some(host)
    }

    /// The name of a directory below one that is root's: one part, so that nothing else's directory is in its way.
    pub(super) fn directory(&mut self, raw: &Raw<'_>) -> Option<String> {
        let name = self.string(raw)?.to_owned();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let right = (1..=255).contains(&name.len())
            && name.bytes().all(plain)
            && name.starts_with(|first: char| first.is_ascii_alphanumeric());
        if !right {
            let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let remedy = match last {
                last if name.starts_with('/') && !last.is_empty() => {
                    format!("write its name alone, such as `\"{last}\"`")
                }
                _ => "write a name such as `\"bagels\"`".to_owned(),
            };
            return self.misshapen(&name, "a directory's name", &remedy);
        }
        if name == OURS {
            return self.misshapen(&name, "free", "it is supervise's own; write another");
        }
        Some(name)
    }

    pub(super) fn socket_name(&mut self, raw: &Raw<'_>) -> Option<String> {
        let name = self.string(raw)?;
        if is_name(name) {
            return Some(name.to_owned());
        }
        self.misshapen(name, "a socket's name", "write the NAME of a `[socket.NAME]` of this unit")
    }

    /// A name of LISTEN_FDNAMES.
    pub(super) fn given_name(&mut self, raw: &Raw<'_>) -> Option<String> {
        let name = self.string(raw)?;
        let plain = |byte: u8| (32..127).contains(&byte) && byte != b':';
        if (1..=GIVEN_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) {
            return Some(name.to_owned());
        }
        let remedy = "write a name of LISTEN_FDNAMES: 1 to 255 characters of ASCII without `:`";
        self.misshapen(name, "the name of a descriptor", remedy)
    }

    /// `50%` of one processor, in hundredths.
    pub(super) fn percent(&mut self, raw: &Raw<'_>) -> Option<u32> {
        if let Raw::Integer(Some(number @ 1..), _) = raw {
            return self.unfit(raw, Some(&format!("write `\"{number}%\"` of one processor")));
        }
        let word = self.string(raw)?;
        let digits =
            word.strip_suffix('%').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse::<u32>().ok()) {
            Some(percent) if (1..=PERCENT_MAX).contains(&percent) => Some(percent),
            Some(_) => {
                let (key, most) = (self.name(), i64::from(PERCENT_MAX));
                self.tell(ValueFault::Range { key, word: word.to_owned(), least: 1, most })
            }
            None => self.misshapen(
                word,
                "processor time",
                "write it such as `\"50%\"` or, of two processors, `\"200%\"`",
            ),
        }
    }
}
