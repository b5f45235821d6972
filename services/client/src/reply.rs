//! One reply, as it came and as an object.
//!
//! Owns: the difference between replies and events, and between OK and ERROR. Must not know which request a reply is for.

use antar_proto::reply::Event;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Refusal, Violation};

/// What a frame's first fields say about it; the rest is read by whoever needs it.
#[derive(Deserialize)]
struct Head {
    status: Option<String>,
    event: Option<Value>,
    id: Option<Value>,
}

/// A reply of the server, OK or ERROR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    raw: String,
    tag: Option<String>,
    ok: bool,
}

/// A frame, understood as far as needed to hand it on.
#[derive(Debug)]
pub(crate) enum Frame {
    Reply(Reply),
    /// `None` for an event of a kind, or with a state, that this version does not know: a newer server may send it.
    Event(Option<Event>),
}

impl Frame {
    /// Understands one frame, without its end.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Violation> {
        let raw = std::str::from_utf8(bytes).map_err(|_| Violation::NotAnObject)?.trim();
        let head: Head = serde_json::from_str(raw).map_err(|_| Violation::NotAnObject)?;
        if head.event.is_some() {
            return Ok(Self::Event(serde_json::from_str(raw).ok()));
        }
        let ok = match head.status.as_deref() {
            Some("OK") => true,
            Some("ERROR") => false,
            _ => return Err(Violation::NoStatus),
        };
        let tag = head.id.as_ref().and_then(Value::as_str).map(str::to_owned);
        Ok(Self::Reply(Reply { raw: raw.to_owned(), tag, ok }))
    }
}

impl Reply {
    /// The reply exactly as received: one line of ASCII.
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// Whether the server did what was asked.
    pub fn is_ok(&self) -> bool {
        self.ok
    }

    /// The field `id`: the request's tag if it had one; else what the command puts there.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Why the server said no; `None` if it did not.
    pub fn refusal(&self) -> Option<Refusal> {
        let vague = || Refusal {
            code: String::new(),
            message: self.raw.clone(),
            detail: String::new(),
            unknown: Vec::new(),
            stored: None,
        };
        (!self.ok).then(|| serde_json::from_str(&self.raw).unwrap_or_else(|_| vague()))
    }

    /// The reply as a value of a type that picks the fields it knows.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.raw)
    }

    /// The reply as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.raw).unwrap_or(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(text: &str) -> Reply {
        match Frame::parse(text.as_bytes()).unwrap() {
            Frame::Reply(reply) => reply,
            Frame::Event(event) => panic!("an event: {event:?}"),
        }
    }

    #[test]
    fn a_reply_keeps_its_text_and_says_ok_or_why_not() {
        let ok = reply(r#"{"status":"OK","id":"7","new":[1]}"#);
        assert!(ok.is_ok() && ok.refusal().is_none());
        assert_eq!((ok.tag(), ok.as_str()), (Some("7"), r#"{"status":"OK","id":"7","new":[1]}"#));
        let error = reply(r#"{"status":"ERROR","code":"no-such-user","message":"User Tidak Ditemukan"}"#);
        assert_eq!(error.refusal().unwrap().code, "no-such-user");
        assert_eq!(
            reply(r#"{"status":"ERROR","code":3}"#).refusal().unwrap().message,
            r#"{"status":"ERROR","code":3}"#
        );
    }

    #[test]
    fn an_event_of_a_later_version_is_no_violation() {
        assert!(matches!(Frame::parse(br#"{"event":"shutdown"}"#), Ok(Frame::Event(Some(Event::Shutdown)))));
        for later in
            [r#"{"event":"typing","user":"messi"}"#, r#"{"event":"status","state":"lost"}"#, r#"{"event":1}"#]
        {
            assert!(matches!(Frame::parse(later.as_bytes()), Ok(Frame::Event(None))), "{later}");
        }
    }

    #[test]
    fn what_is_no_reply_is_a_violation() {
        for (bytes, expected) in [
            (&b"HTTP/1.1 400 Bad Request"[..], Violation::NotAnObject),
            (b"", Violation::NotAnObject),
            (b"[]", Violation::NotAnObject),
            (b"\xff", Violation::NotAnObject),
            (b"{}", Violation::NoStatus),
            (br#"{"status":"ok"}"#, Violation::NoStatus),
        ] {
            assert_eq!(Frame::parse(bytes).unwrap_err(), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::parse(&bytes);
        }
    }
}
