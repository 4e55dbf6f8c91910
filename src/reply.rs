//! The filter's own answers to Stigg. The status says what happened; a JSON body says it again in words, since Stigg shows
//! both to the person who set up the webhook.
//!
//! Stigg takes any 2xx for delivered and delivers again after any other answer (<https://docs.stigg.io/docs/webhooks>).

use std::borrow::Cow;

use serde::Serialize;

use crate::json::Malformed;
use crate::verify::SECRET_HEADER;

/// An answer of the filter's, in place of Segment's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Nothing is sent, on purpose. Stigg need not deliver the event again.
    Ignored(Ignored),
    /// The webhook is rejected.
    Rejected(Rejection),
}

impl From<Ignored> for Reply {
    fn from(ignored: Ignored) -> Self {
        Reply::Ignored(ignored)
    }
}

impl From<Rejection> for Reply {
    fn from(rejection: Rejection) -> Self {
        Reply::Rejected(rejection)
    }
}

/// The table of reasons: variant, status and code of each. A code is the reason for programs and never changes.
macro_rules! reasons {
    ($(#[$about:meta])* $kind:ident {
        $($(#[$doc:meta])* $reason:ident $(($($payload:tt)+))? = $status:literal $code:literal,)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind {
            $($(#[$doc])* $reason $(($($payload)+))?,)+
        }

        impl $kind {
            /// Every code.
            pub const CODES: &[&'static str] = &[$($code),+];

            fn status(self) -> u32 {
                match self { $($kind::$reason { .. } => $status),+ }
            }

            fn code(self) -> &'static str {
                match self { $($kind::$reason { .. } => $code),+ }
            }
        }
    };
}

reasons! {
    /// Why an event is not sent.
    Ignored {
        /// The event is not about a customer.
        NoCustomer = 204 "no_customer",
        /// The event is about a customer, whose id is in a place where the configuration does not look.
        CustomerElsewhere(Elsewhere) = 204 "customer_elsewhere",
        /// The configuration does not send events of this type.
        EventNotAllowed = 204 "event_not_allowed",
    }
}

reasons! {
    /// Why a webhook is rejected.
    Rejection {
        /// There is no body.
        EmptyBody = 400 "empty_body",
        /// The body is not JSON.
        MalformedJson(Position) = 400 "malformed_json",
        /// The body is JSON, but not an object.
        NotAnObject = 400 "not_an_object",
        /// The customer's id is `true`, an array or an object.
        InvalidCustomerId = 400 "invalid_customer_id",
        /// `type` is not a non-empty string, or has no word for a name in title case.
        InvalidType = 400 "invalid_type",
        /// The request asks for another protocol, so the host sees no end of its body.
        UpgradeNotSupported = 400 "upgrade_not_supported",
        /// The webhook secret is missing or wrong.
        Unauthorized = 401 "unauthorized",
        /// No environment is configured for the request's path.
        UnknownPath = 404 "unknown_path",
        /// The method is not POST.
        MethodNotAllowed = 405 "method_not_allowed",
        /// The body is over the limit of the configuration.
        BodyTooLarge(Limit) = 413 "body_too_large",
        /// The call is over the limit of the configuration.
        CallTooLarge(Excess) = 413 "call_too_large",
        /// The body is compressed.
        UnsupportedContentEncoding = 415 "unsupported_content_encoding",
        /// The sender waits for a `100 Continue` that the host leaves to Segment, which gets nothing before the body is there.
        ExpectationFailed = 417 "expectation_failed",
        /// The host did not do what the filter asked for.
        Internal = 500 "internal",
        /// The host has no webhook secret to compare with.
        SecretUnavailable = 500 "secret_unavailable",
        /// The host has no write key to send.
        WriteKeyUnavailable = 503 "write_key_unavailable",
    }
}

/// Where the id of a customer is, when the configuration does not look there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elsewhere {
    /// The path.
    pub path: &'static str,
    /// Whether the configuration has its own places: then this one may hold another kind of id.
    pub has_own_places: bool,
}

/// What is wrong with a JSON text, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// What is wrong.
    pub malformed: Malformed,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in bytes, counted from 1.
    pub column: usize,
}

/// `max_body_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub usize);

/// How a call exceeds its limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// Which call: `track`, or what is sent with it, or the whole `batch`.
    pub call: &'static str,
    /// Its size.
    pub size: usize,
    /// The limit, and its name.
    pub limit: usize,
    /// What the limit is called.
    pub name: &'static str,
    /// The largest members of what is left of the event.
    pub largest: Names,
}

/// The names of some members. Names that are not plain words are left out, so that a message repeats no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    text: [u8; Names::ROOM],
    length: usize,
}

impl Default for Names {
    fn default() -> Self {
        Names { text: [0; Names::ROOM], length: 0 }
    }
}

impl Names {
    const ROOM: usize = 56; // more makes an answer too large to pass around

    /// Adds a name, if it is a plain word and there is room for it.
    pub fn add(&mut self, name: &[u8]) {
        let separator: &[u8] = if self.length == 0 { b"" } else { b", " };
        let is_plain = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let start = self.length;
        let end = start.saturating_add(separator.len()).saturating_add(name.len());
        if let Some(room) = self.text.get_mut(start..end).filter(|_| is_plain) {
            room.iter_mut().zip(separator.iter().chain(name)).for_each(|(room, byte)| *room = *byte);
            self.length = end;
        }
    }

    fn text(&self) -> &str {
        self.text.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

impl Reply {
    /// The HTTP status.
    pub fn status(self) -> u32 {
        match self {
            Reply::Ignored(ignored) => ignored.status(),
            Reply::Rejected(rejection) => rejection.status(),
        }
    }

    /// The reason in a word, for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Reply::Ignored(ignored) => ignored.code(),
            Reply::Rejected(rejection) => rejection.code(),
        }
    }

    /// The response headers that the host does not set itself.
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Reply::Ignored(_) => &[],
            Reply::Rejected(Rejection::MethodNotAllowed) => &[("content-type", "application/json"), ("allow", "POST")],
            Reply::Rejected(_) => &[("content-type", "application/json")],
        }
    }

    /// The reason for people. A 204 has no body to carry it.
    pub fn message(self) -> Cow<'static, str> {
        match self {
            Reply::Ignored(Ignored::NoCustomer) => "As far as the filter can tell, the event is not about a \
                customer: it has no id where user_id looks, nor where other events of Stigg's have one. If it has one elsewhere, \
                add that place to user_id, and it is sent."
                .into(),
            Reply::Ignored(Ignored::CustomerElsewhere(Elsewhere { path, has_own_places: false })) => format!(
                "The event has no id where user_id looks, but it has a customer's id at {path}; \"user_id\": \"all\" in the \
                 configuration sends such events."
            )
            .into(),
            Reply::Ignored(Ignored::CustomerElsewhere(Elsewhere { path, has_own_places: true })) => format!(
                "The event has no id where user_id looks. It has Stigg's customer id at {path}, which may be a company's."
            )
            .into(),
            Reply::Ignored(Ignored::EventNotAllowed) => "The configuration does not send events of this type.".into(),
            Reply::Rejected(rejection) => rejection.message(),
        }
    }

    /// The body; empty for a 204.
    pub fn body(self) -> Vec<u8> {
        match self {
            Reply::Ignored(_) => Vec::new(),
            Reply::Rejected(rejection) => {
                serde_json::to_vec(&Body { code: rejection.code(), message: &rejection.message() }).unwrap_or_default()
            }
        }
    }
}

impl Rejection {
    /// The reason for people: a sentence that says what to do. It repeats nothing of the event and no secret.
    fn message(self) -> Cow<'static, str> {
        match self {
            Rejection::MethodNotAllowed => "Send webhooks to this URL with POST.".into(),
            Rejection::Unauthorized => format!(
                "The header {SECRET_HEADER} is missing or is not the configured secret; copy the webhook's secret from \
                 Stigg into the filter's configuration."
            )
            .into(),
            Rejection::SecretUnavailable => {
                "The gateway has no webhook secret; check that it can read it and that it is UTF-8 text, and deliver the event \
                 again.".into()
            }
            Rejection::WriteKeyUnavailable => {
                "The gateway has no write key for Segment; check that it can read it and that it is one line of UTF-8 text, and \
                 deliver the event again."
                    .into()
            }
            Rejection::UnsupportedContentEncoding => {
                "Send the body without a content-encoding, or put a decompressor before this filter.".into()
            }
            Rejection::UpgradeNotSupported => "Send the webhook without the header upgrade.".into(),
            Rejection::ExpectationFailed => "Send the webhook without the header expect.".into(),
            Rejection::BodyTooLarge(Limit(limit)) => {
                format!(
                    "The body is over {limit} bytes; raise max_body_bytes in the filter's configuration, and \
                     request_body_buffer_limit in Envoy's with it."
                )
                .into()
            }
            Rejection::CallTooLarge(Excess { call, size, limit, name, largest }) => {
                let largest = match largest.text() {
                    "" => String::new(),
                    names => format!(" The largest members of the event are {names}."),
                };
                format!(
                    "The {call} call for this event is {size} bytes, and {name} is {limit}; let the filter leave parts of \
                     large events out with too_large, or of all events with properties.{largest}"
                )
                .into()
            }
            Rejection::EmptyBody => "The body is empty; send one Stigg event as a JSON object.".into(),
            Rejection::MalformedJson(Position { malformed, line, column }) => format!(
                "The body is not JSON: {malformed} (line {line}, column {column}); send one JSON object in UTF-8."
            )
            .into(),
            Rejection::NotAnObject => "The body is JSON, but not an object; send one Stigg event as an object.".into(),
            Rejection::UnknownPath => {
                "No environment is configured for this path; check the webhook's endpoint URL.".into()
            }
            Rejection::InvalidCustomerId => {
                "The customer's id, or the group's, is neither a string nor a number; send it as a string.".into()
            }
            Rejection::InvalidType => {
                "type is not a non-empty string, or has no word in it; send the name of the event, such as \
                 customer.updated."
                    .into()
            }
            Rejection::Internal => {
                "The gateway could not rewrite the request; nothing was sent, deliver the event again.".into()
            }
        }
    }
}
