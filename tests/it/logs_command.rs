//! `supervise logs`: every line once and in order, whoever asks, however often the files give way, and nothing that
//! somebody put there in place of a log.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::accounts::am_root;
use super::cri;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

const MANY: usize = 100_000;

/// A service that writes numbered lines and stays.
fn counting(place: &Place, name: &str, lines: usize, log: &str) {
    let command = format!("seq -f '{name} %.0f' 1 {lines}; exec sleep 1000");
    let text = format!("command = [\"/bin/sh\", \"-c\", \"{command}\"]\nstart = \"manual\"\n[log]\n{log}");
    place.unit(name, &text);
}

/// A command whose output is read while it runs, and what it says beside that.
struct Following(Child, PathBuf);

impl Following {
    fn of(place: &Place, arguments: &[&str]) -> Self {
        let said = place.path("following.err");
        let mut command = place.command(&place.binary());
        command.arg("--runtime-dir").arg(place.path("run")).arg("logs").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&said).unwrap());
        Self(command.spawn().unwrap(), said)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.1).unwrap()
    }

    /// Its lines up to one of which it is known that it comes.
    #[track_caller]
    fn until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for line in BufReader::new(self.0.stdout.take().unwrap()).lines() {
            lines.push(line.unwrap());
            if lines.last().is_some_and(|line| line == last) {
                return lines;
            }
        }
        panic!("it ended after {} lines, the last was {:?}", lines.len(), lines.last());
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command prints, however much that is.
#[track_caller]
fn printed(place: &Place, arguments: &[&str]) -> Vec<u8> {
    let mut command = place.command(&place.binary());
    let output =
        command.arg("--runtime-dir").arg(place.path("run")).arg("logs").args(arguments).output().unwrap();
    assert!(output.status.success(), "{:?}: {}", arguments, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Compares without printing all of it.
#[track_caller]
fn same(found: &[u8], expected: &[String]) {
    let text = String::from_utf8_lossy(found);
    let found: Vec<&str> = text.lines().collect();
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "line {number}");
    }
    assert_eq!(found.len(), expected.len());
}

fn numbered(name: &str, from: usize, to: usize) -> Vec<String> {
    (from..=to).map(|number| format!("{name} {number}")).collect()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn follows_across_files(who: Who) {
    let mut place = Place::new(who);
    counting(&place, "web", MANY, "max-size = \"64K\"\nkeep = 1000\n");
    place.run();
    // There is nothing to follow yet, not even a directory.
    let mut following = Following::of(&place, &["web", "-f", "--since", "1h ago", "--raw"]);
    place.order(&["start", "web"]);
    let followed = following.until(&format!("web {MANY}"));
    let expected = numbered("web", 1, MANY);
    same(followed.join("\n").as_bytes(), &expected);
    assert_eq!(following.said(), "");
    let files = cri::files(&place.log(), "web");
    // About 5 MB of entries, and no file of more than 64 KiB.
    assert!(files.len() > 70, "{} files: they gave way too late", files.len());
    // What was followed is what is there, and what others read there.
    // A file that is compressed while the names are read may be missed once.
    let there = wait::within(wait::LONG, || {
        Some(cri::texts(&place.log(), "web")).filter(|texts| texts.len() == expected.len())
    });
    same(there.unwrap_or_else(|| cri::texts(&place.log(), "web")).join("\n").as_bytes(), &expected);
    same(&printed(&place, &["web", "--raw"]), &expected);
    same(&printed(&place, &["web", "--raw", "-n", "70000"]), &expected[MANY - 70_000..]);
}

#[test]
fn root_following_goes_across_files_that_give_way() {
    follows_across_files(Who::Root);
}

#[test]
fn user_following_goes_across_files_that_give_way() {
    follows_across_files(Who::User);
}

#[test]
fn user_a_flood_is_followed_by_a_slow_reader_without_a_line_lost() {
    let mut place = Place::new(Who::User);
    counting(&place, "web", MANY, "max-size = \"64K\"\nkeep = 1000\n");
    place.run();
    let mut following = Following::of(&place, &["web", "-f", "--since", "1h ago", "--raw"]);
    place.order(&["start", "web"]);
    // Nothing is read before everything is written: who writes does not wait for who reads.
    wait::until(wait::LONG, "the last line in the log", || {
        let said = place.order(&["logs", "web", "-n", "1", "--raw"]);
        (said.out == format!("web {MANY}\n")).then_some(())
    });
    let followed = following.until(&format!("web {MANY}"));
    same(followed.join("\n").as_bytes(), &numbered("web", 1, MANY));
}

/// The lines of a service whose files go while nobody reads them: what is left, and that there was more.
fn gaps_are_told(log: &str) {
    let mut place = Place::new(Who::User);
    let script =
        "echo first; while ! [ -e go ]; do sleep 0.02; done; seq 1 20000; echo last; exec sleep 1000";
    let work = place.path("work");
    place.unit(
        "web",
        &format!(
            "command = [\"/bin/sh\", \"-c\", \"cd {}; {script}\"]\n[log]\nmax-size = \"64K\"\n{log}",
            work.display()
        ),
    );
    place.run();
    wait::until(wait::LONG, "its first line", || {
        (place.ask(&["logs", "web", "--raw"]).out == "first\n").then_some(())
    });
    let mut following = Following::of(&place, &["web", "-f", "--raw"]);
    let mut reader = BufReader::new(following.0.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    processes::signal(following.0.id(), libc::SIGSTOP);
    place.write("work/go", "");
    wait::until(wait::LONG, "its last line", || {
        (place.order(&["logs", "web", "-n", "1", "--raw"]).out == "last\n").then_some(())
    });
    processes::signal(following.0.id(), libc::SIGCONT);
    let mut found: Vec<u32> = Vec::new();
    loop {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended");
        match line.trim_end() {
            "last" => break,
            number => found.push(number.parse().unwrap()),
        }
    }
    let said = "web: lines are missing here: they were written and removed again before they could be read\n\
                hint: more `keep` or `max-size` in `[log]` keeps them longer\n";
    // It says so once it has shown what there is.
    wait::until(wait::LONG, "what it says", || (!following.said().is_empty()).then_some(()));
    assert_eq!(following.said(), said);
    // Some of them may have been in the file that it had open; after those it is the newest.
    found.insert(0, 0);
    let gaps = found.windows(2).filter(|two| two[1] != two[0] + 1).count();
    assert_eq!((gaps, found.last()), (1, Some(&20_000)));
}

#[test]
fn user_lines_that_have_gone_before_they_were_read_are_told() {
    gaps_are_told("keep = 2\ncompress = false\n");
}

#[test]
fn user_lines_that_have_gone_before_they_were_read_are_told_where_files_are_compressed() {
    gaps_are_told("keep = 2\n");
}

#[test]
fn user_lines_of_several_services_are_merged_by_time() {
    let mut place = Place::new(Who::User);
    // Each waits until the other's line is in the log before it writes.
    let turns = |mine: &str, next: &str, step: usize| {
        let (work, log) = (place.path("work").display().to_string(), place.log().display().to_string());
        let script = format!(
            "i=0; while [ $i -lt 20 ]; do until [ -e {work}/{mine}$i ]; do sleep 0.01; done; echo {mine} $i; \
             until grep -sq \" {mine} $i\\$\" {log}/{mine}/current; do sleep 0.01; done; \
             : > {work}/{next}$((i+{step})); i=$((i+1)); done; exec sleep 1000"
        );
        format!("command = [\"/bin/sh\", \"-c\", {script:?}]\n")
    };
    place.unit("a", &turns("a", "b", 0));
    place.unit("b", &turns("b", "a", 1));
    place.write("work/a0", "");
    place.run();
    let expected: Vec<String> = (0..20).flat_map(|turn| [format!("a {turn}"), format!("b {turn}")]).collect();
    let said = wait::until(wait::LONG, "all turns", || {
        let said = place.order(&["logs", "--raw"]);
        (said.out.lines().count() == 40).then_some(said)
    });
    assert_eq!(lines(&said.out), expected);
    let named = place.order(&["logs", "-n", "3", "--utc"]);
    let named: Vec<Vec<&str>> = named.out.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    assert_eq!(named.iter().map(|line| line[2]).collect::<Vec<_>>(), ["b", "a", "b"]);
    assert!(named.iter().all(|line| line[1].ends_with('Z')), "{named:?}");
}

#[test]
fn user_times_choose_lines() {
    let place = Place::new(Who::User);
    let directory = place.log().join("web");
    fs::create_dir_all(&directory).unwrap();
    let entry = |day: u32| format!("2020-01-{day:02}T12:00:00.500000000Z stdout F day {day}\n");
    fs::write(directory.join("20200103T130000.000000000Z.log"), (1..=3).map(entry).collect::<String>())
        .unwrap();
    fs::write(directory.join("current"), (4..=9).map(entry).collect::<String>()).unwrap();
    let shown = |options: &[&str]| {
        let mut command = place.command(&place.binary());
        command.args(["--runtime-dir", "/nonexistent", "logs", "web", "--raw", "--utc", "--log-dir"]);
        let said = command.arg(place.log()).args(options).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        assert!(String::from_utf8(said.stderr).unwrap().contains("reading the files in"));
        String::from_utf8(said.stdout).unwrap().replace("day ", "").replace('\n', "")
    };
    assert_eq!(shown(&[]), "123456789");
    assert_eq!(shown(&["--since", "2020-01-02 12:00"]), "23456789");
    assert_eq!(shown(&["--since", "2020-01-03 12:00:01"]), "456789");
    assert_eq!(shown(&["--until", "2020-01-05"]), "1234");
    assert_eq!(shown(&["--since", "2020-01-03T00:00:00Z", "--until", "2020-01-04T12:00:00.5Z"]), "34");
    assert_eq!(shown(&["-n", "7"]), "3456789");
    assert_eq!(shown(&["-n", "2", "--until", "2020-01-04"]), "23");
    assert_eq!(shown(&["--since", "1min ago"]), "");
}

#[test]
fn user_without_a_supervisor_the_files_are_read_and_a_wrong_name_is_told() {
    let mut place = Place::new(Who::User);
    counting(&place, "web", 3, "");
    place.run();
    place.order(&["start", "web"]);
    wait::until(wait::LONG, "the lines", || (cri::texts(&place.log(), "web").len() == 3).then_some(()));
    let asked = |name: &str| {
        let mut command = place.command(&place.binary());
        command.args(["--runtime-dir", "/nonexistent", "logs", "--raw", name]);
        let said = command.env("SUPERVISE_LOG_DIR", place.log()).output().unwrap();
        (said.status.code(), String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap())
    };
    let (code, out, err) = asked("web");
    let said = format!(
        "supervise: no supervisor at `/nonexistent/control`; reading the files in `{}`\n",
        place.log().display()
    );
    assert_eq!((code, out.as_str(), err), (Some(0), "web 1\nweb 2\nweb 3\n", said.clone()));
    let (code, out, err) = asked("wbe");
    let no =
        format!("supervise: no log of `wbe` in `{}`\nhint: did you mean `web`?\n", place.log().display());
    assert_eq!((code, out.as_str(), err), (Some(4), "", said + &no));
    assert_eq!(place.ask(&["logs", "wbe"]).code, Some(4));
    assert_eq!(place.ask(&["logs", "web", "--since", "soon"]).code, Some(2));
}

#[test]
fn user_a_terminal_is_safe_and_a_file_gets_the_bytes() {
    let mut place = Place::new(Who::User);
    place.unit(
        "web",
        "command = [\"/bin/sh\", \"-c\", \"printf 'a\\\\033[2J\\\\rb\\\\377\\\\n'; exec sleep 1000\"]\n",
    );
    place.run();
    wait::until(wait::LONG, "the line", || (printed(&place, &["web"]).len() > 10).then_some(()));
    let line = format!("{} --runtime-dir {} logs web", place.binary().display(), place.path("run").display());
    let on_terminal = |options: &str| {
        let mut command = place.command("/usr/bin/script".as_ref());
        command.args(["-qc", &format!("{line} {options}"), "/dev/null"]).stdin(Stdio::null());
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    };
    let safe = on_terminal("");
    assert!(safe.contains("a\\x1b[2J\\rb\\xff"), "{safe:?}");
    let raw = on_terminal("--raw");
    assert!(raw.contains("a\u{1b}[2J\rb\u{fffd}"), "{raw:?}");
    assert!(printed(&place, &["web"]).ends_with(b" a\x1b[2J\rb\xff\n"));
}

#[test]
fn root_a_stranger_gets_nothing_and_what_is_no_log_is_given_to_nobody() {
    let mut place = Place::new(Who::Root);
    counting(&place, "web", 3, "");
    place.run();
    place.order(&["start", "web"]);
    let current = place.log().join("web/current");
    wait::until(wait::LONG, "the lines", || (cri::texts(&place.log(), "web").len() == 3).then_some(()));
    let asked = |uid: u32| {
        let mut command = place.command_as(uid, uid, &[], &place.binary());
        command.arg("--runtime-dir").arg(place.path("run")).args(["logs", "web", "--raw"]).output().unwrap()
    };
    let said = asked(65_533);
    assert_eq!((said.status.code(), said.stdout.as_slice()), (Some(6), b"".as_slice()), "{said:?}");
    // A user who may read it does so without a right to the file.
    let said = asked(place.account.uid);
    assert_eq!((said.status.code(), said.stdout.as_slice()), (Some(0), b"web 1\nweb 2\nweb 3\n".as_slice()));
    assert_eq!(fs::metadata(&current).unwrap().permissions().mode() & 0o777, 0o640);
    // Whoever has the logger's rights puts something else into its place.
    let secret = place.path("secret");
    fs::write(&secret, "2020-01-01T12:00:00.500000000Z stdout F secret\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&current, place.log().join("web/moved")).unwrap();
    let refused = |what: &str| {
        let said = place.ask(&["logs", "web"]);
        assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{what}");
        assert!(
            said.err.starts_with(&format!("web: {}/web: ", place.log().display())),
            "{what}: {}",
            said.err
        );
        fs::remove_file(&current).unwrap();
    };
    symlink(&secret, &current).unwrap();
    refused("a link");
    fs::hard_link(&secret, &current).unwrap();
    refused("a second name");
    assert!(Command::new("mkfifo").arg(&current).status().unwrap().success());
    refused("a pipe");
    fs::write(&current, "x").unwrap();
    std::os::unix::fs::chown(&current, Some(place.account.uid), None).unwrap();
    refused("a file of somebody else");
    fs::rename(place.log().join("web/moved"), &current).unwrap();
    fs::set_permissions(place.log().join("web"), fs::Permissions::from_mode(0o777)).unwrap();
    let said = place.ask(&["logs", "web"]);
    assert!(said.err.contains("another user can write there") && said.out.is_empty(), "{said:?}");
    fs::set_permissions(place.log().join("web"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(place.order(&["logs", "web", "--raw"]).out, "web 1\nweb 2\nweb 3\n");
}

#[test]
fn user_the_manager_keeps_no_descriptor_that_it_gave_away() {
    let mut place = Place::new(Who::User);
    counting(&place, "web", 20_000, "max-size = \"64K\"\n");
    place.run();
    place.order(&["start", "web"]);
    let manager = place.role(Role::Manager);
    let open = || fs::read_dir(format!("/proc/{manager}/fd")).unwrap().count();
    if !am_root() && fs::read_dir(format!("/proc/{manager}/fd")).is_err() {
        panic!("the manager of an ordinary user cannot be looked at");
    }
    wait::until(wait::LONG, "the last line", || {
        (place.order(&["logs", "web", "-n", "1", "--raw"]).out == "web 20000\n").then_some(())
    });
    let before = open();
    for _ in 0..50 {
        place.order(&["logs", "-n", "1"]);
    }
    wait::until(wait::LONG, "the descriptors to be closed", || (open() <= before).then_some(()));
}
