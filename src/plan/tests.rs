//! Plans: what they are built from, how they print, what their bytes survive.

use super::image::{Bad, Layout, PID_ROOM};
use super::*;
use proptest::prelude::*;

fn inputs() -> Inputs {
    Inputs {
        command: vec!["bin/gunicorn".to_owned(), "shop.wsgi".to_owned(), "two words".to_owned()],
        directory: "/srv/shop/releases/7".to_owned(),
        account: Account {
            name: "shop".to_owned(),
            home: "/srv/shop".to_owned(),
            shell: "/bin/sh".to_owned(),
        },
        identity: Some(Identity::new(1001, 1002, &[1002, 33, 33])),
        environment: [
            ("DEBUG", "0"),
            ("TOKEN", "hunter2"),
            ("LANG", "de_DE.UTF-8"),
            ("DEBUG", "1"),
            ("LISTEN_FDS", "9"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        protocols: vec![("NOTIFY_SOCKET".to_owned(), "/run/supervise/notify/1".to_owned())],
        watchdog_pid: true,
        stored: Vec::new(),
        beside: Vec::new(),
        listeners: vec![
            Listener { name: "http".to_owned(), address: "0.0.0.0:80".to_owned() },
            Listener { name: "local".to_owned(), address: "/run/shop.sock".to_owned() },
        ],
        start: Start {
            service: "shop".to_owned(),
            generation: 3,
            instance: 1,
            starts: 12,
            invocation: "0123456789abcdef0123456789abcdef".to_owned(),
        },
        umask: 0o027,
        limits: vec![
            Limit { resource: Resource::Nofile, soft: 1024, hard: 524_288 },
            Limit { resource: Resource::Core, soft: 0, hard: u64::MAX },
        ],
        nice: Some(-5),
        oom_score_adj: Some(100),
        cpus: vec![0, 65],
    }
}

#[test]
fn a_plan_prints_as_people_read_it_without_values() {
    let plan = build(&inputs()).unwrap();
    let expected = "\
command            bin/gunicorn shop.wsgi \"two words\"
program            bin/gunicorn
directory          /srv/shop/releases/7
user               1001
group              1002
groups             33 1002
capabilities       none
umask              0027
nofile             1024:524288
core               0:unlimited
nice               -5
oom-score-adjust   100
cpu-affinity       0 65
no-new-privileges  yes
descriptor 3       http 0.0.0.0:80
descriptor 4       local /run/shop.sock
environment        PATH HOME USER LOGNAME SHELL LANG DEBUG TOKEN NOTIFY_SOCKET PWD LISTEN_FDS LISTEN_FDNAMES \
SERVER_STARTER_PORT SERVER_STARTER_GENERATION INVOCATION_ID SUPERVISE_SERVICE SUPERVISE_GENERATION \
SUPERVISE_INSTANCE LISTEN_PID WATCHDOG_PID
";
    assert_eq!(plan.to_string(), expected);
    assert!(!format!("{plan:?}").contains("hunter2"));
}

#[test]
fn the_environment_is_made_from_nothing_and_later_ones_win() {
    let expected = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/srv/shop",
        "USER=shop",
        "LOGNAME=shop",
        "SHELL=/bin/sh",
        "LANG=de_DE.UTF-8",
        "DEBUG=1",
        "TOKEN=hunter2",
        "NOTIFY_SOCKET=/run/supervise/notify/1",
        "PWD=/srv/shop/releases/7",
        "LISTEN_FDS=2",
        "LISTEN_FDNAMES=http:local",
        "SERVER_STARTER_PORT=0.0.0.0:80=3;/run/shop.sock=4",
        "SERVER_STARTER_GENERATION=12",
        "INVOCATION_ID=0123456789abcdef0123456789abcdef",
        "SUPERVISE_SERVICE=shop",
        "SUPERVISE_GENERATION=3",
        "SUPERVISE_INSTANCE=1",
    ];
    assert_eq!(environment(&inputs()), expected);
}

#[test]
fn without_sockets_nothing_speaks_of_sockets() {
    let plan =
        build(&Inputs { beside: Vec::new(), listeners: vec![], watchdog_pid: false, ..inputs() }).unwrap();
    assert!(
        plan.env.iter().all(|pair| !pair.starts_with("LISTEN_") && !pair.starts_with("SERVER_STARTER_PORT"))
    );
    assert!(plan.pid_variables.is_empty());
}

#[test]
fn a_program_is_looked_for_in_the_service_s_own_path() {
    assert_eq!(candidates("a", "/x:relative::/y/:/x"), ["/x/a", "/y/a"]);
    assert_eq!(candidates("./a", "/x"), ["./a"]);
    let command = vec!["tool".to_owned()];
    let environment = vec![("PATH".to_owned(), "/opt/bin".to_owned())];
    let plan = build(&Inputs { command, environment, ..inputs() }).unwrap();
    assert_eq!(plan.candidates, ["/opt/bin/tool"]);
}

#[test]
fn what_cannot_be_carried_out_is_no_plan() {
    let good = build(&inputs()).unwrap();
    let long = "x".repeat(MOST_STRING_BYTES);
    let half = format!("{}=", "x".repeat(MOST_STRING_BYTES / 2));
    let pair = |name: &str| format!("{name}{half}");
    let passed = Passed { name: "s".to_owned(), address: ":1".to_owned() };
    let cases = [
        (ExecPlan { argv: vec![], ..good.clone() }, "there is no command to execute".to_owned()),
        (ExecPlan { candidates: vec![], ..good.clone() }, "there is no command to execute".to_owned()),
        (ExecPlan { argv: vec!["a\0b".to_owned()], ..good.clone() }, "a NUL byte in the command".to_owned()),
        (ExecPlan { directory: "/a\0".to_owned(), ..good.clone() }, "a NUL byte in the path".to_owned()),
        (
            ExecPlan { env: vec!["A=\0".to_owned()], ..good.clone() },
            "a NUL byte in the environment".to_owned(),
        ),
        (
            ExecPlan { argv: vec![long.clone()], ..good.clone() },
            "131073 bytes in one argument, and 131072 is the most".to_owned(),
        ),
        (
            ExecPlan { argv: vec![long[1..].to_owned(); 9], ..good.clone() },
            format!(
                "{} bytes of arguments and environment, and 1048576 is the most",
                9 * MOST_STRING_BYTES + good_env(&good)
            ),
        ),
        (
            ExecPlan { env: vec![pair("A"), pair("B")], ..good.clone() },
            "131078 bytes of environment, and 131072 is the most".to_owned(),
        ),
        (ExecPlan { sockets: vec![passed; 65], ..good.clone() }, "65 sockets, and 64 is the most".to_owned()),
        (
            ExecPlan { directory: "srv".to_owned(), ..good.clone() },
            "the path `srv` does not start with a slash".to_owned(),
        ),
        (
            ExecPlan { candidates: vec!["sh".to_owned()], ..good.clone() },
            "the path `sh` does not start with a slash".to_owned(),
        ),
        (
            ExecPlan { env: vec!["A=1".to_owned(), "A=2".to_owned()], ..good.clone() },
            "the environment variable `A` is unusable or there twice".to_owned(),
        ),
        (
            ExecPlan { env: vec!["LISTEN_PID=1".to_owned()], ..good.clone() },
            "the environment variable `LISTEN_PID` is unusable or there twice".to_owned(),
        ),
        (
            ExecPlan { env: vec!["=1".to_owned()], ..good.clone() },
            "the environment variable `` is unusable or there twice".to_owned(),
        ),
        (ExecPlan { umask: 0o1000, ..good.clone() }, "umask 512 is out of range".to_owned()),
        (ExecPlan { nice: Some(20), ..good.clone() }, "nice 20 is out of range".to_owned()),
        (ExecPlan { cpus: vec![8192], ..good.clone() }, "processor 8192 is out of range".to_owned()),
        (
            ExecPlan { limits: vec![Limit { resource: Resource::Core, soft: 2, hard: 1 }], ..good.clone() },
            "the limit `core` is above its hard limit or there twice".to_owned(),
        ),
    ];
    for (plan, expected) in cases {
        refused(&plan, &expected);
    }
}

fn refused(plan: &ExecPlan, expected: &str) {
    let encoded = plan.encode().map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(encoded, Err(expected.to_owned()));
}

#[test]
fn nobody_and_more_than_is_granted_is_no_plan() {
    let good = build(&inputs()).unwrap();
    let identity = |change: fn(&mut Identity)| {
        let mut identity = Identity::new(7, 7, &[]);
        change(&mut identity);
        ExecPlan { identity: Some(identity), ..good.clone() }
    };
    refused(&identity(|who| who.uid = u32::MAX), "4294967295 is no user and no group");
    refused(&identity(|who| who.groups = vec![2, 1]), "the groups are not ascending");
    let ungranted = "capabilities are kept that the user is not granted";
    refused(&identity(|who| who.bounding = u64::MAX), ungranted);
    refused(&identity(|who| who.ambient = 1), ungranted);
}

fn good_env(plan: &ExecPlan) -> usize {
    plan.env.iter().map(|pair| pair.len() + 1).sum()
}

fn text(bytes: &[u8], at: usize) -> &str {
    let rest = &bytes[at..];
    std::str::from_utf8(&rest[..rest.iter().position(|byte| *byte == 0).unwrap()]).unwrap()
}

#[test]
fn the_child_reads_what_was_written() {
    let plan = build(&inputs()).unwrap();
    let bytes = plan.encode().unwrap();
    let layout = Layout::parse(&bytes).unwrap();
    let words: Vec<_> =
        (0..).map_while(|index| layout.word(&bytes, index)).map(|at| text(&bytes, at)).collect();
    let expected: Vec<_> = plan.argv.iter().chain(&plan.env).map(String::as_str).collect();
    assert_eq!(words[..expected.len()], expected);
    assert_eq!(words[expected.len()..], ["LISTEN_PID=", "WATCHDOG_PID="]);
    assert_eq!(text(&bytes, layout.directory()), plan.directory);
    assert_eq!(layout.candidate(&bytes, 0).map(|at| text(&bytes, at)), Some("bin/gunicorn"));
    assert_eq!(layout.candidate(&bytes, 1), None);
    assert_eq!((layout.ids(), layout.bounding(), layout.ambient()), (Some((1001, 1002)), 0, 0));
    assert_eq!((layout.umask(), layout.nice(), layout.oom_score_adj()), (0o027, Some(-5), Some(100)));
    assert_eq!(layout.limit(&bytes, 0), Some((Resource::Nofile, 1024, 524_288)));
    assert_eq!(layout.limit(&bytes, 1), Some((Resource::Core, 0, u64::MAX)));
    assert_eq!(layout.limit(&bytes, 2), None);
    assert_eq!(layout.cpus(&bytes), [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let (at, count) = layout.groups();
    assert_eq!((at % 4, count, &bytes[at..at + 8]), (0, 2, &[33, 0, 0, 0, 0xea, 3, 0, 0][..]));
    let (at, count) = layout.pointers();
    assert_eq!((at % 8, count), (0, plan.argv.len() + plan.env.len() + 4));
    let room = layout.patch(&bytes, 0).unwrap();
    assert_eq!(&bytes[room - 11..room + PID_ROOM], b"LISTEN_PID=\0\0\0\0\0\0\0\0\0\0\0\0");
}

/// With a right checksum again, so that what lies behind it is reached.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32fast::hash(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn a_bad_image_is_an_error_of_its_kind() {
    let good = build(&inputs()).unwrap().encode().unwrap();
    let word = |index: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[index * 4..index * 4 + 4].copy_from_slice(&value.to_le_bytes());
        if index > 1 { resealed(bytes) } else { bytes }
    };
    let unterminated = {
        let mut bytes = good.clone();
        *bytes.last_mut().unwrap() = b'x';
        resealed(bytes)
    };
    let room = Layout::parse(&good).unwrap().patch(&good, 0).unwrap();
    let taken = {
        let mut bytes = good.clone();
        bytes[room + PID_ROOM - 1] = b'x';
        resealed(bytes)
    };
    let cases = [
        (good[..95].to_vec(), Bad::Size),
        (word(0, 7), Bad::Version),
        (word(1, 7), Bad::Checksum),
        (word(2, 7), Bad::Count),
        (resealed(good[..good.len() - 1].to_vec()), Bad::Count),
        (unterminated, Bad::Count),
        (word(14, 0), Bad::Text),
        (word(14, good.len() as u32), Bad::Text),
        (word(18, 0), Bad::Count),
        (word(18, u32::MAX), Bad::Count),
        (word(17, 4096), Bad::Count),
        (word(21, 0), Bad::Count),
        (taken, Bad::Room),
        (word(3, 16), Bad::Value),
        (word(4, u32::MAX), Bad::Value),
        (word(6, 1), Bad::Value),
        (word(10, 0o1000), Bad::Value),
        (word(24, 99), Bad::Value),
    ];
    for (index, (bytes, expected)) in cases.into_iter().enumerate() {
        assert_eq!(Layout::parse(&bytes), Err(expected), "case {index}");
    }
}

proptest! {
    /// Whatever the bytes, every place that the child goes to lies inside.
    #[test]
    fn no_bytes_lead_outside(changes in proptest::collection::vec((0_usize..400, any::<u8>()), 1..6), cut in 0_usize..64) {
        let mut bytes = build(&inputs()).unwrap().encode().unwrap();
        for (at, value) in changes {
            if at >= 8 { bytes[at] = value; }
        }
        bytes.truncate(bytes.len() - cut);
        let length = (bytes.len() as u32).to_le_bytes();
        bytes[8..12].copy_from_slice(&length);
        if cut % 2 == 1 { *bytes.last_mut().unwrap() = 0; }
        let bytes = resealed(bytes);
        if let Ok(layout) = Layout::parse(&bytes) {
            let (pointers, count) = layout.pointers();
            let (groups, group_count) = layout.groups();
            prop_assert!(pointers % 8 == 0 && groups % 4 == 0);
            prop_assert!(pointers >= 96 && pointers + count * 8 <= groups && groups + group_count * 4 < bytes.len());
            let texts = (0..layout.argc() + layout.envc()).map(|index| layout.word(&bytes, index))
                .chain((0..layout.candidates()).map(|index| layout.candidate(&bytes, index)))
                .chain([Some(layout.directory())]);
            for at in texts {
                let at = at.unwrap();
                prop_assert!(at >= groups + group_count * 4 && bytes[at..].contains(&0));
            }
            let mut index = 0;
            while let Some(at) = layout.patch(&bytes, index) {
                prop_assert!(at > groups && at + PID_ROOM <= bytes.len());
                index += 1;
            }
        }
    }
}
