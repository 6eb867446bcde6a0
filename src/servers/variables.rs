//! PURE. Options that a server takes from its environment. Never knows whose environment it is.

use super::{Recognised, Server};

/// A variable that a server reads as if it were options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The options that it stands for.
    pub words: Vec<String>,
}

/// Those among `pairs` from which a server takes options.
pub fn variables<'a>(server: Server, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Variable> {
    let words = |name: &str, value: &str| match server {
        Server::Gunicorn if name == "GUNICORN_CMD_ARGS" => shlex::split(value),
        Server::Uwsgi => {
            let known = !matches!(name, "UWSGI_RELOADS" | "UWSGI_ORIGINAL_PROC_NAME");
            let option = name.strip_prefix("UWSGI_").filter(|_| known)?;
            Some(vec![format!("{}={value}", long(option))])
        }
        Server::Uvicorn => by_click(name.strip_prefix("UVICORN_")?, value),
        Server::Granian => by_click(name.strip_prefix("GRANIAN_")?, value),
        Server::Gunicorn
        | Server::Hypercorn
        | Server::Daphne
        | Server::Waitress
        | Server::Celery
        | Server::Redis => None,
    };
    pairs
        .filter_map(|(name, value)| Some(Variable { name: name.to_owned(), words: words(name, value)? }))
        .collect()
}

fn long(name: &str) -> String {
    format!("--{}", name.to_ascii_lowercase().replace('_', "-"))
}

/// As Python's click has it. Of those that are on or off, only this one matters here.
fn by_click(name: &str, value: &str) -> Option<Vec<String>> {
    if name != "RELOAD" {
        return Some(vec![format!("{}={value}", long(name))]);
    }
    let is_on = matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "t" | "yes" | "y" | "on");
    is_on.then(|| vec![long(name)])
}

impl Recognised {
    /// The same with options that come from its environment. Where both say something, uWSGI believes that and every
    /// other server its command line.
    pub fn with(mut self, variables: &[Variable]) -> Self {
        let words = variables.iter().flat_map(|variable| variable.words.iter().cloned());
        if self.server == Some(Server::Uwsgi) {
            self.arguments.extend(words);
        } else {
            self.arguments = words.chain(self.arguments).collect();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_environment_as_each_server_takes_them() {
        let of = |server, name, value| {
            let found = variables(server, [(name, value), ("PATH", "/bin")].into_iter());
            found.into_iter().flat_map(|variable| variable.words).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(Server::Gunicorn, "GUNICORN_CMD_ARGS", "--pid '/a b' -D"), "--pid /a b -D");
        assert_eq!(of(Server::Gunicorn, "UWSGI_DAEMONIZE", "/log"), "");
        assert_eq!(of(Server::Uwsgi, "UWSGI_NEED_APP", "true"), "--need-app=true");
        assert_eq!(of(Server::Uwsgi, "UWSGI_RELOADS", "1"), "");
        assert_eq!(of(Server::Uvicorn, "UVICORN_RELOAD", "True"), "--reload");
        assert_eq!(of(Server::Uvicorn, "UVICORN_RELOAD", "0"), "");
        assert_eq!(of(Server::Granian, "GRANIAN_WORKERS", "2"), "--workers=2");
        assert_eq!(of(Server::Daphne, "DAPHNE_FD", "3"), "");
    }

    #[test]
    fn who_is_believed_is_the_last() {
        let all = |command: &str, name, value| {
            let argv: Vec<String> = command.split(' ').map(str::to_owned).collect();
            let found = super::super::recognise(&argv);
            let server = found.server.unwrap();
            found.with(&variables(server, [(name, value)].into_iter())).arguments.join(" ")
        };
        assert_eq!(all("gunicorn a --pid x", "GUNICORN_CMD_ARGS", "--pid y"), "--pid y a --pid x");
        assert_eq!(all("uwsgi --pidfile x", "UWSGI_PIDFILE", "y"), "--pidfile x --pidfile=y");
    }
}
