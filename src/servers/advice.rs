//! PURE. What does not work with a server, as its command line and the unit show it: message and remedy. What a file
//! of the server says is not known here, and nothing is said about it. Never decides what becomes of the unit.

use super::known::DRAIN_HOOK;
use super::options::{has, value, values};
use super::{Protocol, Recognised, Server};

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
pub struct Socket<'a> {
    /// Its name.
    pub name: &'a str,
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
    pub sockets: &'a [Socket<'a>],
    /// How many of it run.
    pub instances: u32,
    /// Whether the unit says itself how it is stopped.
    pub stops_by_unit: bool,
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// How bad it is.
    pub weight: Weight,
    /// What it is.
    pub what: String,
    /// What to do.
    pub hint: String,
}

struct Said<'a> {
    facts: Facts<'a>,
    words: &'a [String],
    out: Vec<Advice>,
}

/// Everything there is to say about a unit.
pub fn advice(facts: Facts<'_>) -> Vec<Advice> {
    let mut said = Said { facts, words: &facts.found.arguments, out: Vec::new() };
    match facts.found.server {
        Some(Server::Gunicorn) => said.gunicorn(),
        Some(Server::Uwsgi) => said.uwsgi(),
        Some(Server::Uvicorn) => said.uvicorn(),
        Some(Server::Hypercorn) => said.hypercorn(),
        Some(Server::Daphne) => said.daphne(),
        Some(server @ (Server::Granian | Server::Waitress)) => said.takes_no_socket(server),
        Some(Server::Celery) => said.celery(),
        Some(Server::Redis) => said.redis(),
        None => {}
    }
    said.wrapper();
    said.out
}

impl<'a> Said<'a> {
    fn refuse(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.out.push(Advice { weight: Weight::Refused, what: what.into(), hint: hint.into() });
    }

    fn warn(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.out.push(Advice { weight: Weight::Warned, what: what.into(), hint: hint.into() });
    }

    fn first_socket(&self) -> Option<&'a Socket<'a>> {
        self.facts.sockets.first()
    }

    /// A server that puts itself into the background leaves nothing to supervise.
    fn background(&mut self, server: Server, options: &[&str]) {
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

    fn pid_file(&mut self, server: Server, options: &[&str]) {
        if let Some(file) = value(self.words, options).filter(|_| self.first_socket().is_some()) {
            self.warn(
                format!(
                    "two generations of {} cannot have one pid file, `{file}`: the new one of a restart would not start",
                    server.name()
                ),
                "remove the option: nothing here needs a pid file",
            );
        }
    }

    fn change_directory(&mut self, option: &str) {
        if let Some(path) = value(self.words, &[option]) {
            self.warn(
                format!(
                    "`{option} {path}` follows a link anew for each worker: one that starts after a release has moved runs \
                     new code in an old generation"
                ),
                format!("write `directory = \"{path}\"` instead, which is resolved once for each generation"),
            );
        }
    }

    fn reloader(&mut self, server: Server) {
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
    fn unused_sockets(&mut self, server: Server, option: &str, taken: bool) {
        let Some(first) = self.first_socket() else { return };
        if !taken {
            self.refuse(
                format!(
                    "{} takes a socket only by its number: nobody would answer on `{}`",
                    server.name(),
                    first.address
                ),
                format!("add `{}`", option.replace("NAME", first.name)),
            );
        }
    }

    fn takes_no_socket(&mut self, server: Server) {
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

    fn gunicorn(&mut self) {
        self.background(Server::Gunicorn, &["--daemon", "-D"]);
        if self.first_socket().is_some() {
            if has(self.words, &["--reuse-port"]) {
                self.refuse(
                    "with `--reuse-port` the workers of gunicorn ignore the sockets that it is given, and clients wait for \
                     ever",
                    "remove `--reuse-port`",
                );
            }
            self.gunicorn_binds();
        }
        if let Some(dual) = self.facts.sockets.iter().find(|socket| socket.reach == Reach::Dual) {
            self.warn(
                format!(
                    "gunicorn sees IPv4 clients of `{}` as `::ffff:…`, and believes no proxy among them",
                    dual.address
                ),
                format!("write `0.0.0.0{0}`, and `[::]{0}` in a second socket", dual.address),
            );
        }
        self.pid_file(Server::Gunicorn, &["--pid", "-p"]);
        self.change_directory("--chdir");
        self.reloader(Server::Gunicorn);
    }

    fn gunicorn_binds(&mut self) {
        let binds = values(self.words, &["--bind", "-b"]);
        if self.facts.found.wrapper.is_some() {
            // There it ignores what it is given, and takes its own option.
            let by_path = self.facts.sockets.iter().find(|socket| socket.reach == Reach::Path);
            if let Some(socket) = by_path.filter(|_| binds.iter().any(|bind| bind.starts_with("fd://"))) {
                self.warn(
                    format!("gunicorn removes `{}` when it ends, because of `--bind fd://`", socket.address),
                    "have it started without a program that stays in front of it, and remove `--bind`",
                );
            }
            return;
        }
        if let Some(bind) = binds.first() {
            self.warn(
                format!("gunicorn ignores `--bind {bind}` where it is given sockets"),
                "remove it: `[socket.NAME]` says where it listens",
            );
        }
    }

    fn uwsgi(&mut self) {
        self.background(Server::Uwsgi, &["--daemonize", "--daemonize2", "-d"]);
        let file = self.facts.found.has_file();
        let has = |option: &str| has(self.words, &[option]);
        let (master, app) = (has("--master") || has("-M"), has("--need-app"));
        let (dies, drains) =
            (has("--die-on-term"), self.facts.found.drains_at_term() || has("--exit-on-reload"));
        if !master && !file {
            self.warn(
                "without `--master` uWSGI is one process that cuts every request in flight when it ends",
                "add `--master`",
            );
        }
        if !app && !file {
            self.warn(
                "without `--need-app` uWSGI serves errors where the application could not be loaded, and looks ready",
                "add `--need-app`",
            );
        }
        let hook = format!("`--hook-master-start`, `{DRAIN_HOOK}`");
        if dies && !drains {
            self.warn(
                "with `--die-on-term` uWSGI cuts the requests in flight when it is stopped",
                format!("replace it by {hook}, which finishes them"),
            );
        } else if !drains && !file && !self.facts.stops_by_unit {
            self.warn(
                "uWSGI is stopped by INT, which cuts the requests in flight",
                format!("add {hook}: it is then stopped by TERM, which finishes them"),
            );
        }
        self.uwsgi_sockets();
        self.pid_file(Server::Uwsgi, &["--pidfile", "--pidfile2", "--safe-pidfile"]);
        self.change_directory("--chdir");
    }

    fn uwsgi_sockets(&mut self) {
        let exposed =
            self.facts.sockets.iter().find(|socket| matches!(socket.reach, Reach::Network | Reach::Dual));
        if let Some(socket) = exposed.filter(|_| self.facts.found.protocol() == Protocol::Uwsgi) {
            let (name, address) = (socket.name, &socket.address);
            self.refuse(
                format!(
                    "whoever reaches `{address}` can have uWSGI run any code: the uwsgi protocol is for a proxy on this \
                     machine"
                ),
                format!("give `[socket.{name}]` a path or a loopback address, or add `--protocol http`"),
            );
        }
        let options =
            ["--http", "--http-socket", "--https", "--socket", "-s", "--uwsgi-socket", "--fastcgi-socket"];
        let held = self.first_socket().is_some();
        for option in options {
            let own = values(self.words, &[option]).into_iter().find(|at| !at.starts_with("fd://"));
            if let Some(at) = own.filter(|_| held) {
                self.warn(
                    format!(
                        "uWSGI listens on `{at}` by itself (`{option}`): nobody holds that for it, and a second generation \
                         cannot start beside the first"
                    ),
                    "write the address into `[socket.NAME]` and remove the option; `--protocol http` has it speak HTTP there",
                );
            }
        }
        if let Some(at) = value(self.words, &["--stats"]).filter(|_| held) {
            self.warn(
                format!("two generations of uWSGI cannot have one stats server, `{at}`"),
                "write `--stats` with a path that has `{generation}` in it",
            );
        }
    }

    fn uvicorn(&mut self) {
        let taken = has(self.words, &["--fd"]);
        self.unused_sockets(Server::Uvicorn, "--fd {fd:NAME}", taken);
        self.one_socket(Server::Uvicorn);
        self.reloader(Server::Uvicorn);
    }

    fn one_socket(&mut self, server: Server) {
        if let Some(second) = self.facts.sockets.get(1) {
            self.warn(
                format!("{} takes one socket: nobody answers on `{}`", server.name(), second.address),
                format!("move `[socket.{}]` to a unit of its own", second.name),
            );
        }
    }

    fn hypercorn(&mut self) {
        let binds = values(self.words, &["--bind", "-b", "--insecure-bind", "--quic-bind"]);
        let taken = binds.iter().any(|bind| bind.starts_with("fd://"));
        self.unused_sockets(Server::Hypercorn, "--bind fd://{fd:NAME}", taken);
        let workers = value(self.words, &["--workers", "-w"]).and_then(|number| number.parse::<u32>().ok());
        if let Some(workers) = workers.filter(|workers| *workers > 1) {
            self.warn(
                "hypercorn with more than one worker cuts the requests in flight when it is stopped",
                format!("write `instances = {workers}` and let each of them have one worker"),
            );
        }
        self.pid_file(Server::Hypercorn, &["--pid", "-p"]);
        self.reloader(Server::Hypercorn);
    }

    fn daphne(&mut self) {
        let endpoints = values(self.words, &["--endpoint", "-e"]);
        let taken = has(self.words, &["--fd"]) || endpoints.iter().any(|one| one.contains("fd:fileno"));
        self.unused_sockets(Server::Daphne, "--fd {fd:NAME}", taken);
        self.one_socket(Server::Daphne);
    }

    fn celery(&mut self) {
        self.background(Server::Celery, &["--detach", "-D"]);
        let part = |name: &str| self.words.iter().any(|word| word == name);
        if part("multi") {
            self.refuse(
                "`celery multi` starts workers that are out of supervise's hands, and ends",
                "write `celery -A APP worker`, and `instances` for how many of them",
            );
        }
        let beat = part("beat") || part("worker") && (part("-B") || part("--beat"));
        if beat && self.facts.instances > 1 {
            let instances = self.facts.instances;
            self.refuse(
                format!("each of {instances} beats of celery would send every task: all of them run {instances} times"),
                "give the beat a unit of its own with `instances = 1`",
            );
        }
        self.takes_no_socket(Server::Celery);
    }

    fn redis(&mut self) {
        if value(self.words, &["--daemonize"]) == Some("yes") {
            self.background(Server::Redis, &["--daemonize"]);
        }
        self.takes_no_socket(Server::Redis);
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
        let argv: Vec<String> = command.split(' ').map(|word| word.replace('^', " ")).collect();
        let found = recognise(&argv);
        let sockets: Vec<Socket<'_>> = sockets
            .iter()
            .map(|(address, reach)| Socket { name: "http", address: (*address).to_owned(), reach: *reach })
            .collect();
        let all = advice(Facts { found: &found, sockets: &sockets, instances, stops_by_unit: false });
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
            ("gunicorn app:app -p /run/g.pid --chdir /srv/current --reload", &[HTTP], 1),
            ("gunicorn app:app", &[(":80", Reach::Dual)], 1),
            ("uv run gunicorn app:app", &[HTTP], 1),
            ("sh -c gunicorn^app:app", &[HTTP], 1),
            ("uv run gunicorn app:app --bind fd://3", &[PATH], 1),
            ("uwsgi --wsgi-file x.py --protocol http", &[HTTP], 1),
            ("uwsgi --master --need-app --die-on-term -d /log", &[PATH], 1),
            (uwsgi, &[HTTP], 1),
            (&format!("{uwsgi} --http-socket :8000 --stats :9191"), &[PATH], 1),
            ("uvicorn app:app --reload", &[HTTP], 1),
            ("uvicorn app:app --fd 3", &[HTTP, PATH], 1),
            ("hypercorn app:app -w 2", &[HTTP], 1),
            ("daphne app:app", &[HTTP], 1),
            ("granian app:app", &[HTTP], 1),
            ("celery multi start 4", &[], 1),
            ("celery -A x beat --detach", &[], 3),
            ("redis-server --daemonize yes", &[HTTP], 1),
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
            "uwsgi --master --need-app --protocol http --exit-on-reload",
            "uvicorn --fd 3 app:app --workers 2",
            "hypercorn --bind fd://3 app:app",
            "daphne --fd 3 app:app",
            "python app.py --daemon",
            "node server.js",
        ] {
            assert_eq!(said(command, &[HTTP], 1), "", "{command}");
        }
        for command in
            ["celery -A x worker", "celery -A x beat", "redis-server --daemonize no", "granian app:app"]
        {
            assert_eq!(said(command, &[], 1), "", "{command}");
        }
        assert_eq!(said("celery -A x worker", &[], 4), "");
    }
}
