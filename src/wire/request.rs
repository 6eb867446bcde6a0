//! PURE. A call of a client to what it asks for, checked whole before anything is done. Never acts.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::control::{Refusal, Reply};
use super::exec::Terminal;
use super::names::{MOST_NAME, MOST_NAMES, is_glob};
use super::varlink::{Call, SERVICE, Standard};
use super::verb::{DESCRIPTION, INTERFACE, Rights, Verb};

/// How many globs a request may hold; bounds the work of matching them against all names.
pub const MOST_GLOBS: usize = 16;

/// The most instances of a service; `instances` of a unit takes no more either.
pub const MOST_INSTANCES: u16 = 1024;

/// The longest name of a signal, in bytes.
pub const MOST_SIGNAL: usize = 16;

/// The id a client draws for an operation, so that it can ask again after its connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(pub u128);

impl fmt::Display for OperationId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:032x}", self.0)
    }
}

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnId;

impl FromStr for OperationId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !digits {
            return Err(NotAnId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NotAnId)
    }
}

/// What an operation is to be done on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Names and globs; at least one.
    pub names: Vec<String>,
    /// The client's id of the operation.
    pub operation: OperationId,
    /// Whether the reply waits for the outcome.
    pub wait: bool,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// How services are: these, or all where there is no name.
    Status {
        /// Names and globs.
        names: Vec<String>,
        /// Whether their last lines of output are wanted, too.
        detail: bool,
    },
    /// Bring services up.
    Start(Order),
    /// Bring services down.
    Stop {
        /// Which.
        order: Order,
        /// Whether their sockets stay open.
        hold: bool,
    },
    /// Put new processes in place of old ones.
    Restart {
        /// Of which.
        order: Order,
        /// Whether the old ones end before the new ones start, in any case.
        stop_first: bool,
    },
    /// Have services read their configuration again.
    Reload(Order),
    /// Run another number of instances.
    Scale {
        /// Of which.
        order: Order,
        /// How many, at least 1.
        instances: u16,
    },
    /// Send a signal.
    Kill {
        /// Names and globs; at least one.
        names: Vec<String>,
        /// Its name without SIG; whether there is one of that name is the manager's to say.
        signal: String,
        /// Whether every process gets it, and not the main ones alone.
        all: bool,
    },
    /// What happens to services from now on: to these, or to all where there is no name.
    Events {
        /// Names and globs.
        names: Vec<String>,
    },
    /// What a service is made of.
    Show {
        /// Its name.
        name: String,
        /// Whether its next start is asked for, and not its unit.
        exec: bool,
    },
    /// Run a command in a service's context.
    Exec {
        /// The service's name.
        name: String,
        /// The command: at least one word.
        argv: Vec<String>,
        /// Its terminal; without it gets pipes.
        terminal: Option<Terminal>,
        /// The pid of one that runs already: its end is waited for, by a client whose connection broke.
        resume: Option<u32>,
    },
    /// The log files of services: of these, or of all where there is no name.
    Logs {
        /// Names and globs.
        names: Vec<String>,
    },
}

impl Request {
    /// The verb that this is a request of.
    pub const fn verb(&self) -> Verb {
        match self {
            Self::Status { .. } => Verb::Status,
            Self::Start(_) => Verb::Start,
            Self::Stop { .. } => Verb::Stop,
            Self::Restart { .. } => Verb::Restart,
            Self::Reload(_) => Verb::Reload,
            Self::Scale { .. } => Verb::Scale,
            Self::Kill { .. } => Verb::Kill,
            Self::Events { .. } => Verb::Events,
            Self::Show { .. } => Verb::Show,
            Self::Exec { .. } => Verb::Exec,
            Self::Logs { .. } => Verb::Logs,
        }
    }

    /// What an operation is to be done on; None for what is no operation.
    pub const fn order(&self) -> Option<&Order> {
        match self {
            Self::Start(order)
            | Self::Stop { order, .. }
            | Self::Restart { order, .. }
            | Self::Reload(order)
            | Self::Scale { order, .. } => Some(order),
            Self::Status { .. }
            | Self::Kill { .. }
            | Self::Events { .. }
            | Self::Show { .. }
            | Self::Logs { .. }
            | Self::Exec { .. } => None,
        }
    }

    /// Whether asking twice is the same as asking once, so that a client whose connection broke may ask again.
    pub const fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Kill { .. } | Self::Exec { .. })
    }

    /// The call that asks for it, with `more` set.
    pub fn call(&self) -> Call {
        let mut parameters = match self {
            Self::Status { names, .. } | Self::Events { names } | Self::Logs { names } => {
                json!({ "names": names })
            }
            Self::Kill { names, signal, all } => json!({ "names": names, "signal": signal, "all": all }),
            Self::Show { name, exec } => json!({ "name": name, "exec": exec }),
            Self::Exec { name, argv, .. } => json!({ "name": name, "argv": argv }),
            Self::Start(order)
            | Self::Stop { order, .. }
            | Self::Restart { order, .. }
            | Self::Reload(order)
            | Self::Scale { order, .. } => json!({
                "names": order.names,
                "operation": order.operation.to_string(),
                "wait": order.wait,
            }),
        };
        // What is as it was before there was such a parameter is not written: an older supervisor takes it.
        match (self, &mut parameters) {
            (Self::Status { detail: true, .. }, Value::Object(map)) => {
                map.insert("detail".into(), true.into());
            }
            (Self::Stop { hold: true, .. }, Value::Object(map)) => {
                drop(map.insert("hold".into(), true.into()))
            }
            (Self::Restart { stop_first: true, .. }, Value::Object(map)) => {
                map.insert("stop_first".into(), true.into());
            }
            (Self::Exec { terminal, resume, .. }, Value::Object(map)) => {
                map.extend(terminal.as_ref().map(|terminal| ("terminal".into(), json!(terminal))));
                map.extend(resume.map(|pid| ("resume".into(), pid.into())));
            }
            (Self::Scale { instances, .. }, Value::Object(map)) => {
                map.insert("instances".into(), (*instances).into());
            }
            _ => {}
        }
        let parameters = match parameters {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Call { method: self.verb().full_method(), parameters, more: true, ..Call::default() }
    }
}

/// What a call turns out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Understood {
    /// Something for the manager.
    Ask(Request),
    /// Something that is answered at once, with this frame.
    Answer(Vec<u8>),
}

/// What `call` of a peer with these `rights` asks for, or the answer to it.
pub fn understand(call: &Call, rights: Rights) -> Understood {
    match decode(call, rights) {
        Ok(understood) => understood,
        Err(reply) => Understood::Answer(reply.encode(false)),
    }
}

fn decode(call: &Call, rights: Rights) -> Result<Understood, Reply> {
    let (interface, method) = call.method.rsplit_once('.').unwrap_or(("", &call.method));
    if call.upgrade {
        return Err(Reply::Standard(Standard::MethodNotImplemented(call.method.clone())));
    }
    if interface == SERVICE {
        return service(call, method).map(Understood::Answer);
    }
    if interface != INTERFACE {
        return Err(Reply::Standard(Standard::InterfaceNotFound(interface.to_owned())));
    }
    let unknown = || Reply::Standard(Standard::MethodNotFound(call.method.clone()));
    let verb = Verb::of_method(method).ok_or_else(unknown)?;
    if !rights.include(verb.needs()) {
        return Err(Reply::Refused(Refusal::NotPermitted(verb.needs(), None)));
    }
    let request = match verb {
        Verb::Status => {
            only(call, &["names", "detail"])?;
            Request::Status { names: names(call)?, detail: flag(call, "detail", false)? }
        }
        Verb::Start => Request::Start(order(call, None)?),
        Verb::Stop => Request::Stop { order: order(call, Some("hold"))?, hold: flag(call, "hold", false)? },
        Verb::Restart => Request::Restart {
            order: order(call, Some("stop_first"))?,
            stop_first: flag(call, "stop_first", false)?,
        },
        Verb::Reload => Request::Reload(order(call, None)?),
        Verb::Scale => {
            let count = call.parameters.get("instances").and_then(Value::as_u64);
            let count = count.and_then(|count| u16::try_from(count).ok());
            let count = count.filter(|count| *count <= MOST_INSTANCES);
            Request::Scale {
                order: order(call, Some("instances"))?,
                instances: count.ok_or_else(|| invalid("instances"))?,
            }
        }
        Verb::Kill => {
            only(call, &["names", "signal", "all"])?;
            let (names, all) = (some_names(call)?, flag(call, "all", false)?);
            Request::Kill { names, signal: word(call, "signal", MOST_SIGNAL)?, all }
        }
        Verb::Events => {
            only(call, &["names"])?;
            if !call.more {
                return Err(Reply::Standard(Standard::ExpectedMore));
            }
            Request::Events { names: names(call)? }
        }
        Verb::Logs => {
            only(call, &["names"])?;
            if !call.more {
                return Err(Reply::Standard(Standard::ExpectedMore));
            }
            Request::Logs { names: names(call)? }
        }
        Verb::Show => {
            only(call, &["name", "exec"])?;
            Request::Show { name: word(call, "name", MOST_NAME)?, exec: flag(call, "exec", false)? }
        }
        Verb::Exec => exec(call)?,
    };
    Ok(Understood::Ask(request))
}

fn exec(call: &Call) -> Result<Request, Reply> {
    only(call, &["name", "argv", "terminal", "resume"])?;
    let request = Request::Exec {
        name: word(call, "name", MOST_NAME)?,
        argv: words(call, "argv")?,
        terminal: given(call, "terminal", Terminal::of)?,
        resume: given(call, "resume", |value| u32::try_from(value.as_u64()?).ok())?,
    };
    if call.more { Ok(request) } else { Err(Reply::Standard(Standard::ExpectedMore)) }
}

/// The two methods of `org.varlink.service`.
fn service(call: &Call, method: &str) -> Result<Vec<u8>, Reply> {
    let parameters = match method {
        "GetInfo" => {
            only(call, &[])?;
            json!({
                "vendor": "supervise",
                "product": "supervise",
                "version": env!("CARGO_PKG_VERSION"),
                "url": env!("CARGO_PKG_HOMEPAGE"),
                "interfaces": [SERVICE, INTERFACE],
            })
        }
        "GetInterfaceDescription" => {
            only(call, &["interface"])?;
            match call.parameters.get("interface").and_then(Value::as_str) {
                Some(INTERFACE) => json!({ "description": DESCRIPTION }),
                Some(SERVICE) => json!({ "description": SERVICE_DESCRIPTION }),
                Some(other) => {
                    return Err(Reply::Standard(Standard::InterfaceNotFound(other.to_owned())));
                }
                None => return Err(invalid("interface")),
            }
        }
        _ => return Err(Reply::Standard(Standard::MethodNotFound(call.method.clone()))),
    };
    Ok(super::varlink::Answer::new(parameters, false).encode())
}

const SERVICE_DESCRIPTION: &str = include_str!("org.varlink.service.varlink");

fn invalid(parameter: &str) -> Reply {
    Reply::Standard(Standard::InvalidParameter(parameter.to_owned()))
}

/// A misspelt parameter must not be taken for a missing one.
fn only(call: &Call, known: &[&str]) -> Result<(), Reply> {
    match call.parameters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(invalid(key)),
        None => Ok(()),
    }
}

/// What every operation has, and which parameter it may have besides.
fn order(call: &Call, besides: Option<&str>) -> Result<Order, Reply> {
    let known = ["names", "operation", "wait", besides.unwrap_or("wait")];
    only(call, &known)?;
    let names = some_names(call)?;
    let operation = call.parameters.get("operation").and_then(Value::as_str).unwrap_or_default();
    let operation = operation.parse().map_err(|NotAnId| invalid("operation"))?;
    Ok(Order { names, operation, wait: flag(call, "wait", true)? })
}

fn flag(call: &Call, name: &str, default: bool) -> Result<bool, Reply> {
    match call.parameters.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(invalid(name)),
    }
}

/// A parameter that may be left out, and is wrong where it cannot be read.
fn given<T>(call: &Call, name: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, Reply> {
    match call.parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| invalid(name)),
    }
}

fn word(call: &Call, name: &str, most: usize) -> Result<String, Reply> {
    let word = call.parameters.get(name).and_then(Value::as_str);
    let word = word.filter(|word| !word.is_empty() && word.len() <= most);
    word.map(str::to_owned).ok_or_else(|| invalid(name))
}

/// The words of a command; the frame bounds how many.
fn words(call: &Call, name: &str) -> Result<Vec<String>, Reply> {
    let list = call.parameters.get(name).and_then(Value::as_array).ok_or_else(|| invalid(name))?;
    let words: Option<Vec<String>> = list.iter().map(|word| word.as_str().map(str::to_owned)).collect();
    let right = |words: &Vec<String>| words.first().is_some_and(|program| !program.is_empty());
    words.filter(right).ok_or_else(|| invalid(name))
}

fn some_names(call: &Call) -> Result<Vec<String>, Reply> {
    let names = names(call)?;
    if names.is_empty() { Err(invalid("names")) } else { Ok(names) }
}

fn names(call: &Call) -> Result<Vec<String>, Reply> {
    let list = match call.parameters.get("names") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MOST_NAMES => list,
        Some(_) => return Err(invalid("names")),
    };
    let fits = |name: &&str| !name.is_empty() && name.len() <= MOST_NAME;
    let names: Option<Vec<String>> =
        list.iter().map(|value| value.as_str().filter(fits).map(str::to_owned)).collect();
    let names = names.ok_or_else(|| invalid("names"))?;
    if names.iter().filter(|name| is_glob(name)).count() > MOST_GLOBS {
        return Err(invalid("names"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::varlink::Answer;
    use super::super::verb::Right;
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn asked(method: &str, parameters: Value, rights: Rights) -> Result<Request, Answer> {
        let call = json!({ "method": method, "parameters": parameters });
        let call = Call::decode(call.to_string().as_bytes()).unwrap();
        match understand(&call, rights) {
            Understood::Ask(request) => Ok(request),
            Understood::Answer(bytes) => Err(Answer::decode(&bytes[..bytes.len() - 1]).unwrap()),
        }
    }

    fn standard(method: &str, parameters: Value) -> Standard {
        let answer = asked(method, parameters, Rights::EVERYTHING).unwrap_err();
        Standard::read(&answer).unwrap()
    }

    #[test]
    fn requests_read_back_as_they_were_written() {
        let order = |wait| Order { names: vec!["web".into()], operation: ID.parse().unwrap(), wait };
        let exec = |terminal, resume| Request::Exec {
            name: "web".into(),
            argv: vec!["ls".into(), "-l".into()],
            terminal,
            resume,
        };
        for request in [
            Request::Status { names: vec![], detail: false },
            Request::Status { names: vec!["bagels-*".into()], detail: true },
            Request::Start(order(true)),
            Request::Stop { order: order(false), hold: false },
            Request::Stop { order: order(false), hold: true },
            Request::Restart { order: order(true), stop_first: false },
            Request::Restart { order: order(true), stop_first: true },
            Request::Reload(order(true)),
            Request::Scale { order: order(true), instances: 3 },
            Request::Kill { names: vec!["web".into()], signal: "HUP".into(), all: true },
            Request::Events { names: vec![] },
            Request::Show { name: "web".into(), exec: true },
            Request::Logs { names: vec!["web".into(), "db-*".into()] },
            exec(None, None),
            exec(Some(Terminal { term: "xterm".into(), rows: 24, columns: 80 }), Some(7)),
        ] {
            let call = request.call();
            assert_eq!(understand(&call, Rights::EVERYTHING), Understood::Ask(request));
            assert!(call.more);
        }
    }

    #[test]
    fn an_id_is_128_bits_in_lower_case_hexadecimal() {
        let id: OperationId = ID.parse().unwrap();
        assert_eq!(id.to_string(), ID);
        assert_eq!(OperationId(1).to_string().parse(), Ok(OperationId(1)));
        for bad in ["", "1", &ID[1..], &format!("{ID}0"), &ID.to_uppercase(), &format!("+{}", &ID[1..])] {
            assert_eq!(bad.parse::<OperationId>(), Err(NotAnId), "{bad}");
        }
    }

    #[test]
    fn parameters_are_checked_whole() {
        let start = "io.supervise.Control.Start";
        for (parameters, wrong) in [
            (json!({ "operation": ID }), "names"),
            (json!({ "names": [], "operation": ID }), "names"),
            (json!({ "names": "web", "operation": ID }), "names"),
            (json!({ "names": ["web", 1], "operation": ID }), "names"),
            (json!({ "names": [""], "operation": ID }), "names"),
            (json!({ "names": ["x".repeat(MOST_NAME + 1)], "operation": ID }), "names"),
            (json!({ "names": vec!["x"; MOST_NAMES + 1], "operation": ID }), "names"),
            (json!({ "names": vec!["x*"; MOST_GLOBS + 1], "operation": ID }), "names"),
            (json!({ "names": ["web"] }), "operation"),
            (json!({ "names": ["web"], "operation": "x" }), "operation"),
            (json!({ "names": ["web"], "operation": ID, "wait": 1 }), "wait"),
            (json!({ "names": ["web"], "operation": ID, "wiat": true }), "wiat"),
        ] {
            assert_eq!(standard(start, parameters), Standard::InvalidParameter(wrong.into()));
        }
        let order =
            |besides: &str, value: Value| json!({ "names": ["web"], "operation": ID, besides: value });
        for (method, parameters, wrong) in [
            ("Status", json!({ "name": [] }), "name"),
            ("Start", order("hold", true.into()), "hold"),
            ("Stop", order("hold", 1.into()), "hold"),
            ("Restart", order("stop_first", "x".into()), "stop_first"),
            ("Reload", order("signal", "HUP".into()), "signal"),
            ("Scale", json!({ "names": ["web"], "operation": ID }), "instances"),
            ("Scale", order("instances", 1025.into()), "instances"),
            ("Scale", order("instances", 70_000.into()), "instances"),
            ("Scale", order("instances", (-1).into()), "instances"),
            ("Kill", json!({ "names": ["web"] }), "signal"),
            ("Kill", json!({ "names": [], "signal": "HUP" }), "names"),
            ("Kill", json!({ "names": ["web"], "signal": "X".repeat(MOST_SIGNAL + 1) }), "signal"),
            ("Exec", json!({ "name": "web", "argv": ["ls"], "terminal": true }), "terminal"),
            ("Exec", json!({ "name": "web", "argv": ["ls"], "resume": -1 }), "resume"),
            ("Show", json!({}), "name"),
            ("Show", json!({ "name": "x".repeat(MOST_NAME + 1) }), "name"),
        ] {
            let method = format!("io.supervise.Control.{method}");
            assert_eq!(standard(&method, parameters), Standard::InvalidParameter(wrong.into()), "{method}");
        }
        assert_eq!(standard("io.supervise.Control.Events", json!({})), Standard::ExpectedMore);
    }

    #[test]
    fn unknown_names_are_told_apart() {
        let no = json!({});
        assert_eq!(
            standard("io.supervise.Control.Fly", no.clone()),
            Standard::MethodNotFound("io.supervise.Control.Fly".into())
        );
        assert_eq!(standard("org.x.Status", no.clone()), Standard::InterfaceNotFound("org.x".into()));
        assert_eq!(standard("Status", no.clone()), Standard::InterfaceNotFound(String::new()));
        assert_eq!(
            standard("org.varlink.service.Fly", no),
            Standard::MethodNotFound("org.varlink.service.Fly".into())
        );
        assert_eq!(
            standard("org.varlink.service.GetInterfaceDescription", json!({ "interface": "a.b" })),
            Standard::InterfaceNotFound("a.b".into())
        );
        let upgrade = Call { method: "io.supervise.Control.Status".into(), upgrade: true, ..Call::default() };
        let Understood::Answer(bytes) = understand(&upgrade, Rights::EVERYTHING) else {
            panic!("an upgrade was taken");
        };
        let answer = Answer::decode(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(
            Standard::read(&answer),
            Some(Standard::MethodNotImplemented("io.supervise.Control.Status".into()))
        );
    }

    #[test]
    fn the_service_describes_itself() {
        let info = asked("org.varlink.service.GetInfo", json!({}), Rights::EVERYTHING).unwrap_err();
        assert_eq!(info.parameters["interfaces"], json!([SERVICE, INTERFACE]));
        for interface in [SERVICE, INTERFACE] {
            let parameters = json!({ "interface": interface });
            let method = "org.varlink.service.GetInterfaceDescription";
            let answer = asked(method, parameters, Rights::EVERYTHING).unwrap_err();
            let text = answer.parameters["description"].as_str().unwrap();
            assert!(text.contains(&format!("\ninterface {interface}\n")), "{text}");
        }
    }

    #[test]
    fn rights_are_asked_before_parameters_are_looked_at() {
        let rights = Rights::up_to(Right::Status);
        let refused = asked("io.supervise.Control.Stop", json!({ "bad": 1 }), rights).unwrap_err();
        assert_eq!(Refusal::read(&refused), Some(Refusal::NotPermitted(Right::Control, None)));
        assert!(asked("io.supervise.Control.Status", json!({}), rights).is_ok());
    }

    proptest! {
        #[test]
        fn no_parameters_make_the_decoder_panic(
            method in "(io\\.supervise\\.Control|org\\.varlink\\.service|\\.)?\\.?(Status|Start|Scale|Kill|Show|GetInfo|x)?",
            key in "names|operation|wait|instances|signal|name|interface|x",
            value in r#"(\[|\]|\{|\}|"|a|\*|1|,|:|null|true){0,12}"#,
        ) {
            let text = format!(r#"{{"method":"{method}","parameters":{{"{key}":{value}}}}}"#);
            if let Ok(call) = Call::decode(text.as_bytes()) {
                let _ = understand(&call, Rights::EVERYTHING);
            }
        }
    }
}
