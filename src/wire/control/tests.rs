//! PURE. The values of the control protocol as they are written and read.

use super::*;
use crate::wire::verb::DESCRIPTION;

fn text(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).unwrap();
    text.strip_suffix('\0').unwrap().to_owned()
}

#[test]
fn every_field_of_a_service_is_there_even_when_nothing_is_known() {
    let service = Service { name: "web".into(), ..Service::default() };
    let reply = Reply::Status(StatusReply { supervisor: None, services: vec![service] });
    let expected = concat!(
        r#"{"parameters":{"services":[{"name":"web","state":"stopped","waiting_for":[],"#,
        r#""healthy":null,"pid":null,"pids":[],"generation":0,"instances":[],"restarts":0,"since":null,"#,
        r#""exit":null,"next_start":null,"gate":null,"sockets":[],"memory_bytes":null,"#,
        r#""cpu_seconds":null,"status_text":null,"tracking":null,"problems":[],"user":null,"ends":[],"changed":[],"adopted":null,"output":[],"stored":0,"output_of":null,"silent":false,"description":null,"documentation":[],"unit":null,"command":[],"log_to":null,"log_file":null}]},"continues":true}"#,
    );
    assert_eq!(text(reply.encode(true)), expected);
}

#[test]
fn the_interface_file_has_every_type_with_every_field_in_order() {
    let fields = |name: &str| -> Vec<String> {
        let (_, body) = DESCRIPTION.split_once(&format!("{name} (\n")).unwrap();
        let (body, _) = body.split_once("\n)").unwrap();
        body.lines().map(|line| line.trim().split(':').next().unwrap().to_owned()).collect()
    };
    // A map of serde_json sorts its keys; the text itself keeps the order of the fields.
    fn keys(value: &impl Serialize) -> Vec<String> {
        let text = serde_json::to_string(value).unwrap();
        let (mut depth, mut keys) = (0, Vec::new());
        for (index, piece) in text.split('"').enumerate() {
            if index % 2 == 1 {
                let rest = &text[text.find(&format!("\"{piece}\":")).unwrap_or(text.len())..];
                if depth == 1 && rest.starts_with(&format!("\"{piece}\":")) {
                    keys.push(piece.to_owned());
                }
            } else {
                depth += piece.matches(['{', '[']).count() as i32;
                depth -= piece.matches(['}', ']']).count() as i32;
            }
        }
        keys
    }
    assert_eq!(fields("type Supervisor"), keys(&Supervisor::default()));
    assert_eq!(fields("type Exit"), keys(&Exit::default()));
    assert_eq!(fields("type Instance"), keys(&Instance::default()));
    assert_eq!(fields("type Socket"), keys(&Socket::default()));
    assert_eq!(fields("type Service"), keys(&Service::default()));
    assert_eq!(fields("type Ended"), keys(&Ended::default()));
    assert_eq!(fields("type Event"), keys(&Event::default()));
    assert_eq!(fields("type Row"), keys(&Row::default()));
    assert_eq!(fields("type Outcome"), keys(&Outcome::default()));
    assert_eq!(fields("type Progress"), keys(&Progress::default()));
    assert_eq!(fields("type Failure"), keys(&Failure::default()));
    assert_eq!(fields("error Failed"), keys(&Failed::default()));
}

#[test]
fn words_are_the_same_in_text_and_in_json() {
    for state in [
        State::Stopped,
        State::Listening,
        State::Waiting,
        State::Starting,
        State::Running,
        State::Reloading,
        State::Stopping,
        State::BackingOff,
        State::Failed,
        State::Done,
    ] {
        assert_eq!(serde_json::to_value(state).unwrap(), Value::from(state.word()));
        assert!(DESCRIPTION.contains(&format!("`{}`", state.word())));
    }
    for role in [Role::Current, Role::Next, Role::Draining] {
        assert_eq!(serde_json::to_value(role).unwrap(), Value::from(role.word()));
    }
}

#[test]
fn errors_read_back_as_they_were_written() {
    let failure = Failure {
        service: "web".into(),
        step: "changing to the working directory".into(),
        reason: "permission denied".into(),
        hint: None,
        exit: Some(Exit { code: Some(1), signal: None, meaning: "exited with status 1".into() }),
        output: vec!["Traceback".into()],
        silent: true,
    };
    for refusal in [
        Refusal::NoSuchService(Unknown { name: "wbe".into(), near: Some("web".into()), file: None }),
        Refusal::NoSuchService(Unknown { name: "x".into(), near: None, file: Some("/x.toml".into()) }),
        Refusal::NotPermitted(Right::Control, Some("web".into())),
        Refusal::NotPermitted(Right::Everything, None),
        Refusal::Failed(Box::new(Failed {
            first: failure.clone(),
            others: vec![Failure { output: vec![], ..failure }],
        })),
    ] {
        let bytes = Reply::Refused(refusal.clone()).encode(true);
        let answer = Answer::decode(&bytes[..bytes.len() - 1]).unwrap();
        assert!(!answer.continues, "an error went on");
        assert_eq!(Refusal::read(&answer), Some(refusal));
    }
    let bytes = Reply::Refused(Refusal::NotPermitted(Right::Status, None)).encode(false);
    let expected = r#"{"error":"io.supervise.Control.NotPermitted","parameters":{"needs":"status"}}"#;
    assert_eq!(text(bytes), expected);
}

#[test]
fn a_reply_of_an_older_or_newer_version_is_understood() {
    let older: StatusReply = serde_json::from_str(r#"{"services":[{"name":"web"}]}"#).unwrap();
    assert_eq!(older.services, [Service { name: "web".into(), ..Service::default() }]);
    let newer = r#"{"services":[{"name":"web","new":[1]}],"extra":{}}"#;
    assert_eq!(serde_json::from_str::<StatusReply>(newer).unwrap(), older);
}

#[test]
fn the_longest_service_is_far_shorter_than_the_reply_queue() {
    let long = "x".repeat(100_000);
    let socket =
        Socket { name: long.clone(), address: long.clone(), queue: None, backlog: None, inherited: true };
    let service = Service {
        name: "x".repeat(63),
        waiting_for: vec![long.clone(); 1000],
        pids: vec![4_194_304; 100_000],
        instances: vec![Instance { since: Some("2026-11-23T03:12:45Z".into()), ..Instance::default() }; 9999],
        sockets: vec![socket; 1000],
        tracking: Some("\u{1}".repeat(5000)),
        exit: Some(Exit { code: None, signal: None, meaning: long.clone() }),
        status_text: Some(long.clone()),
        problems: vec![long; 1000],
        ..Service::default()
    };
    let reply = StatusReply { supervisor: None, services: vec![service.bounded()] };
    let bytes = Reply::Status(reply).encode(true).len();
    assert!((120_000..=MOST_SENT).contains(&bytes), "{bytes}");
}

#[test]
fn the_longest_error_and_the_longest_outcome_can_be_sent() {
    let long = "\u{1}".repeat(5_000);
    let exit = Some(Exit { code: None, signal: None, meaning: long.clone() });
    let first = Failure {
        service: long.clone(),
        step: long.clone(),
        reason: long.clone(),
        hint: Some(long.clone()),
        exit,
        output: vec![long.clone(); 100],
        silent: true,
    };
    let failed = Failed { others: vec![first.clone(); 500], first };
    let bytes = Reply::Refused(Refusal::Failed(Box::new(failed))).encode(false).len();
    assert!((120_000..=MOST_SENT).contains(&bytes), "{bytes}");
    let outcome = Outcome { name: "x".repeat(63), note: Some("x".repeat(500)), ..Outcome::default() };
    for (count, kept) in [(900, 900), (9000, 0)] {
        let reply = OperationReply { services: vec![outcome.clone(); count], progress: None };
        let bytes = Reply::Operation(reply).encode(false);
        assert!(bytes.len() <= MOST_SENT, "{}", bytes.len());
        let answer = Answer::decode(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(answer.parameters["services"].as_array().map(Vec::len), Some(kept));
    }
}

#[test]
fn a_failure_keeps_its_last_lines() {
    let output = (0..100).map(|line| line.to_string()).collect();
    let failure = Failure { output, ..Failure::default() }.bounded();
    assert_eq!(failure.output.len(), MOST_LINES);
    assert_eq!(failure.output.last().map(String::as_str), Some("99"));
}
