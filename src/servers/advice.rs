//! PURE. What does not work with a server, as its command line and the unit show it: message and remedy. What a file
//! of the server says is not known here, and nothing is said about it. Never decides what becomes of the unit.

use super::options::{has, unbundled, values};
use super::{Recognised, Server};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It cannot work.
    Refused,
    /// It works, and somebody should know.
    Warned,
}

/// Who can reach a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What is on this machine, by a path.
    Path,
    /// What is on this machine, by a loopback address.
    Loopback,
    /// Others too.
    Network,
    /// Others too, and those of IPv4 look like IPv6.
    Dual,
}

/// A socket of the unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its name.
    pub name: String,
    /// Its address, as it is written.
    pub address: String,
    /// Who can reach it.
    pub reach: Reach,
}

/// What is known of a unit.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What its command is.
    pub found: &'a Recognised,
    /// Its sockets.
    pub sockets: &'a [Socket],
    /// How many of it run.
    pub instances: u32,
    /// Whether the unit says itself how it is stopped.
    pub stops_by_unit: bool,
    /// Whether the unit has it wait for READY=1.
    pub waits_for_notify: bool,
    /// The signal by which the unit has it read its configuration anew.
    pub reload_signal: Option<&'a str>,
    /// The socket that `[health] http` asks, where that is one of the unit's own.
    pub http_asked: Option<&'a str>,
}

/// The key of what most is about.
const COMMAND: &str = "service.command";

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// How bad it is.
    pub weight: Weight,
    /// The key of the unit that it is about.
    pub key: &'static str,
    /// What it is.
    pub what: String,
    /// What to do.
    pub hint: String,
}

/// What is said of one unit, as it is gathered.
pub(super) struct Said<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) words: &'a [String],
    out: Vec<Advice>,
}

/// Everything there is to say about a unit.
pub fn advice(facts: Facts<'_>) -> Vec<Advice> {
    let flags = facts.found.server.map_or(&[][..], Server::flags);
    let words = unbundled(&facts.found.arguments, flags);
    let mut said = Said { facts, words: &words, out: Vec::new() };
    match facts.found.server {
        Some(Server::Gunicorn) => said.gunicorn(),
        Some(Server::Uwsgi) => said.uwsgi(),
        Some(Server::Uvicorn) => said.uvicorn(),
        Some(Server::Hypercorn) => said.hypercorn(),
        Some(Server::Daphne) => said.daphne(),
        Some(server @ Server::Waitress) => said.takes_no_socket(server),
        Some(Server::Granian) => said.granian(),
        Some(Server::Celery) => said.celery(),
        Some(Server::Redis) => said.redis(),
        None => {}
    }
    if let Some(server) = facts.found.server.filter(|server| *server != Server::Gunicorn) {
        said.never_notifies(server);
    }
    said.reload();
    said.wrapper();
    said.out
}

impl<'a> Said<'a> {
    pub(super) fn refuse(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.say(Weight::Refused, COMMAND, what.into(), hint.into());
    }

    pub(super) fn warn(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.warn_of(COMMAND, what, hint);
    }

    /// Of another key than the command.
    pub(super) fn warn_of(&mut self, key: &'static str, what: impl Into<String>, hint: impl Into<String>) {
        self.say(Weight::Warned, key, what.into(), hint.into());
    }

    fn say(&mut self, weight: Weight, key: &'static str, what: String, hint: String) {
        self.out.push(Advice { weight, key, what, hint });
    }

    pub(super) fn first_socket(&self) -> Option<&'a Socket> {
        self.facts.sockets.first()
    }

    /// What never says READY=1 by itself.
    pub(super) fn never_notifies(&mut self, server: Server) {
        // A file of redis may have it say so, and an application may do it in a server's place.
        let unknown =
            server == Server::Redis && self.words.first().is_some_and(|word| !word.starts_with('-'));
        if self.facts.waits_for_notify && !self.facts.found.says_ready() && !unknown {
            let name = server.name();
            let hint = match server {
                Server::Redis => {
                    "add `--supervised systemd`, with which it does; or remove `ready`".to_owned()
                }
                _ => "remove `ready`, unless the application says it".to_owned(),
            };
            self.warn(
                format!("{name} itself never says READY=1, which `ready = \"notify\"` waits for"),
                hint,
            );
        }
    }

    /// A server that puts itself into the background leaves nothing to supervise.
    pub(super) fn background(&mut self, server: Server, options: &[&str]) {
        if let Some(option) = options.iter().find(|option| has(self.words, &[option])) {
            self.refuse(
                format!(
                    "`{option}` takes {} out of supervise's hands: its first process ends at once",
                    server.name()
                ),
                format!("remove `{option}`: supervise runs it in the background"),
            );
        }
    }

    /// A signal that has a server reload its application by itself, where it is lost if the new code is broken.
    fn reload(&mut self) {
        let (Some(signal), Some(_)) = (self.facts.reload_signal, self.first_socket()) else { return };
        let by_number = ["--socket", "-s", "--http-socket"]
            .into_iter()
            .any(|option| values(self.words, &[option]).iter().any(|at| at.starts_with("fd://")));
        let what = match (self.facts.found.server, signal) {
            (Some(Server::Gunicorn), "HUP") => {
                "HUP has gunicorn end its workers without waiting for new ones, and gunicorn ends with broken code"
            }
            (Some(Server::Gunicorn), "USR2") => {
                "after USR2 gunicorn does not find the sockets that it is given"
            }
            (Some(Server::Uwsgi), "HUP") if !by_number => {
                "at HUP uWSGI does not find the sockets that it is given, and ends"
            }
            (Some(_) | None, _) => return,
        };
        self.warn_of(
            "service.reload",
            what,
            "remove `reload`: it is a restart then, in which the old one serves until the new one is proven",
        );
    }

    pub(super) fn reloader(&mut self, server: Server) {
        if has(self.words, &["--reload"]) {
            self.warn(
                format!(
                    "`--reload` has {} start its application anew when a file changes, without waiting until it works",
                    server.name()
                ),
                "remove `--reload`: `supervise restart` starts the new one beside the old one",
            );
        }
    }

    /// Says so where a socket's descriptor is asked for nowhere: nobody would ever answer there.
    pub(super) fn unused_sockets(&mut self, server: Server, option: &str, taken: bool) {
        let Some(first) = self.first_socket() else { return };
        if !taken {
            self.refuse(
                format!(
                    "{} takes a socket only by its number: nobody would answer on `{}`",
                    server.name(),
                    first.address
                ),
                format!("add `{}`", option.replace("NAME", &first.name)),
            );
        }
    }

    pub(super) fn takes_no_socket(&mut self, server: Server) {
        if let Some(first) = self.first_socket() {
            self.refuse(
                format!(
                    "{} cannot be given a socket: nobody would answer on `{}`",
                    server.name(),
                    first.address
                ),
                format!(
                    "remove `[socket.{}]` and have {} listen by its own options",
                    first.name,
                    server.name()
                ),
            );
        }
    }

    fn wrapper(&mut self) {
        let (Some(wrapper), Some(server)) = (&self.facts.found.wrapper, self.facts.found.server) else {
            return;
        };
        let hint = if wrapper.name.ends_with(" -c") {
            format!("write `exec {}` in it, or the command without the shell", wrapper.program)
        } else {
            format!("name the program itself, with its path, such as `.venv/bin/{}`", server.word())
        };
        let what = format!("`{}` starts {} as a process of its own", wrapper.name, server.name());
        let consequence =
            if self.first_socket().is_some() && matches!(server, Server::Gunicorn | Server::Uwsgi) {
                ", which does not find the sockets that are meant for the first one (LISTEN_PID)"
            } else {
                ", and signals reach the first one only"
            };
        self.warn(what + consequence, hint);
    }
}

#[cfg(test)]
mod tests {
    use super::super::recognise;
    use super::*;

    const HTTP: (&str, Reach) = ("0.0.0.0:80", Reach::Network);
    const PATH: (&str, Reach) = ("/run/web.sock", Reach::Path);

    /// Every message about a command, with its sockets, as one text.
    fn said(command: &str, sockets: &[(&str, Reach)], instances: u32) -> String {
        // Behind the command: the signal of `reload`, or that `[health] http` asks the unit's own socket.
        let (command, reload_signal) = match command.split_once(" RELOAD ") {
            Some((command, signal)) => (command, Some(signal)),
            None => (command, None),
        };
        let (command, http_asked) = match command.strip_suffix(" ASKED") {
            Some(command) => (command, Some("/run/web.sock")),
            None => (command, None),
        };
        let argv: Vec<String> =
            command.trim_start_matches("NOTIFY ").split(' ').map(|word| word.replace('^', " ")).collect();
        let found = recognise(&argv);
        let sockets: Vec<Socket> = sockets
            .iter()
            .map(|(address, reach)| Socket {
                name: "http".to_owned(),
                address: (*address).to_owned(),
                reach: *reach,
            })
            .collect();
        // `NOTIFY` in front stands for `ready = "notify"`.
        let waits_for_notify = command.starts_with("NOTIFY ");
        let all = advice(Facts {
            found: &found,
            sockets: &sockets,
            instances,
            stops_by_unit: false,
            waits_for_notify,
            reload_signal,
            http_asked,
        });
        let lines = all.iter().map(|one| {
            let weight = if one.weight == Weight::Refused { "refused" } else { "warned" };
            format!("{weight}: {}\n  hint: {}\n", one.what, one.hint)
        });
        lines.collect()
    }

    #[test]
    fn whole_messages_are_as_they_were() {
        let uwsgi = "uwsgi --master --need-app --hook-master-start unix_signal:15^gracefully_kill_them_all";
        let mut text = String::new();
        for (command, sockets, instances) in [
            ("gunicorn app:app --daemon", &[HTTP][..], 1),
            ("gunicorn app:app --reuse-port", &[HTTP], 1),
            ("gunicorn app:app -b :8000", &[HTTP], 1),
            ("gunicorn app:app -p /run/g.pid --reload", &[HTTP], 1),
            ("gunicorn app:app", &[(":80", Reach::Dual)], 1),
            ("uv run gunicorn app:app", &[HTTP], 1),
            ("sh -c gunicorn^app:app", &[HTTP], 1),
            ("uv run gunicorn app:app --bind fd://3", &[PATH], 1),
            ("gunicorn app:app --bind fd://3", &[HTTP], 1),
            ("NOTIFY gunicorn app:app", &[HTTP], 1),
            ("gunicorn -Dw2 app:app", &[HTTP], 1),
            ("gunicorn app:app RELOAD HUP", &[HTTP], 1),
            ("gunicorn app:app RELOAD USR2", &[HTTP], 1),
            ("uwsgi --wsgi-file x.py --protocol http", &[HTTP], 1),
            ("uwsgi --master --need-app --die-on-term -d /log", &[PATH], 1),
            (uwsgi, &[HTTP], 1),
            (&format!("{uwsgi} --http-socket :8000 --stats :9191"), &[PATH], 1),
            (&format!("{uwsgi} RELOAD HUP"), &[PATH], 1),
            (&format!("{uwsgi} ASKED"), &[PATH], 1),
            ("uwsgi --emperor /etc/vassals", &[HTTP], 1),
            ("uwsgi --emperor /etc/vassals", &[], 1),
            ("uvicorn app:app --reload", &[HTTP], 1),
            ("uvicorn app:app --fd 0 --workers 2", &[HTTP], 1),
            ("uvicorn app:app --fd 3 --uds /run/x", &[HTTP], 1),
            ("NOTIFY uvicorn app:app --fd 3", &[HTTP], 1),
            ("hypercorn app:app --bind fd://3 -b :8000", &[HTTP], 1),
            ("uvicorn app:app --fd 3", &[HTTP, PATH], 1),
            ("hypercorn app:app -w 2", &[HTTP], 1),
            ("daphne app:app", &[HTTP], 1),
            ("granian app:app", &[HTTP], 1),
            ("celery multi start 4", &[], 1),
            ("celery -A x beat --detach", &[], 3),
            ("celery -A x beat", &[], 1),
            ("redis-server --daemonize yes", &[HTTP], 1),
            ("redis-server /etc/redis.conf", &[], 1),
            ("NOTIFY redis-server --port 0", &[], 1),
        ] {
            text += &format!("{command}\n{}", said(command, sockets, instances));
        }
        let golden = include_str!("advice.txt");
        if text != golden {
            panic!("src/servers/advice.txt should be:\n{text}");
        }
    }

    #[test]
    fn what_is_right_has_nothing_said_about_it() {
        let hook = "--hook-master-start unix_signal:15^gracefully_kill_them_all";
        for command in [
            "bin/gunicorn bagels.wsgi --workers 2",
            "uwsgi --ini /etc/bagels.ini",
            &format!("uwsgi --master --need-app --protocol http {hook}"),
            &format!("uwsgi --master --need-app --protocol http {hook} ASKED"),
            "gunicorn app:app RELOAD USR1",
            "uvicorn --fd 3 app:app RELOAD HUP",
            "uwsgi --master --need-app --protocol http --exit-on-reload",
            "uvicorn --fd 3 app:app --workers 2",
            "hypercorn --bind fd://3 app:app",
            "python app.py --daemon",
            "node server.js",
        ] {
            assert_eq!(said(command, &[HTTP], 1), "", "{command}");
        }
        for command in [
            "celery -A x worker",
            "celery -A x beat -s /x",
            "redis-server /etc/x --daemonize no",
            "redis-server --daemonize no",
            "granian app:app",
        ] {
            assert_eq!(said(command, &[], 1), "", "{command}");
        }
        assert_eq!(said("celery -A x worker", &[], 4), "");
    }
}
