//! PURE. Which server a command is, and what stands before it. Never looks at a file.

use super::Server;

/// What a command turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recognised {
    /// The server; None where it is none of those that are known.
    pub server: Option<Server>,
    /// The words behind the server's program.
    pub arguments: Vec<String>,
    /// What starts the program as a process of its own, so that the main process is not the server: the last one.
    pub wrapper: Option<Wrapper>,
}

/// A program that starts another one and stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapper {
    /// How it is written: `uv run`, `sh -c`.
    pub name: String,
    /// The program that it starts, as it is written.
    pub program: String,
}

/// A program that runs the rest of its command line.
struct Prefix {
    name: &'static str,
    /// Whether it becomes that program; else it starts it and stays.
    becomes: bool,
    /// Options whose value is the next word.
    valued: &'static [&'static str],
    /// Words of its own before the rest.
    own: usize,
}

const fn prefix(name: &'static str, becomes: bool, valued: &'static [&'static str], own: usize) -> Prefix {
    Prefix { name, becomes, valued, own }
}

const PREFIXES: &[Prefix] = &[
    prefix("env", true, &["-u", "--unset", "-C", "--chdir"], 0),
    prefix("nice", true, &["-n", "--adjustment"], 0),
    prefix("ionice", true, &["-c", "-n", "--class", "--classdata"], 0),
    prefix("chrt", true, &[], 1),
    prefix("taskset", true, &[], 1),
    prefix("numactl", true, &["-N", "-m", "-C"], 0),
    prefix("stdbuf", true, &["-i", "-o", "-e"], 0),
    prefix("nohup", true, &[], 0),
    prefix("setpriv", true, &["--reuid", "--regid", "--groups", "--inh-caps", "--bounding-set"], 0),
    prefix(
        "chpst",
        true,
        &["-u", "-U", "-b", "-/", "-e", "-n", "-l", "-L", "-m", "-d", "-o", "-p", "-f", "-c"],
        0,
    ),
    prefix("setuidgid", true, &[], 1),
    prefix("su-exec", true, &[], 1),
    prefix("gosu", true, &[], 1),
    prefix("poetry run", true, &["-C", "-P", "--directory", "--project"], 0),
    prefix(
        "uv run",
        false,
        &[
            "--with",
            "-p",
            "--python",
            "--project",
            "--directory",
            "--env-file",
            "--package",
            "--extra",
            "--group",
        ],
        0,
    ),
    prefix("pipenv run", true, &[], 0),
    prefix("pdm run", false, &["-p"], 0),
    prefix("hatch run", false, &[], 0),
    prefix("rye run", false, &[], 0),
    prefix("conda run", false, &["-n", "--name", "-p", "--prefix", "--cwd"], 0),
    prefix("npm run", false, &[], 0),
    prefix("timeout", false, &["-s", "--signal", "-k", "--kill-after"], 1),
    prefix("tini", false, &["-p", "-e"], 0),
    prefix("dumb-init", false, &["-r"], 0),
    prefix("catatonit", false, &[], 0),
    prefix("sudo", false, &["-u", "-g", "-D"], 0),
    prefix("runuser", false, &["-u", "-g", "-G"], 0),
];

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Recognises a command by its words.
pub fn recognise(argv: &[String]) -> Recognised {
    let mut found = Recognised::default();
    let mut wrapper = None;
    let mut rest = argv;
    // Each turn takes at least one word away.
    while let Some((first, behind)) = rest.split_first() {
        let name = base(first);
        if let Some(server) = Server::of_program(name) {
            found.server = Some(server);
            found.arguments = behind.to_vec();
            break;
        }
        if is_python(name) {
            let (server, arguments) = in_python(behind);
            found.server = server;
            found.arguments = arguments.to_vec();
            break;
        }
        if matches!(name, "sh" | "bash" | "dash" | "ash" | "zsh") {
            return in_shell(name, behind, wrapper);
        }
        let Some((one, after)) = prefixed(name, behind) else { break };
        if !one.becomes {
            wrapper = Some(one.name.to_owned());
        }
        rest = after;
    }
    let program = || rest.first().cloned().unwrap_or_default();
    found.wrapper = wrapper.map(|name| Wrapper { name, program: program() });
    found
}

/// The prefix that a program is, and what is behind it and its own words.
fn prefixed<'a>(name: &str, behind: &'a [String]) -> Option<(&'static Prefix, &'a [String])> {
    let one = PREFIXES.iter().find(|one| match one.name.split_once(' ') {
        Some((program, verb)) => program == name && behind.iter().any(|word| word == verb),
        None => one.name == name,
    })?;
    let mut rest = behind;
    let verb = one.name.split_once(' ').map(|(_, verb)| verb);
    let mut own = one.own + usize::from(verb.is_some());
    while let Some((word, after)) = rest.split_first() {
        if word == "--" && own == 0 {
            return Some((one, after));
        }
        let assigns = one.name == "env" && word.contains('=') && !word.starts_with('-');
        if word.starts_with('-') && one.valued.contains(&word.as_str()) {
            rest = after.get(1..).unwrap_or_default();
        } else if word.starts_with('-') || assigns {
            rest = after;
        } else if own > 0 {
            own -= 1;
            rest = after;
        } else {
            break;
        }
    }
    Some((one, rest))
}

fn is_python(name: &str) -> bool {
    ["python", "pypy"].iter().any(|start| {
        name.strip_prefix(start)
            .is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    })
}

/// `-m MODULE` or the path of a script, behind the interpreter's own options.
fn in_python(words: &[String]) -> (Option<Server>, &[String]) {
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        match word.as_str() {
            "-m" => {
                let server = after.first().and_then(|module| Server::of_module(module));
                return (server, after.get(1..).unwrap_or_default());
            }
            "-c" => return (None, after),
            "-W" | "-X" | "--check-hash-based-pycs" => rest = after.get(1..).unwrap_or_default(),
            word if word.starts_with("-m") => {
                return (Server::of_module(word.get(2..).unwrap_or_default()), after);
            }
            word if word.starts_with('-') => rest = after,
            script => return (Server::of_program(base(script)), after),
        }
    }
    (None, rest)
}

/// The command of `sh -c`. A shell waits for it, unless it says `exec`; bash and zsh become their last command in any
/// case.
fn in_shell(name: &str, behind: &[String], wrapper: Option<String>) -> Recognised {
    let text = match behind {
        [flags, text, ..] if flags.starts_with('-') && flags.ends_with('c') => text,
        _ => return Recognised::default(),
    };
    // What stands before the last command of a list is over by then.
    let last =
        text.rsplit(['\n', ';', '&', '|']).map(str::trim).find(|part| !part.is_empty()).unwrap_or_default();
    let words: Vec<String> =
        last.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect();
    let assigned = words.iter().take_while(|word| word.contains('=') && !word.starts_with('-')).count();
    let words = words.get(assigned..).unwrap_or_default();
    let executes = words.first().is_some_and(|word| word == "exec");
    let words = words.get(usize::from(executes)..).unwrap_or_default();
    let mut found = recognise(words);
    if found.server.is_none() {
        return Recognised::default();
    }
    let program = words.first().cloned().unwrap_or_default();
    let stays = !executes && !matches!(name, "bash" | "zsh");
    let shell = stays.then(|| format!("{name} -c"));
    found.wrapper = found.wrapper.or_else(|| shell.or(wrapper).map(|name| Wrapper { name, program }));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Option<Server>, String, Option<String>) {
        // `_` stands for a space within a word.
        let argv: Vec<String> = text.split(' ').map(|word| word.replace('_', " ")).collect();
        let found = recognise(&argv);
        let wrapper = found.wrapper.map(|wrapper| format!("{}: {}", wrapper.name, wrapper.program));
        (found.server, found.arguments.join(" "), wrapper)
    }

    #[test]
    fn a_server_is_known_whatever_becomes_it() {
        for text in [
            "gunicorn app:app",
            "/srv/venv/bin/gunicorn app:app",
            "bin/gunicorn app:app",
            "python -m gunicorn app:app",
            "/usr/bin/python3.11 -u -X dev -W ignore -m gunicorn app:app",
            "/srv/venv/bin/python /srv/venv/bin/gunicorn app:app",
            "env A=1 -u B gunicorn app:app",
            "/usr/bin/env -i A=1 nice -n 5 gunicorn app:app",
            "nice -5 gunicorn app:app",
            "setpriv --reuid 7 -- gunicorn app:app",
            "chpst -u web gunicorn app:app",
            "taskset 0x3 gunicorn app:app",
            "poetry run gunicorn app:app",
            "sh -c exec_gunicorn_app:app",
            "sh -ec cd_/srv_&&_A=1_exec_gunicorn_app:app",
            "bash -c gunicorn_app:app",
        ] {
            assert_eq!(of(text), (Some(Server::Gunicorn), "app:app".to_owned(), None), "{text}");
        }
    }

    #[test]
    fn what_starts_it_and_stays_is_named() {
        for (text, wrapper) in [
            ("uv run gunicorn app:app", "uv run: gunicorn"),
            ("uv --quiet run --with x -- python -m gunicorn app:app", "uv run: python"),
            ("tini -- gunicorn app:app", "tini: gunicorn"),
            ("timeout 60 nice gunicorn app:app", "timeout: gunicorn"),
            ("sh -c gunicorn_app:app", "sh -c: gunicorn"),
            ("/bin/dash -c cd_/srv;_gunicorn_app:app", "dash -c: gunicorn"),
            ("dumb-init sh -c exec_gunicorn_app:app", "dumb-init: gunicorn"),
        ] {
            let expected = (Some(Server::Gunicorn), "app:app".to_owned(), Some(wrapper.to_owned()));
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn each_server_has_its_names() {
        for (text, server) in [
            ("uwsgi --ini x", Server::Uwsgi),
            ("/usr/bin/uwsgi-core x", Server::Uwsgi),
            ("uvicorn app:app", Server::Uvicorn),
            ("python3 -muvicorn app:app", Server::Uvicorn),
            ("hypercorn x", Server::Hypercorn),
            ("daphne x", Server::Daphne),
            ("granian x", Server::Granian),
            ("python -m waitress x", Server::Waitress),
            ("waitress-serve x", Server::Waitress),
            ("celery -A x worker", Server::Celery),
            ("/usr/bin/redis-server x", Server::Redis),
        ] {
            assert_eq!(of(text).0, Some(server), "{text}");
        }
        for text in
            ["python app.py", "python -m http.server", "node gunicorn.js", "sh -c true", "", "python", "uv"]
        {
            assert_eq!(of(text).0, None, "{text}");
        }
        for server in Server::ALL {
            assert_eq!(Server::from_word(server.word()), Some(server));
        }
    }
}
