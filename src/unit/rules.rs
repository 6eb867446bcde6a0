//! PURE. What one unit file cannot tell by itself: whether it suits who runs it, and the units beside it. Never
//! looks at the system.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use super::account::Account;
use super::address::Listen;
use super::fault::RuleFault;
use super::model::{Socket, Unit};
use super::nearest::nearest;
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
        (Runner::Root, Some(Account::Id(0))) => {
            problems.push(Problem::error(unit.place("service.user"), RuleFault::RootByNumber));
        }
        (Runner::User { name, .. }, Some(user)) if !who.is(user) => {
            let fault = RuleFault::OtherUser { user: user.to_string(), runner: name.to_owned() };
            problems.push(Problem::error(unit.place("service.user"), fault));
        }
        (Runner::Root, Some(_)) | (Runner::User { .. }, None | Some(_)) => {}
    }
    if let (Runner::User { name, .. }, [_, ..]) = (who, unit.service.capabilities.as_slice()) {
        let fault = RuleFault::Capabilities { runner: name.to_owned() };
        problems.push(Problem::error(unit.place("service.capabilities"), fault));
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

/// Whether the units can run beside each other: no two with one name, no address in two of them, nobody needs
/// what there is not, and none wait for each other. `refused` are the names of units that are there and have
/// problems of their own. An address is told of at the later unit, with the place in the earlier one; a cycle
/// at each unit of it. With each problem comes the name of the unit that has it: the file where it is written may
/// lie under or over several.
pub fn check_set(units: &[Unit], refused: &[&str]) -> Vec<(String, Problem)> {
    let mut problems = check_addresses(units);
    let mut names: BTreeMap<&str, &Unit> = BTreeMap::new();
    for unit in units {
        names.entry(&unit.name).or_insert(unit);
    }
    for unit in names.values() {
        for (key, name) in unit.dependencies.all() {
            if !names.contains_key(name) && !refused.contains(&name) {
                let all = names.keys().copied().chain(refused.iter().copied());
                let meant =
                    nearest(name, all.filter(|other| *other != unit.name)).map(|(near, _)| near.to_owned());
                let (place, fault) =
                    (needed_place(unit, key, name), RuleFault::NoUnit { key, name: name.to_owned(), meant });
                let problem = match key {
                    "requires" => Problem::error(place, fault),
                    _ => Problem::warning(place, fault),
                };
                problems.push((unit.name.clone(), problem));
            }
        }
    }
    let mut cycles = Cycles::default();
    for unit in in_cycles(&names) {
        let Some(path) = cycles.of(unit, &names) else { continue };
        let next = path.get(1).copied().unwrap_or_default();
        let key = unit.dependencies.all().find(|(_, name)| *name == next).map_or("requires", |(key, _)| key);
        let mut path: Vec<Option<String>> = path.into_iter().map(|name| Some(name.to_owned())).collect();
        if path.len() > CYCLE_SHOWN_MAX {
            path.splice(CYCLE_SHOWN_MAX - 2..path.len() - 1, [None]);
        }
        let problem = Problem::error(needed_place(unit, key, next), RuleFault::Cycle { path });
        problems.push((unit.name.clone(), problem));
    }
    problems
}

/// Most names of a cycle that are shown.
const CYCLE_SHOWN_MAX: usize = 12;
/// Most units of which the shortest cycle is looked for; of thousands it would take minutes.
const SHORTEST_MAX: usize = 256;

/// The cycles that were found.
#[derive(Debug, Default)]
struct Cycles<'u> {
    found: Vec<Vec<&'u str>>,
    /// In which of them a unit is, and where.
    places: BTreeMap<&'u str, (usize, usize)>,
}

impl<'u> Cycles<'u> {
    /// A way from a unit back to itself, with its name at both ends, or as much of it as is shown: the shortest, or in a
    /// large set any that was found for another.
    fn of(&mut self, unit: &'u Unit, names: &BTreeMap<&'u str, &'u Unit>) -> Option<Vec<&'u str>> {
        if self.found.len() >= SHORTEST_MAX
            && let Some((which, at)) = self.places.get(unit.name.as_str())
        {
            let all = self.found.get(*which)?;
            let mut path: Vec<&str> =
                all.iter().cycle().skip(*at).take(all.len().min(CYCLE_SHOWN_MAX)).copied().collect();
            path.push(&unit.name);
            return Some(path);
        }
        let path = cycle(unit, names)?;
        let around = path.split_last().map(|(_, around)| around.to_vec()).unwrap_or_default();
        for (at, name) in around.iter().enumerate() {
            self.places.entry(name).or_insert((self.found.len(), at));
        }
        self.found.push(around);
        Some(path)
    }
}

fn needed_place(unit: &Unit, key: &str, name: &str) -> Place {
    let key = format!("dependencies.{key}");
    unit.places.of(&format!("{key}.{name}")).cloned().unwrap_or_else(|| unit.place(&key))
}

/// The units that are left when those that wait for none of the others, and those for which none of the others waits, are
/// taken away, again and again: each is in a cycle, or on a way from one to another.
fn in_cycles<'u>(names: &BTreeMap<&'u str, &'u Unit>) -> Vec<&'u Unit> {
    let needs = |unit: &'u Unit| {
        let all = unit.dependencies.all().map(|(_, name)| name);
        all.filter(|name| names.contains_key(name) && *name != unit.name).collect::<Vec<&str>>()
    };
    let forth: BTreeMap<&str, Vec<&str>> =
        names.values().map(|unit| (unit.name.as_str(), needs(unit))).collect();
    let mut back: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, needed) in &forth {
        needed.iter().for_each(|one| back.entry(one).or_default().push(name));
    }
    let mut left: BTreeMap<&str, &Unit> = names.clone();
    for (of, others) in [(&forth, &back), (&back, &forth)] {
        let is_left = |one: &&&str| left.contains_key(**one);
        let count = |name: &str| of.get(name).map_or(0, |all| all.iter().filter(is_left).count());
        let mut waits: BTreeMap<&str, usize> = left.keys().map(|name| (*name, count(name))).collect();
        let mut free: Vec<&str> =
            waits.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
        while let Some(name) = free.pop() {
            left.remove(name);
            for other in others.get(name).into_iter().flatten() {
                if let Some(count) = waits.get_mut(other) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        waits.remove(other);
                        free.push(other);
                    }
                }
            }
        }
    }
    left.into_values().collect()
}

/// The shortest way from a unit over those that it needs back to itself, with its name at both ends; None where
/// there is none.
fn cycle<'u>(unit: &'u Unit, names: &BTreeMap<&'u str, &'u Unit>) -> Option<Vec<&'u str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([unit]);
    while let Some(at) = queue.pop_front() {
        for (_, name) in at.dependencies.all().filter(|(_, name)| *name != at.name) {
            if name == unit.name {
                let mut path = vec![name, at.name.as_str()];
                while let Some(before) = path.last().and_then(|last| came_from.get(last)) {
                    path.push(before);
                }
                path.reverse();
                return Some(path);
            }
            if let (Some(next), false) = (names.get(name), came_from.contains_key(name)) {
                came_from.insert(name, &at.name);
                queue.push_back(next);
            }
        }
    }
    None
}

fn check_addresses(units: &[Unit]) -> Vec<(String, Problem)> {
    let mut problems = Vec::new();
    let mut names: BTreeMap<&str, &Unit> = BTreeMap::new();
    // By port or path, so that thousands of units are not all compared with each other.
    let mut taken: BTreeMap<Bucket, Vec<(&Unit, &Socket)>> = BTreeMap::new();
    for unit in units {
        if let Some(other) = names.get(unit.name.as_str()) {
            let fault = RuleFault::SameName { name: unit.name.clone(), place: other.path.clone() };
            problems.push((unit.name.clone(), Problem::error(Place::whole_file(&unit.path), fault)));
            continue;
        }
        names.insert(&unit.name, unit);
        for socket in &unit.sockets {
            let others = taken.entry(Bucket::of(&socket.listen)).or_default();
            let clash =
                others.iter().find(|(other, theirs)| other.name != unit.name && theirs.clashes(socket));
            if let Some((other, theirs)) = clash {
                let fault = RuleFault::Taken {
                    address: socket.listen.to_string(),
                    unit: other.name.clone(),
                    other: theirs.listen.to_string(),
                    place: listen_place(other, theirs).to_string(),
                };
                problems.push((unit.name.clone(), Problem::error(listen_place(unit, socket), fault)));
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
    Abstract(&'a str),
}

impl<'a> Bucket<'a> {
    fn of(listen: &'a Listen) -> Self {
        match listen {
            Listen::Tcp { addr, dual: _ } => Self::Port(addr.port()),
            Listen::Unix(path) => Self::Path(path),
            Listen::Abstract(name) => Self::Abstract(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{Layer, Severity};

    fn unit(name: &str, rest: &str) -> Unit {
        let text = format!("[service]\ncommand = [\"x\"]\n{rest}");
        let path = format!("/units/{name}.toml");
        Unit::parse_ahead(name, &[Layer { path: &path, text: &text }]).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })
    }

    const BOB: Runner<'_> = Runner::User { uid: 1000, name: "bob" };

    fn severities(unit: &Unit, who: Runner<'_>) -> Vec<Severity> {
        check_identity(unit, who).iter().map(|problem| problem.severity).collect()
    }

    #[test]
    fn thousands_in_one_cycle_are_told_each() {
        const ALL: usize = 4000;
        let next = |number: usize| format!("[dependencies]\nafter = [\"u{:05}\"]\n", (number + 1) % ALL);
        let mut units: Vec<Unit> =
            (0..ALL).map(|number| unit(&format!("u{number:05}"), &next(number))).collect();
        // One that waits for the cycle, and one that the cycle waits for, are in none.
        units.push(unit("v", "[dependencies]\nafter = [\"u00000\"]\n"));
        let problems = check_set(&units, &[]);
        assert_eq!(problems.len(), ALL);
        let text = |at: usize| problems.get(at).unwrap().1.to_string().lines().next().unwrap().to_owned();
        for at in [0, 3990] {
            let name = |number: usize| format!("`u{:05}`", (at + number) % ALL);
            let shown: Vec<String> = (0..10).map(name).collect();
            let expected = format!("{} → … → {}", shown.join(" → "), name(0));
            assert!(
                text(at).ends_with(&format!("these units wait for each other: {expected}")),
                "{}",
                text(at)
            );
        }
    }

    #[test]
    fn nothing_runs_as_root_by_accident() {
        let nobody = unit("a", "");
        assert_eq!(severities(&nobody, Runner::Root), [Severity::Error]);
        assert_eq!(severities(&nobody, BOB), []);
        for (root, severity) in [("user = \"root\"", Severity::Warning), ("user = 0", Severity::Error)] {
            assert_eq!(severities(&unit("a", root), Runner::Root), [severity], "{root}");
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
        let able = unit("a", "capabilities = [\"net-raw\"]");
        assert_eq!((severities(&able, BOB), able.service.capabilities.len()), (vec![Severity::Error], 1));
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
        assert_eq!(check_set(&[one.clone(), path.clone()], &[]), []);
        let same = check_set(&[one.clone(), path, two], &[]);
        assert_eq!(
            same.iter().map(|(_, problem)| problem.to_string()).collect::<Vec<_>>(),
            [
                "/units/two.toml:4:10: `0.0.0.0:80` is already the address of unit `one` at /units/one.toml:4:10\n\
              \x20 4 | listen = \"0.0.0.0:80\"\n\
              \x20   |          ^^^^^^^^^^^^\n\
              hint: give one of the two another port or path"
            ]
        );
        let overlap = check_set(&[one.clone(), wide], &[]);
        assert!(
            overlap
                .first()
                .unwrap()
                .1
                .to_string()
                .contains("`:80` overlaps `0.0.0.0:80`, the address of unit `one`")
        );
        assert_eq!(check_set(&[one.clone(), one], &[]).len(), 1);
    }

    fn needs(name: &str, dependencies: &str) -> Unit {
        unit(name, &format!("[dependencies]\n{dependencies}\n"))
    }

    fn said(units: &[Unit], refused: &[&str]) -> Vec<String> {
        check_set(units, refused).iter().map(|(_, problem)| problem.to_string()).collect()
    }

    #[test]
    fn what_is_required_has_to_be_there() {
        let web = needs("web", "requires = [\"db\", \"cahce\"]\nwants = [\"mail\"]\nafter = [\"log\"]");
        let others = [unit("cache", ""), web];
        assert_eq!(
            said(&others, &["db"]),
            [
                "/units/web.toml:4:19: `cahce` in `requires` is no unit\n\
                 \x20 4 | requires = [\"db\", \"cahce\"]\n\
                 \x20   |                   ^^^^^^^\n\
                 hint: did you mean `cache`?",
                "/units/web.toml:5:10: warning: `mail` in `wants` is no unit\n\
                 \x20 5 | wants = [\"mail\"]\n\
                 \x20   |          ^^^^^^\n\
                 hint: add the unit, or remove its name",
                "/units/web.toml:6:10: warning: `log` in `after` is no unit\n\
                 \x20 6 | after = [\"log\"]\n\
                 \x20   |          ^^^^^\n\
                 hint: add the unit, or remove its name",
            ]
        );
    }

    #[test]
    fn a_cycle_prints_its_path_at_each_of_its_units() {
        let units = [
            needs("a", "requires = [\"b\"]"),
            needs("b", "wants = [\"c\"]"),
            needs("c", "after = [\"a\"]"),
            needs("waits", "requires = [\"a\"]"),
            needs("free", ""),
        ];
        let said = said(&units, &[]);
        assert_eq!(said.len(), 3, "{said:?}");
        let paths: Vec<&str> = said.iter().filter_map(|said| said.lines().next()).collect();
        assert_eq!(
            paths,
            [
                "/units/a.toml:4:13: these units wait for each other: `a` → `b` → `c` → `a`",
                "/units/b.toml:4:10: these units wait for each other: `b` → `c` → `a` → `b`",
                "/units/c.toml:4:10: these units wait for each other: `c` → `a` → `b` → `c`",
            ]
        );
    }

    #[test]
    fn a_long_cycle_is_cut_and_costs_little() {
        let name = |at: usize| format!("u{}", at % 500);
        let units: Vec<Unit> =
            (0..500).map(|at| needs(&name(at), &format!("after = [\"{}\"]", name(at + 1)))).collect();
        let said = said(&units, &[]);
        assert_eq!(said.len(), 500);
        assert!(said.first().unwrap().contains("`u9` → … → `u0`"), "{said:?}");
    }

    #[test]
    fn what_many_wait_for_is_no_cycle() {
        let units = [
            needs("top", "requires = [\"left\", \"right\"]"),
            needs("left", "after = [\"base\"]"),
            needs("right", "wants = [\"base\"]"),
            needs("base", ""),
        ];
        assert_eq!(check_set(&units, &[]), []);
    }
}
