//! PURE. What the layers of a unit say, key by key, before it is made into a unit. Never checks anything.

use std::collections::BTreeMap;
use std::ops::Range;

use super::fault::Fault;
use super::keys::Table;
use super::value::Value;

/// A place that is not yet worked out: which layer, and which bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub layer: usize,
    pub span: Range<usize>,
}

/// A problem that is not yet shown.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub spot: Spot,
    pub fault: Fault,
}

/// One key that somebody wrote. The value is None where it was wrong, which has been told.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub key: Spot,
    pub place: Spot,
    pub value: Option<Value>,
}

/// The keys of one socket.
#[derive(Clone, Debug)]
pub(super) struct SocketSettings {
    pub name: String,
    pub spot: Spot,
    pub keys: BTreeMap<&'static str, Setting>,
}

/// Everything that was written.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub tables: BTreeMap<Table, Spot>,
    pub keys: BTreeMap<(Table, &'static str), Setting>,
    /// In the order of their first mention.
    pub sockets: Vec<SocketSettings>,
}

impl Settings {
    /// Lays `over` on top: tables merge, everything else replaces.
    pub fn overlay(&mut self, over: Self) {
        self.tables.extend(over.tables);
        for (name, setting) in over.keys {
            lay(&mut self.keys, name, setting);
        }
        for socket in over.sockets {
            match self.sockets.iter_mut().find(|below| below.name == socket.name) {
                Some(below) => {
                    for (name, setting) in socket.keys {
                        lay(&mut below.keys, name, setting);
                    }
                }
                None => self.sockets.push(socket),
            }
        }
    }
}

fn lay<Name: Ord>(keys: &mut BTreeMap<Name, Setting>, name: Name, mut over: Setting) {
    if let Some(below) = keys.remove(&name)
        && let (Some(Value::Environment(below)), Some(Value::Environment(above))) =
            (below.value, &mut over.value)
    {
        let written = std::mem::replace(above, below);
        above.0.extend(written.0);
    }
    keys.insert(name, over);
}
