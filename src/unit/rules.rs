//! PURE. What one unit file cannot tell by itself: whether it suits who runs it, and the units beside it. Never
//! looks at the system.

use std::collections::BTreeMap;
use std::path::Path;

use super::account::Account;
use super::address::Listen;
use super::fault::RuleFault;
use super::model::{Socket, Unit};
use super::problem::Problem;
use super::source::Place;

/// Who runs supervise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner<'a> {
    /// Root, who can run services as anyone.
    Root,
    /// An ordinary user, who can run them as nobody else.
    User {
        /// The user's number.
        uid: u32,
        /// The user's name.
        name: &'a str,
    },
}

impl Runner<'_> {
    /// Whether the account is this ordinary user; root is whoever it wants to be.
    fn is(&self, account: &Account) -> bool {
        match (self, account) {
            (Self::Root, _) => true,
            (Self::User { name, .. }, Account::Name(named)) => name == named,
            (Self::User { uid, .. }, Account::Id(id)) => uid == id,
        }
    }
}

/// Whether the unit can be run by `who` as whom it names. Under root, a unit without `user` is an error, so
/// that nothing runs as root by accident, and one that says `root` a warning; under an ordinary user, naming
/// anybody else is an error.
pub fn check_identity(unit: &Unit, who: Runner<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    match (who, &unit.service.user) {
        (Runner::Root, None) => problems.push(Problem::error(unit.place("service.user"), RuleFault::NoUser)),
        (Runner::Root, Some(user)) if user.is_root() => {
            problems.push(Problem::warning(unit.place("service.user"), RuleFault::Root));
        }
        (Runner::User { name, .. }, Some(user)) if !who.is(user) => {
            let fault = RuleFault::OtherUser { user: user.to_string(), runner: name.to_owned() };
            problems.push(Problem::error(unit.place("service.user"), fault));
        }
        (Runner::Root, Some(_)) | (Runner::User { .. }, None | Some(_)) => {}
    }
    for socket in &unit.sockets {
        if let (Runner::User { name, .. }, Some(user)) = (who, &socket.user)
            && !who.is(user)
        {
            let (socket, user, runner) = (socket.name.clone(), user.to_string(), name.to_owned());
            let place = unit.place(&format!("socket.{socket}.user"));
            problems.push(Problem::error(place, RuleFault::OtherOwner { socket, user, runner }));
        }
    }
    problems
}

/// Whether the units can run beside each other: no two with one name, and no address in two of them. Each
/// problem stands at the later unit and names the place in the earlier one.
pub fn check_set(units: &[Unit]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names: BTreeMap<&str, &Unit> = BTreeMap::new();
    // By port or path, so that thousands of units are not all compared with each other.
    let mut taken: BTreeMap<Bucket, Vec<(&Unit, &Socket)>> = BTreeMap::new();
    for unit in units {
        if let Some(other) = names.get(unit.name.as_str()) {
            let fault = RuleFault::SameName { name: unit.name.clone(), place: other.path.clone() };
            problems.push(Problem::error(Place::whole_file(&unit.path), fault));
            continue;
        }
        names.insert(&unit.name, unit);
        for socket in &unit.sockets {
            let others = taken.entry(Bucket::of(&socket.listen)).or_default();
            let clash = others
                .iter()
                .find(|(other, theirs)| other.name != unit.name && theirs.listen.overlaps(&socket.listen));
            if let Some((other, theirs)) = clash {
                problems.push(Problem::error(
                    listen_place(unit, socket),
                    RuleFault::Taken {
                        address: socket.listen.to_string(),
                        unit: other.name.clone(),
                        other: theirs.listen.to_string(),
                        place: listen_place(other, theirs).to_string(),
                    },
                ));
            }
            others.push((unit, socket));
        }
    }
    problems
}

fn listen_place(unit: &Unit, socket: &Socket) -> Place {
    unit.place(&format!("socket.{}.listen", socket.name))
}

/// What two addresses that overlap have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Bucket<'a> {
    Port(u16),
    Path(&'a Path),
}

impl<'a> Bucket<'a> {
    fn of(listen: &'a Listen) -> Self {
        match listen {
            Listen::Tcp { addr, dual: _ } => Self::Port(addr.port()),
            Listen::Unix(path) => Self::Path(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Severity;

    fn unit(name: &str, rest: &str) -> Unit {
        let text = format!("[service]\ncommand = [\"x\"]\n{rest}");
        Unit::parse(name, &format!("/units/{name}.toml"), &text).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })
    }

    const BOB: Runner<'_> = Runner::User { uid: 1000, name: "bob" };

    fn severities(unit: &Unit, who: Runner<'_>) -> Vec<Severity> {
        check_identity(unit, who).iter().map(|problem| problem.severity).collect()
    }

    #[test]
    fn nothing_runs_as_root_by_accident() {
        let nobody = unit("a", "");
        assert_eq!(severities(&nobody, Runner::Root), [Severity::Error]);
        assert_eq!(severities(&nobody, BOB), []);
        for root in ["user = \"root\"", "user = 0"] {
            assert_eq!(severities(&unit("a", root), Runner::Root), [Severity::Warning], "{root}");
            assert_eq!(severities(&unit("a", root), BOB), [Severity::Error], "{root}");
        }
        assert_eq!(severities(&unit("a", "user = \"bagels\""), Runner::Root), []);
    }

    #[test]
    fn an_ordinary_user_runs_services_as_nobody_else() {
        for own in ["user = \"bob\"", "user = 1000"] {
            assert_eq!(severities(&unit("a", own), BOB), [], "{own}");
        }
        for other in ["user = \"alice\"", "user = 1001"] {
            assert_eq!(severities(&unit("a", other), BOB), [Severity::Error], "{other}");
        }
        let socket = unit("a", "[socket.s]\nlisten = \"/s\"\nuser = \"alice\"");
        assert_eq!(
            (severities(&socket, BOB), severities(&unit("a", ""), BOB)),
            (vec![Severity::Error], vec![])
        );
    }

    #[test]
    fn a_missing_user_is_shown_at_the_header_with_the_remedy() {
        let problems = check_identity(&unit("a", ""), Runner::Root);
        assert_eq!(
            problems.first().unwrap().to_string(),
            "/units/a.toml:1:2: `[service]` has no `user`, and supervise runs as root\n\
             \x20 1 | [service]\n\
             \x20   |  ^^^^^^^\n\
             hint: nothing runs as root by accident: add `user = \"NAME\"` below `[service]`, or write out `user = \"root\"`"
        );
    }

    #[test]
    fn an_address_in_two_units_names_both() {
        let one = unit("one", "[socket.s]\nlisten = \"0.0.0.0:80\"");
        let two = unit("two", "[socket.t]\nlisten = \"0.0.0.0:80\"");
        let wide = unit("wide", "[socket.t]\nlisten = \":80\"");
        let path = unit("path", "[socket.t]\nlisten = \"/run/80\"");
        assert_eq!(check_set(&[one.clone(), path.clone()]), []);
        let same = check_set(&[one.clone(), path, two]);
        assert_eq!(
            same.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "/units/two.toml:4:10: `0.0.0.0:80` is already the address of unit `one` at /units/one.toml:4:10\n\
              \x20 4 | listen = \"0.0.0.0:80\"\n\
              \x20   |          ^^^^^^^^^^^^\n\
              hint: give one of the two another port or path"
            ]
        );
        let overlap = check_set(&[one.clone(), wide]);
        assert!(
            overlap
                .first()
                .unwrap()
                .to_string()
                .contains("`:80` overlaps `0.0.0.0:80`, the address of unit `one`")
        );
        assert_eq!(check_set(&[one.clone(), one]).len(), 1);
    }
}
