//! PURE. What is known of each server besides its traps: how it stops, how it ends, how it shows that it is ready.
//! Never judges a unit.

use super::options::{has, values};
use super::{Recognised, Server};

/// How to ask a server to end so that it finishes what it has begun, and how long that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The signal's name, without `SIG`.
    pub signal: &'static str,
    /// Milliseconds until everything of it gets KILL.
    pub timeout_ms: u64,
}

/// How a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Code(i32),
    /// By this signal's number.
    Signal(i32),
}

/// What a listener of a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// The uwsgi protocol.
    Uwsgi,
    /// One of the two: a file that is not read here decides.
    Either,
}

/// How a server that is given sockets shows that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It serves one more listener that it is given behind its sockets, and answers there.
    Extra(Protocol),
    /// It waits for connections on the socket only once it can answer (epoll(7)).
    Listens,
    /// Nothing that could be seen from outside.
    Nothing,
}

/// uWSGI's way to drain at TERM, as it is written in an option.
pub(super) const DRAIN_HOOK: &str = "unix_signal:15 gracefully_kill_them_all";

/// Options that name a file with more options.
const UWSGI_FILES: &[&str] = &["--ini", "--xml", "-x", "--yaml", "-y", "--yml", "--json", "-j", "--config"];

fn is_uwsgi_file(word: &str) -> bool {
    let ends = [".ini", ".xml", ".yaml", ".yml", ".json"];
    !word.starts_with('-') && ends.iter().any(|end| word.ends_with(end))
}

impl Recognised {
    /// Whether a file that is not read here may hold any option.
    pub(super) fn has_file(&self) -> bool {
        self.server == Some(Server::Uwsgi) && !self.files().is_empty()
    }

    /// Files of its command line that may hold any option.
    pub fn files(&self) -> Vec<&str> {
        let first = self.arguments.first().map(String::as_str).filter(|word| !word.starts_with('-'));
        match self.server {
            Some(Server::Gunicorn | Server::Hypercorn) => values(&self.arguments, &["--config", "-c"]),
            Some(Server::Uwsgi) => {
                let mut found = values(&self.arguments, UWSGI_FILES);
                let words = self.arguments.iter().map(String::as_str);
                found.extend(words.filter(|word| is_uwsgi_file(word)));
                found.sort_unstable();
                found.dedup();
                found
            }
            Some(Server::Redis) => first.into_iter().collect(),
            Some(Server::Uvicorn | Server::Daphne | Server::Granian | Server::Waitress | Server::Celery)
            | None => Vec::new(),
        }
    }

    /// Where it changes to by itself, anew for each worker.
    pub fn changes_to(&self) -> Option<&str> {
        match self.server? {
            Server::Gunicorn | Server::Uwsgi => super::options::value(&self.arguments, &["--chdir"]),
            Server::Uvicorn
            | Server::Hypercorn
            | Server::Daphne
            | Server::Granian
            | Server::Waitress
            | Server::Celery
            | Server::Redis => None,
        }
    }

    /// Whether it reads `gunicorn.conf.py` of its directory.
    pub fn reads_unnamed_file(&self) -> bool {
        self.server == Some(Server::Gunicorn) && self.files().is_empty()
    }

    /// Whether TERM is answered by finishing what has begun.
    pub(super) fn drains_at_term(&self) -> bool {
        let hooks = values(&self.arguments, &["--hook-master-start"]);
        hooks.iter().any(|hook| hook.contains("unix_signal:15") && hook.contains("gracefully_kill_them_all"))
    }

    /// How it ends best; None where nothing in particular is known.
    pub fn stop(&self) -> Option<Stop> {
        let stop = |signal, timeout_ms| Some(Stop { signal, timeout_ms });
        match self.server? {
            Server::Gunicorn => stop("TERM", 35_000),
            Server::Uwsgi if self.drains_at_term() => stop("TERM", 35_000),
            Server::Uwsgi if has(&self.arguments, &["--exit-on-reload"]) => stop("HUP", 35_000),
            // By default TERM reloads; INT ends it whatever it is told in a file.
            Server::Uwsgi => stop("INT", 35_000),
            // TERM would end it at once, in the middle of an answer.
            Server::Waitress => stop("INT", 10_000),
            Server::Celery | Server::Redis => stop("TERM", 300_000),
            Server::Uvicorn | Server::Hypercorn | Server::Daphne | Server::Granian => None,
        }
    }

    /// Milliseconds after its first answer for which it loses the signal that asks it to end. The master of uWSGI passes it
    /// on to its workers, and forgets those that have no handler for it yet: asked to end as soon as 2.0.31 answered it
    /// ran on in 4 of 5 tries, 20 ms later in 1 of 4, and 100 ms later in none; a busy machine is slower.
    pub fn deaf_ms(&self) -> u64 {
        if self.server == Some(Server::Uwsgi) { 500 } else { 0 }
    }

    /// What one of its sockets speaks that it takes from us.
    pub fn protocol(&self) -> Protocol {
        if self.server != Some(Server::Uwsgi) {
            return Protocol::Http;
        }
        match values(&self.arguments, &["--protocol", "--socket-protocol"]).last().copied() {
            Some("http") => Protocol::Http,
            Some(_) => Protocol::Uwsgi,
            None if self.has_file() => Protocol::Either,
            None => Protocol::Uwsgi,
        }
    }

    /// How it shows that it is ready, where it is given sockets.
    pub fn proof(&self) -> Proof {
        if self.wrapper.is_some() && matches!(self.server, Some(Server::Gunicorn | Server::Uwsgi)) {
            return Proof::Nothing; // it is not the process that the sockets are for
        }
        match self.server {
            Some(Server::Gunicorn | Server::Uwsgi) => Proof::Extra(self.protocol()),
            Some(Server::Uvicorn | Server::Hypercorn | Server::Daphne) => Proof::Listens,
            Some(Server::Granian | Server::Waitress | Server::Celery | Server::Redis) | None => {
                Proof::Nothing
            }
        }
    }

    /// Signals by which it ends itself although all went well. A wrapper that ends like this has drained nothing.
    pub fn clean_signals(&self) -> &'static [u8] {
        match (self.server, &self.wrapper) {
            (Some(server), None) => server.clean_signals(),
            (Some(_) | None, _) => &[],
        }
    }

    /// Whether it says READY=1 only once it can answer.
    pub fn says_ready(&self) -> bool {
        match self.server {
            Some(Server::Uwsgi) => true,
            Some(Server::Gunicorn) => has(&self.arguments, &["--preload"]),
            Some(Server::Redis) => super::options::value(&self.arguments, &["--supervised"])
                .is_some_and(|by| matches!(by, "systemd" | "auto")),
            Some(
                Server::Uvicorn
                | Server::Hypercorn
                | Server::Daphne
                | Server::Granian
                | Server::Waitress
                | Server::Celery,
            )
            | None => false,
        }
    }
}

impl Server {
    /// Exit codes of what a new try does not mend: broken code or a wrong option.
    pub const fn config_codes(self) -> &'static [u8] {
        match self {
            Self::Gunicorn => &[2, 3, 4],
            Self::Uwsgi => &[22],
            Self::Celery | Self::Uvicorn | Self::Hypercorn | Self::Daphne | Self::Granian => &[2],
            Self::Waitress | Self::Redis => &[],
        }
    }

    /// Its short options that take no value, and may stand in one word with others.
    pub(super) const fn flags(self) -> &'static [char] {
        match self {
            Self::Gunicorn => &['D', 'R'],
            Self::Uwsgi => &['M', 'T', 'L', 'i'],
            Self::Celery => &['D', 'B', 'E'],
            Self::Uvicorn | Self::Hypercorn | Self::Daphne | Self::Granian | Self::Waitress | Self::Redis => {
                &[]
            }
        }
    }

    /// What to do where it has gone into the background, whoever told it to.
    pub const fn foreground(self) -> Option<&'static str> {
        match self {
            Self::Gunicorn => {
                Some("remove `daemon` from its configuration file, or `--daemon` from its options")
            }
            Self::Uwsgi => {
                Some("remove `daemonize` from its configuration file, or `--daemonize` from its options")
            }
            Self::Celery => Some("remove `--detach` from its options"),
            Self::Redis => Some("write `daemonize no` into its configuration file"),
            Self::Uvicorn | Self::Hypercorn | Self::Daphne | Self::Granian | Self::Waitress => None,
        }
    }

    /// What to do where it listens by itself although it is given sockets, and no option of its command says so.
    pub const fn own_listeners(self) -> Option<&'static str> {
        match self {
            Self::Gunicorn => Some(
                "remove `bind` and `reuse_port` from its configuration file (`gunicorn.conf.py` of its directory counts, \
                 too): it takes the sockets of the unit without being told",
            ),
            Self::Uwsgi => Some(
                "remove `socket`, `http-socket` and `http` from its configuration file: it takes the sockets of the unit \
                 without being told, and speaks HTTP there with `protocol = http`",
            ),
            Self::Hypercorn => Some(
                "remove `bind` from its configuration file, and write `--bind fd://{fd:NAME}` into the command",
            ),
            Self::Uvicorn | Self::Daphne | Self::Granian | Self::Waitress | Self::Celery | Self::Redis => {
                None
            }
        }
    }

    /// Whether it can be given a socket at all.
    pub const fn takes_sockets(self) -> bool {
        match self {
            Self::Gunicorn | Self::Uwsgi | Self::Uvicorn | Self::Hypercorn | Self::Daphne => true,
            Self::Granian | Self::Waitress | Self::Celery | Self::Redis => false,
        }
    }

    /// Signals by which it ends itself although all went well.
    const fn clean_signals(self) -> &'static [u8] {
        match self {
            Self::Uvicorn => &[15, 2],
            Self::Gunicorn
            | Self::Uwsgi
            | Self::Hypercorn
            | Self::Daphne
            | Self::Granian
            | Self::Waitress
            | Self::Celery
            | Self::Redis => &[],
        }
    }

    /// What an end with 0 means where it need not mean that all went well.
    const fn hollow_success(self) -> Option<&'static str> {
        match self {
            Self::Uvicorn => Some(
                "uvicorn with `--workers` also ends like this when none of them could start its application; its last \
                 lines say why",
            ),
            Self::Hypercorn => Some(
                "hypercorn also ends like this when it could not load the application; its last lines say",
            ),
            Self::Waitress => Some(
                "waitress also ends like this when it could not import the application; its last lines say",
            ),
            Self::Gunicorn | Self::Uwsgi | Self::Daphne | Self::Granian | Self::Celery | Self::Redis => None,
        }
    }

    /// What an end of this server means, with the next step; None where it means what it means with any program.
    pub const fn meaning(self, ended: Ended) -> Option<&'static str> {
        use Ended::{Code, Signal};
        if let Code(0) = ended {
            return self.hollow_success();
        }
        Some(match (self, ended) {
            (Self::Gunicorn, Code(1)) => {
                "gunicorn could not begin: a wrong option, or an error in the application (with `--preload`, or in a \
                 worker that failed to boot); its last lines say which"
            }
            (Self::Gunicorn | Self::Uvicorn | Self::Hypercorn | Self::Daphne | Self::Granian, Code(2)) => {
                "a wrong option, or a value that it does not take; its last lines say which"
            }
            (Self::Gunicorn, Code(3)) => {
                "a worker of gunicorn could not boot: the application failed while it was imported; the traceback is in \
                 its last lines"
            }
            (Self::Gunicorn, Code(4)) => {
                "gunicorn could not load the application: the module is there, the name in it is not; check \
                 `MODULE:NAME` in the command"
            }
            (Self::Uwsgi, Code(1)) => {
                "uWSGI could not begin: a wrong option or socket; its last lines say which"
            }
            (Self::Uwsgi, Code(22)) => {
                "uWSGI could not load the application (`need-app`); the traceback is in its last lines"
            }
            (Self::Uwsgi, Code(17 | 31)) => "uWSGI ended in order to be started anew",
            (Self::Uwsgi, Code(30)) => {
                "uWSGI without `master` was asked to end, and cut the requests in flight"
            }
            (Self::Uvicorn, Code(1)) => {
                "uvicorn could not import the application; the traceback is in its last lines"
            }
            (Self::Uvicorn, Code(3)) => {
                "the application refused to start (its lifespan startup failed); its last lines say why"
            }
            (Self::Uvicorn, Signal(15)) => {
                "uvicorn stopped cleanly: it ends itself by the signal that asked it to"
            }
            (Self::Daphne, Code(1)) => {
                "daphne could not import the application; the traceback is in its last lines"
            }
            (Self::Granian, Code(1)) => {
                "granian could not begin: its application or its port; its last lines say which"
            }
            (Self::Waitress, Code(1)) => {
                "waitress could not begin: a wrong option, or its port is taken; its last lines say which"
            }
            (Self::Celery, Code(2)) => {
                "celery could not load the application given by `-A`, or does not know an option; its last lines say \
                 which"
            }
            (Self::Redis, Code(1)) => {
                "redis could not begin: its configuration or its port; its last lines say which"
            }
            (
                Self::Gunicorn
                | Self::Uwsgi
                | Self::Uvicorn
                | Self::Hypercorn
                | Self::Daphne
                | Self::Granian
                | Self::Waitress
                | Self::Celery
                | Self::Redis,
                Code(_) | Signal(_),
            ) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::recognise;
    use super::*;

    fn of(text: &str) -> Recognised {
        recognise(&text.split(' ').map(|word| word.replace('_', " ")).collect::<Vec<_>>())
    }

    #[test]
    fn the_way_to_stop_follows_the_options() {
        let stop = |text: &str| of(text).stop().map(|stop| (stop.signal, stop.timeout_ms));
        assert_eq!(stop("gunicorn app:app"), Some(("TERM", 35_000)));
        assert_eq!(stop("uwsgi --ini x.ini"), Some(("INT", 35_000)));
        assert_eq!(stop("uwsgi --die-on-term"), Some(("INT", 35_000)));
        assert_eq!(stop("uwsgi --exit-on-reload"), Some(("HUP", 35_000)));
        let hook = format!("uwsgi --hook-master-start={}", DRAIN_HOOK.replace(' ', "^"));
        let argv: Vec<String> = hook.split(' ').map(|word| word.replace('^', " ")).collect();
        assert_eq!(recognise(&argv).stop(), Some(Stop { signal: "TERM", timeout_ms: 35_000 }));
        assert_eq!(stop("celery -A x worker"), Some(("TERM", 300_000)));
        assert_eq!((stop("uvicorn x"), stop("node x")), (None, None));
    }

    #[test]
    fn what_a_socket_speaks_is_known_unless_a_file_says_it() {
        assert_eq!(of("uwsgi --master").protocol(), Protocol::Uwsgi);
        assert_eq!(of("uwsgi --protocol=http").protocol(), Protocol::Http);
        assert_eq!(of("uwsgi --http-socket fd://3").protocol(), Protocol::Uwsgi);
        for file in ["uwsgi --ini x", "uwsgi /etc/x.ini", "uwsgi -y x"] {
            assert_eq!(of(file).protocol(), Protocol::Either, "{file}");
        }
        assert_eq!(of("gunicorn x").proof(), Proof::Extra(Protocol::Http));
        assert_eq!(of("uv run gunicorn x").proof(), Proof::Nothing);
        assert_eq!(of("uv run uvicorn x").proof(), Proof::Listens);
    }

    #[test]
    fn files_with_options_are_found() {
        for (text, files) in [
            ("gunicorn -c conf.py x", &["conf.py"][..]),
            ("gunicorn x", &[]),
            ("uwsgi --ini a.ini b.yaml", &["a.ini", "b.yaml"]),
            ("uwsgi --master", &[]),
            ("hypercorn --config=x.toml a", &["x.toml"]),
            ("redis-server /etc/redis.conf --port 0", &["/etc/redis.conf"]),
            ("redis-server --port 0", &[]),
            ("node x.ini", &[]),
        ] {
            assert_eq!(of(text).files(), files, "{text}");
        }
        assert!(of("gunicorn x").reads_unnamed_file() && !of("gunicorn -c y x").reads_unnamed_file());
    }

    #[test]
    fn only_what_was_seen_has_a_meaning() {
        assert!(Server::Gunicorn.meaning(Ended::Code(3)).unwrap().contains("boot"));
        assert!(Server::Uvicorn.meaning(Ended::Code(0)).unwrap().contains("--workers"));
        assert_eq!(Server::Gunicorn.meaning(Ended::Code(0)), None);
        assert_eq!(Server::Gunicorn.meaning(Ended::Signal(15)), None);
        for server in Server::ALL {
            for code in server.config_codes() {
                assert!(server.meaning(Ended::Code((*code).into())).is_some(), "{}: {code}", server.word());
            }
        }
    }
}
