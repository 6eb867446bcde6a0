//! ROOT. `[access]`: who else may see and control which service, by the numbers that the kernel gives of a peer. Never
//! by anything that a peer says of itself.
//!
//! Root and the supervisor's own user may everything. Whom a service runs as may see it and read its output, and no
//! more: what has broken into a service must not get at the others through here. A service that somebody may not see
//! does not exist for them: it is not listed, no glob finds it, and its name is answered like one that nobody has.

use std::collections::BTreeMap;

use super::Manager;
use crate::policy::ServiceId;
use crate::unit::{Who, check_name};
use crate::wire::control::Refusal;
use crate::wire::names::{self, Unknown};
use crate::wire::verb::{Right, Rights};

/// A peer, by the kernel's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group and supplementary groups.
    pub groups: Vec<u32>,
    /// Whether this is root or the supervisor's own user.
    pub is_ours: bool,
}

/// The most that each may on any service: enough to tell whether what a peer says is looked at at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    everyone: Option<Right>,
    users: BTreeMap<u32, Right>,
    groups: BTreeMap<u32, Right>,
}

impl Book {
    /// What a peer may do on some service.
    pub fn rights(&self, caller: &Caller) -> Rights {
        if caller.is_ours {
            return Rights::EVERYTHING;
        }
        let user = self.users.get(&caller.uid).copied();
        let groups = caller.groups.iter().filter_map(|group| self.groups.get(group).copied()).max();
        self.everyone.max(user).max(groups).map_or(Rights::NONE, Rights::up_to)
    }

    fn note(&mut self, who: Number, right: Right) {
        let place = match who {
            Number::Everyone => self.everyone.get_or_insert(right),
            Number::User(uid) => self.users.entry(uid).or_insert(right),
            Number::Group(gid) => self.groups.entry(gid).or_insert(right),
        };
        *place = (*place).max(right);
    }
}

/// An entry of `[access]` by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    User(u32),
    Group(u32),
    Everyone,
}

impl Number {
    fn is(self, caller: &Caller) -> bool {
        match self {
            Self::Everyone => true,
            Self::User(uid) => caller.uid == uid,
            Self::Group(gid) => caller.groups.contains(&gid),
        }
    }
}

impl Manager {
    /// Everything that `[access]` of a service gives, and what its own user has.
    fn grants(&self, id: ServiceId) -> Vec<(Number, Right)> {
        let Some(known) = self.services.get(&id) else { return Vec::new() };
        let Some(unit) = &known.unit else { return Vec::new() };
        let number = |who: &Who| match who {
            Who::Everyone => Some(Number::Everyone),
            // A name that was not found has no number, and nobody gets anything by it.
            Who::User(name) => known.inputs.users.get(name).map(Number::User),
            Who::Group(name) => {
                name.parse().ok().or_else(|| known.inputs.groups.get(name)).map(Number::Group)
            }
        };
        let lists = [
            (&unit.access.status, Right::Status),
            (&unit.access.logs, Right::Logs),
            (&unit.access.control, Right::Control),
        ];
        let mut grants: Vec<(Number, Right)> = lists
            .into_iter()
            .flat_map(|(list, right)| list.iter().filter_map(number).map(move |who| (who, right)))
            .collect();
        grants.extend(known.inputs.account.as_ref().map(|own| (Number::User(own.uid), Right::Logs)));
        grants
    }

    /// The most that a peer may on a service; None: for them there is none.
    pub(super) fn right_on(&self, id: ServiceId, caller: &Caller) -> Option<Right> {
        if caller.is_ours {
            return Some(Right::Everything);
        }
        self.grants(id).into_iter().filter(|(who, _)| who.is(caller)).map(|(_, right)| right).max()
    }

    /// Tells the control socket whom to listen to, after units were read.
    pub(super) fn write_book(&mut self) {
        let mut book = Book::default();
        for id in self.services.keys() {
            for (who, right) in self.grants(*id) {
                book.note(who, right);
            }
        }
        if let Some(control) = &mut self.control {
            control.judge_by(book);
        }
    }

    /// The services that `wanted` names, on all of which the caller has the right `needs`; no name means all on which
    /// they have it.
    pub(super) fn resolve(
        &self,
        wanted: &[String],
        caller: &Caller,
        needs: Right,
    ) -> Result<Vec<ServiceId>, Refusal> {
        let mut visible: Vec<(&str, ServiceId, Right)> = self
            .services
            .iter()
            .filter_map(|(id, known)| Some((known.name.as_str(), *id, self.right_on(*id, caller)?)))
            .collect();
        visible.sort_unstable();
        let plain: Vec<&str> = visible.iter().map(|(name, ..)| *name).collect();
        let chosen = if wanted.is_empty() {
            plain
        } else {
            names::resolve(wanted, &plain)
                .map_err(|unknown| Refusal::NoSuchService(self.with_file(unknown, caller)))?
        };
        let mut found = Vec::with_capacity(chosen.len());
        for name in chosen {
            let place = visible.binary_search_by(|(one, ..)| (*one).cmp(name)).ok();
            let Some((_, id, right)) = place.and_then(|place| visible.get(place)) else { continue };
            match (*right >= needs, wanted.is_empty()) {
                (true, _) => found.push(*id),
                // Who names none means those that he may.
                (false, true) => {}
                (false, false) => return Err(Refusal::NotPermitted(needs, Some(name.to_owned()))),
            }
        }
        Ok(found)
    }

    /// Whether there is a unit's file of that name all the same: it came after the units were read. Who may not see all
    /// services is told nothing of what lies in their directories.
    fn with_file(&self, unknown: Unknown, caller: &Caller) -> Unknown {
        if !caller.is_ours || check_name(&unknown.name).is_err() {
            return unknown;
        }
        let mut files = self.settings.units.iter().map(|one| one.join(format!("{}.toml", unknown.name)));
        let file = files.find(|path| path.symlink_metadata().is_ok());
        Unknown { file: file.map(|path| path.display().to_string()), ..unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, groups: &[u32]) -> Caller {
        Caller { uid, groups: groups.to_vec(), is_ours: false }
    }

    #[test]
    fn the_book_has_the_most_that_anybody_may() {
        let mut book = Book::default();
        assert!(book.rights(&caller(1, &[1])).is_none());
        book.note(Number::User(1), Right::Status);
        book.note(Number::Group(7), Right::Control);
        book.note(Number::User(1), Right::Logs);
        book.note(Number::User(1), Right::Status);
        assert_eq!(book.rights(&caller(1, &[1])), Rights::up_to(Right::Logs));
        assert_eq!(book.rights(&caller(1, &[1, 7])), Rights::up_to(Right::Control));
        assert_eq!(book.rights(&caller(2, &[7])), Rights::up_to(Right::Control));
        assert!(book.rights(&caller(2, &[2])).is_none());
        book.note(Number::Everyone, Right::Status);
        assert_eq!(book.rights(&caller(2, &[2])), Rights::up_to(Right::Status));
        let ours = Caller { is_ours: true, ..caller(2, &[2]) };
        assert_eq!(Book::default().rights(&ours), Rights::EVERYTHING);
    }
}
