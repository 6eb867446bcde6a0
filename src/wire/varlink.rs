//! PURE. Varlink: frames of JSON ended by a NUL byte, calls, replies and the errors every service has.
//! Never a socket, never a method of ours.
//!
//! Source: <https://varlink.org/Method-Call> and the interface `org.varlink.service`. What arrives here was
//! written by anybody, so a frame is bounded, then its shape is, and only then is it parsed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest call a server takes, in bytes without its NUL.
pub const MOST_CALL: usize = 64 * 1024;
/// The longest reply a client takes, in bytes without its NUL.
pub const MOST_REPLY: usize = 1024 * 1024;
/// How deep the objects and arrays of a call may be nested.
pub const MOST_DEPTH: usize = 16;
/// How many values a call may hold; bounds the memory its parsed form needs.
pub const MOST_VALUES: usize = 4096;

/// The interface that every Varlink service has.
pub const SERVICE: &str = "org.varlink.service";

/// Why bytes are not a Varlink message. There is no answer to such bytes but to hang up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbled {
    /// More bytes than the limit, and no NUL among them.
    TooLong,
    /// Nested deeper than [`MOST_DEPTH`].
    TooDeep,
    /// More than [`MOST_VALUES`] values.
    TooMany,
    /// Not JSON, or not an object with a `method`.
    NotACall,
    /// Not JSON, or not an object with `parameters` or an `error`.
    NotAReply,
}

impl std::fmt::Display for Garbled {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self {
            Self::TooLong => "a message is longer than the limit",
            Self::TooDeep => "a message is nested too deeply",
            Self::TooMany => "a message holds too many values",
            Self::NotACall => "a message is no Varlink call",
            Self::NotAReply => "a message is no Varlink reply",
        })
    }
}

impl std::error::Error for Garbled {}

/// Cuts a stream of bytes into frames. Holds at most `most` bytes and the NUL; holds none between frames.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    searched: usize,
    most: usize,
}

impl Frames {
    /// A splitter for frames of at most `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), searched: 0, most }
    }

    /// How many more bytes [`Frames::push`] may be given now. 0 says: take a frame out first.
    pub fn room(&self) -> usize {
        (self.most + 1).saturating_sub(self.bytes.len())
    }

    /// Appends bytes that have arrived; those beyond [`Frames::room`] are an error.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Garbled> {
        if bytes.len() > self.room() {
            return Err(Garbled::TooLong);
        }
        let (length, held) = (self.bytes.len() + bytes.len(), self.bytes.capacity());
        if length > held {
            // Doubling as a vector does, but never beyond what a frame may need.
            self.bytes.reserve_exact((held * 2).clamp(length, self.most + 1) - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes the next whole frame out, without its NUL.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, Garbled> {
        let fresh = self.bytes.get(self.searched..).unwrap_or_default();
        let Some(offset) = memchr::memchr(0, fresh) else {
            self.searched = self.bytes.len();
            return if self.room() == 0 { Err(Garbled::TooLong) } else { Ok(None) };
        };
        let rest = self.bytes.split_off(self.searched + offset + 1);
        let mut frame = std::mem::replace(&mut self.bytes, rest);
        frame.pop();
        self.searched = 0;
        self.bytes.shrink_to_fit();
        Ok(Some(frame))
    }

    /// Whether [`Frames::take`] has a whole frame to give.
    pub fn has_frame(&self) -> bool {
        memchr::memchr(0, self.bytes.get(self.searched..).unwrap_or_default()).is_some()
    }

    /// Whether no byte is held: no frame has begun that has not ended.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Checks depth and number of values without building anything. Text that is no JSON passes: parsing says so.
pub fn shape(frame: &[u8]) -> Result<(), Garbled> {
    let (mut depth, mut values) = (0usize, 0usize);
    let (mut quoted, mut escaped) = (false, false);
    for byte in frame {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                values += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' | b':' => values += 1,
            _ => {}
        }
        if depth > MOST_DEPTH {
            return Err(Garbled::TooDeep);
        }
        if values > MOST_VALUES {
            return Err(Garbled::TooMany);
        }
    }
    Ok(())
}

/// A method call as it stands in a frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The full name: interface, dot, method.
    pub method: String,
    /// The arguments by name.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// Wants no reply at all.
    #[serde(default, skip_serializing_if = "is_false")]
    pub oneway: bool,
    /// Takes several replies.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
    /// Wants the connection for another protocol after the reply.
    #[serde(default, skip_serializing_if = "is_false")]
    pub upgrade: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Call {
    /// Reads a frame: its shape first, then the whole of it.
    pub fn decode(frame: &[u8]) -> Result<Self, Garbled> {
        if frame.len() > MOST_CALL {
            return Err(Garbled::TooLong);
        }
        shape(frame)?;
        serde_json::from_slice(frame).map_err(|_| Garbled::NotACall)
    }

    /// The frame with its NUL.
    pub fn encode(&self) -> Vec<u8> {
        framed(self)
    }
}

/// A reply as it stands in a frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The full name of the error, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What came of the call, or what the error says.
    #[serde(default)]
    pub parameters: Value,
    /// More replies to the same call follow.
    #[serde(default, skip_serializing_if = "is_false")]
    pub continues: bool,
}

impl Answer {
    /// A reply that is no error.
    pub fn new(parameters: Value, continues: bool) -> Self {
        Self { error: None, parameters, continues }
    }

    /// Reads a frame.
    pub fn decode(frame: &[u8]) -> Result<Self, Garbled> {
        serde_json::from_slice(frame).map_err(|_| Garbled::NotAReply)
    }

    /// The frame with its NUL.
    pub fn encode(&self) -> Vec<u8> {
        framed(self)
    }
}

fn framed(value: &impl Serialize) -> Vec<u8> {
    // Maps with string keys and no custom serialiser: there is nothing that could fail. An empty frame,
    // were it ever sent, makes the peer hang up.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(0);
    bytes
}

/// The errors that `org.varlink.service` defines for every service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standard {
    /// No interface of that name.
    InterfaceNotFound(String),
    /// The interface has no method of that name.
    MethodNotFound(String),
    /// The method is known and cannot be called like that.
    MethodNotImplemented(String),
    /// The named parameter is missing, unknown or of the wrong kind.
    InvalidParameter(String),
    /// The method answers with several replies, and the call did not set `more`.
    ExpectedMore,
}

impl Standard {
    /// The reply that says so.
    pub fn answer(&self) -> Answer {
        let (name, field, text) = match self {
            Self::InterfaceNotFound(name) => ("InterfaceNotFound", "interface", Some(name)),
            Self::MethodNotFound(name) => ("MethodNotFound", "method", Some(name)),
            Self::MethodNotImplemented(name) => ("MethodNotImplemented", "method", Some(name)),
            Self::InvalidParameter(name) => ("InvalidParameter", "parameter", Some(name)),
            Self::ExpectedMore => ("ExpectedMore", "", None),
        };
        let parameters = text.map(|text| (field.to_owned(), Value::from(text.as_str())));
        Answer {
            error: Some(format!("{SERVICE}.{name}")),
            parameters: Value::Object(parameters.into_iter().collect()),
            continues: false,
        }
    }

    /// The error that a reply carries, where it is one of these.
    pub fn read(answer: &Answer) -> Option<Self> {
        let name = answer.error.as_deref()?.strip_prefix(SERVICE)?.strip_prefix('.')?;
        let text =
            |field: &str| answer.parameters.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        match name {
            "InterfaceNotFound" => Some(Self::InterfaceNotFound(text("interface"))),
            "MethodNotFound" => Some(Self::MethodNotFound(text("method"))),
            "MethodNotImplemented" => Some(Self::MethodNotImplemented(text("method"))),
            "InvalidParameter" => Some(Self::InvalidParameter(text("parameter"))),
            "ExpectedMore" => Some(Self::ExpectedMore),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_is_cut_at_its_nuls_however_it_is_chopped() {
        let mut frames = Frames::new(8);
        frames.push(b"on").unwrap();
        assert_eq!(frames.take(), Ok(None));
        frames.push(b"e\0\0tw").unwrap();
        assert_eq!(frames.take(), Ok(Some(b"one".to_vec())));
        assert_eq!(frames.take(), Ok(Some(Vec::new())));
        assert_eq!(frames.take(), Ok(None));
        frames.push(b"o\0").unwrap();
        assert_eq!(frames.take(), Ok(Some(b"two".to_vec())));
        assert!(frames.is_empty());
        assert_eq!(frames.held(), 0, "an idle connection holds memory");
    }

    #[test]
    fn a_frame_may_be_as_long_as_the_limit_and_no_longer() {
        let mut frames = Frames::new(4);
        frames.push(b"four\0").unwrap();
        assert_eq!(frames.take(), Ok(Some(b"four".to_vec())));
        frames.push(b"five").unwrap();
        frames.push(b"s").unwrap();
        assert_eq!(frames.take(), Err(Garbled::TooLong));
        assert_eq!(frames.held(), 5, "more memory than the longest frame needs");
        assert_eq!(frames.push(b"x"), Err(Garbled::TooLong));
    }

    #[test]
    fn depth_is_bounded_before_anything_is_parsed_and_text_does_not_count() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
        assert_eq!(shape(&nested(MOST_DEPTH)), Ok(()));
        assert_eq!(shape(&nested(MOST_DEPTH + 1)), Err(Garbled::TooDeep));
        assert_eq!(shape(br#"{"method":"[[[[[[[[[[[[[[[[[[[[\"[[[[[[[[[[[[[[[["}"#), Ok(()));
        assert_eq!(shape("[".repeat(MOST_CALL).as_bytes()), Err(Garbled::TooDeep));
        let call = |inside: &[u8]| [br#"{"method":"a.B","parameters":{"x":"#, inside, b"}}"].concat();
        assert!(Call::decode(&call(&nested(MOST_DEPTH - 2))).is_ok());
        assert_eq!(Call::decode(&call(&nested(MOST_DEPTH - 1))), Err(Garbled::TooDeep));
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let wide = |count: usize| format!("[{}]", vec!["1"; count].join(",")).into_bytes();
        assert_eq!(shape(&wide(MOST_VALUES)), Ok(()));
        assert_eq!(shape(&wide(MOST_VALUES + 1)), Err(Garbled::TooMany));
    }

    #[test]
    fn a_call_is_an_object_with_a_method() {
        let call = Call::decode(br#"{"method":"a.B","parameters":{"x":1},"more":true,"later":0}"#).unwrap();
        assert_eq!((call.method.as_str(), call.more, call.oneway), ("a.B", true, false));
        assert_eq!(call.parameters.get("x"), Some(&Value::from(1)));
        assert_eq!(Call::decode(&call.encode()[..call.encode().len() - 1]), Ok(call));
        for bad in [
            &b""[..],
            b"{}",
            b"[]",
            b"null",
            br#"{"method":1}"#,
            br#"{"method":"a.B","parameters":[]}"#,
            br#"{"method":"a.B","more":1}"#,
            br#"{"method":"a.B","method":"c.D"}"#,
            b"{\"method\":\"\xff\"}",
        ] {
            assert_eq!(Call::decode(bad), Err(Garbled::NotACall), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn standard_errors_read_back_as_they_were_written() {
        for error in [
            Standard::InterfaceNotFound("a".into()),
            Standard::MethodNotFound("a.B".into()),
            Standard::MethodNotImplemented("a.B".into()),
            Standard::InvalidParameter("x".into()),
            Standard::ExpectedMore,
        ] {
            assert_eq!(Standard::read(&error.answer()), Some(error));
        }
        let text = String::from_utf8(Standard::InvalidParameter("names".into()).answer().encode()).unwrap();
        let expected =
            r#"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"names"}}"#;
        assert_eq!(text.trim_end_matches('\0'), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_frames_between_the_nuls(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..300),
            cuts in proptest::collection::vec(1usize..40, 1..40),
        ) {
            let mut expected: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
            let rest = expected.pop().unwrap_or_default();
            let mut frames = Frames::new(400);
            let (mut got, mut left, mut cut) = (Vec::new(), &bytes[..], cuts.iter().cycle());
            while !left.is_empty() {
                let (piece, after) = left.split_at((*cut.next().unwrap()).min(left.len()));
                frames.push(piece).unwrap();
                while let Some(frame) = frames.take().unwrap() {
                    got.push(frame);
                }
                left = after;
            }
            prop_assert_eq!(got, expected);
            prop_assert_eq!(frames.room(), 401 - rest.len());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Call::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }

        #[test]
        fn no_json_like_text_makes_the_decoder_panic(
            text in r#"(\{|\}|\[|\]|,|:|"|\\|"method"|"parameters"|"a\.B"|true|[0-9eE+.-]|null){0,60}"#
        ) {
            let _ = Call::decode(text.as_bytes());
            let _ = Answer::decode(text.as_bytes());
        }
    }
}
