//! PURE. The names of a service's log files: `current`, and older ones named after the moment they gave way.
//! Never a directory.
//!
//! | name | is |
//! |---|---|
//! | `current` | the file that grows |
//! | `20261123T031245.123456789Z.log` | an older one; all of its lines are from before that moment, in UTC |
//! | `20261123T031245.123456789Z.log.gz` | the same, compressed; where both are there, they say the same |
//! | `20261123T031245.123456789Z.log.gz.part` | half of that, of a process that ended meanwhile; no log |

use super::cri::{STAMP_BYTES, Stamp, parse_stamp};

/// The file that grows.
pub const CURRENT: &str = "current";

/// Bytes of a moment in a name: a stamp without its four separators.
const MOMENT_BYTES: usize = STAMP_BYTES - 4;
const PLAIN: &str = ".log";
const PACKED: &str = ".log.gz";
const PART: &str = ".log.gz.part";

/// In which form an older file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As it was written.
    Plain,
    /// Compressed.
    Packed,
    /// Half compressed, and to be thrown away.
    Part,
}

/// An older file: its moment, as it stands in the name, and its form. Their order is that of their lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Old {
    moment: [u8; MOMENT_BYTES],
    /// In which form.
    pub form: Form,
}

impl Old {
    /// One that gives way now, still plain.
    pub fn at(stamp: &Stamp) -> Self {
        let mut moment = [0; MOMENT_BYTES];
        let kept = stamp.as_bytes().iter().filter(|byte| !b"-:".contains(byte));
        moment.iter_mut().zip(kept).for_each(|(place, byte)| *place = *byte);
        Self { moment, form: Form::Plain }
    }

    /// What a name in the directory of a service says; None for any other file.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let (moment, rest) = name.split_first_chunk::<MOMENT_BYTES>()?;
        let form = [(PLAIN, Form::Plain), (PACKED, Form::Packed), (PART, Form::Part)];
        let form = form.iter().find(|(end, _)| end.as_bytes() == rest)?.1;
        let old = Self { moment: *moment, form };
        old.time().map(|_| old)
    }

    /// Its name in this form.
    pub fn name(&self, form: Form) -> String {
        let end = match form {
            Form::Plain => PLAIN,
            Form::Packed => PACKED,
            Form::Part => PART,
        };
        format!("{}{end}", String::from_utf8_lossy(&self.moment))
    }

    /// Whether both are the same file, perhaps in two forms.
    pub fn is_same(&self, other: &Self) -> bool {
        self.moment == other.moment
    }

    /// The moment: seconds and nanoseconds since 1970.
    pub fn time(&self) -> Option<(u64, u32)> {
        let mut stamp = *b"0000-00-00T00:00:00.000000000Z";
        let places = stamp.iter_mut().filter(|byte| !b"-:".contains(byte));
        places.zip(self.moment).for_each(|(place, byte)| *place = byte);
        parse_stamp(&stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_and_in_which_form() {
        let old = Old::at(&Stamp::new(1_795_403_565, 123_456_789));
        let name = "20261123T031245.123456789Z";
        for (form, end) in [(Form::Plain, ".log"), (Form::Packed, ".log.gz"), (Form::Part, ".log.gz.part")] {
            assert_eq!(old.name(form), format!("{name}{end}"));
            let back = Old::parse(old.name(form).as_bytes()).unwrap();
            assert!(back.form == form && back.is_same(&old));
            assert_eq!(back.time(), Some((1_795_403_565, 123_456_789)));
        }
        assert!(old < Old::at(&Stamp::new(1_795_403_565, 123_456_790)));
    }

    #[test]
    fn another_name_is_no_old_file() {
        for name in [
            "",
            "current",
            "20261123T031245.123456789Z",
            "20261123T031245.123456789Z.log.xz",
            "20261323T031245.123456789Z.log",
            "2026112xT031245.123456789Z.log",
            "20261123 031245.123456789Z.log",
        ] {
            assert_eq!(Old::parse(name.as_bytes()), None, "{name}");
        }
    }
}
