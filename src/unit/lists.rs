//! PURE. Values with parts: lists of commands and of exit codes, and the table of a descriptor. Never knows of
//! other keys.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::command::Command;
use super::fault::{CommandFault, ValueFault};
use super::value::{Raw, Reader, Value, raw_of};
use super::{LIST_MAX, SOCKETS_MAX};

impl Reader<'_> {
    /// Commands that are given no sockets.
    pub(super) fn commands(&mut self, raw: &Raw<'_>) -> Option<Vec<Command>> {
        let items = match raw {
            Raw::Empty => return Some(Vec::new()),
            Raw::List(items) if items.len() > LIST_MAX => {
                let key = self.name();
                return self.tell(ValueFault::Many { key });
            }
            Raw::List(items) => items,
            _ => return self.unfit(raw, Some("write a list of commands, also where there is one")),
        };
        let mut commands = Some(Vec::new());
        for item in items.iter() {
            let mut reader =
                Reader { key: self.key, span: item.span(), source: self.source, note: self.note };
            match reader.command(&raw_of(item.get_ref())) {
                Some(Value::Command(command, asked)) => {
                    for (name, span) in asked {
                        commands = reader.tell_at(span, CommandFault::NoSocketsYet { name });
                    }
                    if let Some(commands) = &mut commands {
                        commands.push(command);
                    }
                }
                _ => commands = None, // told
            }
        }
        commands
    }

    pub(super) fn codes(&mut self, raw: &Raw<'_>) -> Option<Vec<u8>> {
        let items = match raw {
            Raw::Empty => return Some(vec![0]), // the table's `[0]`
            Raw::List(items) if items.len() <= 256 => items,
            _ => return self.unfit(raw, None),
        };
        let code = |item: &Spanned<DeValue<'_>>| self.number(&raw_of(item.get_ref()), 0, 255);
        let codes: Option<Vec<i64>> = items.iter().map(code).collect();
        Some(codes?.into_iter().filter_map(|code| u8::try_from(code).ok()).collect())
    }

    /// `{ fd = N }`
    pub(super) fn descriptor(&mut self, table: &DeTable<'_>) -> Option<Value> {
        let mut keys = table.iter();
        let (Some((key, value)), None) = (keys.next(), keys.next()) else {
            return self.misshapen("{ … }", "`{ fd = N }`", "write the one number that it says its word on");
        };
        if key.get_ref() != "fd" {
            return self.misshapen(key.get_ref(), "`{ fd = N }`", "did you mean `fd`?");
        }
        let most = 2 + SOCKETS_MAX as i64;
        let number = self.number(&raw_of(value.get_ref()), 3, most)?;
        u32::try_from(number).ok().map(Value::Descriptor)
    }
}
