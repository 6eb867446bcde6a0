//! PURE. The traps of each server, as its command line shows them. Never says what was not seen of a server.

use super::advice::{Reach, Said};
use super::known::DRAIN_HOOK;
use super::options::{has, value, values};
use super::{Protocol, Server};

impl Said<'_> {
    pub(super) fn gunicorn(&mut self) {
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
        if let Some(file) = value(self.words, &["--pid", "-p"]).filter(|_| self.first_socket().is_some()) {
            self.warn(
                format!(
                    "two generations of gunicorn cannot have one pid file, `{file}`: the new one of a restart would not start"
                ),
                "remove the option: nothing here needs a pid file",
            );
        }
        if self.facts.waits_for_notify && !self.facts.found.says_ready() {
            self.warn(
                "gunicorn says READY=1 before its workers have loaded the application",
                "remove `ready`: its first answer is waited for then; or add `--preload`",
            );
        }
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
        if let Some(bind) = binds.iter().find(|bind| bind.starts_with("fd://")) {
            self.refuse(
                format!(
                    "gunicorn fails with `--bind {bind}`, a bad file descriptor: it takes the sockets that it is given \
                     without being told"
                ),
                "remove it: `[socket.NAME]` says where it listens",
            );
        } else if let Some(bind) = binds.first() {
            self.warn(
                format!("gunicorn ignores `--bind {bind}` where it is given sockets"),
                "remove it: `[socket.NAME]` says where it listens",
            );
        }
    }

    /// Services of its own, started by files in a directory.
    fn emperor(&mut self) {
        match self.first_socket() {
            Some(first) => self.refuse(
                format!(
                    "`--emperor` hands none of its sockets to its vassals: nobody would answer on `{}`",
                    first.address
                ),
                "write a unit for each vassal, with its own sockets",
            ),
            None => self.warn(
                "what `--emperor` starts is not supervised: no socket is held for it, and a restart of the emperor ends \
                 all of it",
                "write a unit for each vassal",
            ),
        }
    }

    pub(super) fn uwsgi(&mut self) {
        self.background(Server::Uwsgi, &["--daemonize", "--daemonize2", "-d"]);
        if has(self.words, &["--emperor"]) {
            return self.emperor();
        }
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
        let speaks_uwsgi = self.facts.found.protocol() == Protocol::Uwsgi
            && !["--http-socket", "--http"]
                .into_iter()
                .any(|option| values(self.words, &[option]).into_iter().any(|at| at.starts_with("fd://")));
        if let Some(address) = self.facts.http_asked.filter(|_| speaks_uwsgi) {
            self.warn_of(
                "health.http",
                format!("uWSGI speaks the uwsgi protocol on `{address}`, and does not answer HTTP there"),
                "write `uwsgi` instead of `http`; or add `--protocol http` to the command",
            );
        }
    }

    fn uwsgi_sockets(&mut self) {
        let exposed =
            self.facts.sockets.iter().find(|socket| matches!(socket.reach, Reach::Network | Reach::Dual));
        if let Some(socket) = exposed.filter(|_| self.facts.found.protocol() == Protocol::Uwsgi) {
            let (name, address) = (&socket.name, &socket.address);
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
        // A path it takes from whoever has it.
        let stats = value(self.words, &["--stats"]).filter(|at| held && !at.starts_with(['/', '@']));
        if let Some(at) = stats {
            self.warn(
                format!(
                    "two generations of uWSGI cannot have one stats server, `{at}`: the new one of a restart would end"
                ),
                "write a path after `--stats`, which the new one takes over",
            );
        }
    }

    pub(super) fn uvicorn(&mut self) {
        let taken = has(self.words, &["--fd"]);
        self.unused_sockets(Server::Uvicorn, "--fd {fd:NAME}", taken);
        self.one_socket(Server::Uvicorn);
        let number = value(self.words, &["--fd"]).and_then(|number| number.parse::<u32>().ok());
        if let (Some(first), Some(number @ 0..=2)) = (self.first_socket(), number) {
            self.refuse(
                format!(
                    "uvicorn fails with `--fd {number}`, which is no socket: those of the unit begin at 3"
                ),
                format!("write `--fd {{fd:{}}}`", first.name),
            );
        }
        let own = ["--uds", "--host", "--port"].into_iter().find(|option| has(self.words, &[option]));
        if let Some(option) = own.filter(|_| taken && self.first_socket().is_some()) {
            self.warn(
                format!("uvicorn ignores `{option}` where it has `--fd`"),
                "remove it: `[socket.NAME]` says where it listens",
            );
        }
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

    pub(super) fn hypercorn(&mut self) {
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
        let own = binds.iter().find(|bind| !bind.starts_with("fd://"));
        if let Some(at) = own.filter(|_| taken && self.first_socket().is_some()) {
            self.warn(
                format!(
                    "hypercorn listens on `{at}` by itself (`--bind`): nobody holds that for it, and a second generation \
                     cannot start beside the first"
                ),
                "write the address into `[socket.NAME]`, and `--bind fd://{fd:NAME}`",
            );
        }
        self.reloader(Server::Hypercorn);
    }

    pub(super) fn daphne(&mut self) {
        let endpoints = values(self.words, &["--endpoint", "-e"]);
        let taken = has(self.words, &["--fd"]) || endpoints.iter().any(|one| one.contains("fd:fileno"));
        self.unused_sockets(Server::Daphne, "--fd {fd:NAME}", taken);
        self.one_socket(Server::Daphne);
        self.warn(
            "daphne cuts the requests in flight whenever it is stopped",
            "uvicorn and hypercorn serve the same application, and finish them",
        );
    }

    pub(super) fn granian(&mut self) {
        self.reloader(Server::Granian);
        self.takes_no_socket(Server::Granian);
    }

    pub(super) fn celery(&mut self) {
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
        if beat && !has(self.words, &["--schedule", "-s", "--scheduler", "-S"]) {
            self.warn(
                "celery beat writes `celerybeat-schedule` into its directory, and ends where it may not",
                "write `state-directory = \"NAME\"`, and `--schedule {state-directory}/schedule`",
            );
        }
        self.takes_no_socket(Server::Celery);
    }

    pub(super) fn redis(&mut self) {
        if value(self.words, &["--daemonize"]) == Some("yes") {
            self.background(Server::Redis, &["--daemonize"]);
        }
        let file = self.words.first().filter(|word| !word.starts_with('-'));
        if let Some(file) = file.filter(|_| value(self.words, &["--daemonize"]).is_none()) {
            self.warn(
                format!(
                    "where `{file}` says `daemonize yes`, as that of many distributions does, redis leaves supervise's \
                     hands: its first process ends at once"
                ),
                "add `--daemonize no`, which wins over the file",
            );
        }
        self.takes_no_socket(Server::Redis);
    }
}
