//! The public Varlink implementation for Python as the judge of our server and of our interface file.

use std::path::Path;
use std::process::{Command, Output};

use super::pypi;
use super::server::{Server, asked_names, outcome, service, supervisor};
use supervise::wire::control::{
    self, Event, EventReply, LogReply, Refusal, Reply, Row, Shown, State, StatusReply,
};
use supervise::wire::exec::ExecReply;
use supervise::wire::names::Unknown;
use supervise::wire::request::Request;

fn python(judge: &Path, args: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } =
        Command::new("python3").args(args).env("PYTHONPATH", judge).output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn script(request: &Request) -> Vec<Reply> {
    let names = asked_names(request);
    match request {
        Request::Status { .. } if names == ["none"] => {
            let unknown = Unknown { name: "none".into(), near: None, file: None };
            vec![Reply::Refused(Refusal::NoSuchService(unknown))]
        }
        Request::Status { .. } => {
            let services = vec![service("web", State::Running)];
            vec![supervisor(), Reply::Status(StatusReply { supervisor: None, services })]
        }
        Request::Events { .. } => {
            let event = Event { service: "web".into(), state: State::Running, ..Event::default() };
            vec![
                Reply::Event(EventReply::default()),
                Reply::Event(EventReply { event: Some(Box::new(event)), missed: 2 }),
            ]
        }
        Request::Show { name, .. } => {
            let row = Row { key: "service.user".into(), value: "\"al\"".into(), from: "web.toml:2:8".into() };
            vec![Reply::Shown(Shown { service: name.clone(), generation: 1, rows: vec![row] })]
        }
        Request::Exec { .. } => {
            let exit = control::Exit { code: Some(0), signal: None, meaning: "success".into() };
            vec![Reply::Executed(ExecReply { pid: None, exit: Some(exit), problem: None })]
        }
        Request::Logs { .. } => {
            let reply = LogReply { service: "web".into(), to: "file".into(), ..LogReply::default() };
            vec![Reply::Log(Box::new(reply))]
        }
        Request::Start(_)
        | Request::Stop { .. }
        | Request::Restart { .. }
        | Request::Reload(_)
        | Request::Scale { .. }
        | Request::Kill { .. } => vec![outcome("web")],
    }
}

#[test]
fn the_public_command_line_tool_can_talk_to_us() {
    let judge = pypi::varlink();
    let server = Server::start(script);
    let address = format!("unix:{}", server.dir().join("control").display());
    let tool = |args: &[&str]| python(&judge, &[&["-m", "varlink.cli"], args].concat());
    let (good, info, _) = tool(&["info", &address]);
    assert!(good && info.contains("   org.varlink.service\n   io.supervise.Control\n"), "{info}");
    let (good, help, _) = tool(&["help", &format!("{address}/io.supervise.Control")]);
    assert!(good, "{help}");
    assert_eq!(help.trim_end(), supervise::wire::verb::DESCRIPTION.trim_end());
    let status = format!("{address}/io.supervise.Control.Status");
    let (good, one, _) = tool(&["call", &status, r#"{"names": ["web"]}"#]);
    assert!(good);
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&one["supervisor"]["pid"], &one["services"][0]["name"]), (&7.into(), &"web".into()));
    let (good, many, _) = tool(&["call", "--more", &status]);
    let parts: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&many).into_iter().map(Result::unwrap).collect();
    assert!(good && parts.len() == 2, "{many}");
    let (_, _, error) = tool(&["call", &status, r#"{"names": ["none"]}"#]);
    assert!(error.contains("io.supervise.Control.NoSuchService"), "{error}");
    let (_, _, error) = tool(&["call", &format!("{address}/io.supervise.Control.Fly")]);
    assert!(error.contains("org.varlink.service.MethodNotFound"), "{error}");
}

#[test]
fn the_public_parser_understands_our_interface_and_its_types_are_those_of_our_replies() {
    let judge = pypi::varlink();
    let server = Server::start(script);
    let address = format!("unix:{}", server.dir().join("control").display());
    // The generated methods convert parameters and replies by the parsed interface, field by field.
    let program = "
import sys, varlink
with varlink.Client.new_with_address(sys.argv[1]) as client:
    interface = client.get_interface('io.supervise.Control')
    print(*sorted(interface.members))
    with client.open('io.supervise.Control') as control:
        reply = control.Status(['web'])
        print(reply['supervisor']['version'], *[one['name'] for one in reply['services']])
        print(*[len(part['services']) for part in control.Status(_more=True)])
        print(control.Restart(['web'], '0' * 32)['services'][0]['state'])
        print(control.Stop(names=['web'], operation='1' * 32, hold=True)['services'][0]['name'])
        print(control.Scale(names=['web'], operation='2' * 32, instances=2)['services'][0]['name'])
        print(control.Kill(['web'], 'HUP')['services'][0]['name'])
        print(*[(part['missed'], (part.get('event') or {}).get('service')) for part in control.Events(_more=True)])
        print(control.Show('web')['rows'][0]['value'])
        try:
            control.Stop([], 'x')
        except varlink.VarlinkError as error:
            print(error.error(), error.parameters())
";
    let (good, said, error) = python(&judge, &["-c", program, &address]);
    assert!(good, "{error}");
    let expected = "\
Ended Event Events Exec Exit Failed Failure Instance Kill Logs NoSuchService NotPermitted Outcome Progress Reload Restart Row Scale Service Show Socket Start Status Stop Supervisor Terminal
9.9.9 web
0 1
running
web
web
web
(0, None) (2, 'web')
\"al\"
org.varlink.service.InvalidParameter {'parameter': 'names'}
";
    assert_eq!(said, expected);
}
