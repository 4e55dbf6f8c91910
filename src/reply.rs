//! The filter's own answers to Stigg: a status code that says it, and a JSON body that says it again in words, since
//! Stigg shows both to the person who set the webhook up.
//!
//! Stigg takes any 2xx for delivered and delivers again after everything else
//! (<https://docs.stigg.io/docs/webhooks>).

use std::borrow::Cow;

use serde::Serialize;

use crate::json::Malformed;
use crate::verify::SECRET_HEADER;

/// What the filter answers in Segment's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Nothing is sent, on purpose, and Stigg need not deliver the event again.
    Ignored(Ignored),
    /// The webhook is refused.
    Rejected(Rejection),
}

/// Why an event is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// It is not about a customer.
    NoCustomer,
    /// The configuration does not let events of its type through.
    EventNotAllowed,
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

/// Why a webhook is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Not a POST.
    Method,
    /// No webhook secret, or a wrong one.
    Unauthorized,
    /// The host has no webhook secret to compare with.
    NoSecret,
    /// A content-encoding that would have to be undone first.
    ContentEncoding,
    /// The body is over `max_body_bytes`, which is given.
    BodyTooLarge(usize),
    /// The track call is over `max_event_bytes`.
    EventTooLarge {
        /// Size of the call, in bytes.
        size: usize,
        /// `max_event_bytes`.
        limit: usize,
    },
    /// There is no body.
    Empty,
    /// The body is not JSON.
    Malformed {
        /// What is wrong, and where.
        error: Malformed,
        /// Line and column of that place, counted from 1.
        position: (usize, usize),
    },
    /// The body is JSON, but not an object.
    NotAnObject,
    /// The customer's id is `true`, an array or an object.
    CustomerId,
    /// `type` is not a non-empty string.
    Type,
    /// No environment is configured for the request's path.
    UnknownPath,
    /// The host refused what the filter asked of it.
    Internal,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

impl Reply {
    /// The HTTP status code.
    pub fn status(self) -> u32 {
        match self {
            Reply::Ignored(ignored) => ignored.status(),
            Reply::Rejected(rejection) => rejection.status(),
        }
    }

    /// What happened, in a word for logs and metrics; never changes.
    pub fn code(self) -> &'static str {
        match self {
            Reply::Ignored(ignored) => ignored.code(),
            Reply::Rejected(rejection) => rejection.code(),
        }
    }

    /// The response headers beside those that the host sets.
    pub fn headers(self) -> &'static [(&'static str, &'static [u8])] {
        match self {
            Reply::Ignored(_) => &[],
            Reply::Rejected(Rejection::Method) => &[("content-type", b"application/json"), ("allow", b"POST")],
            Reply::Rejected(_) => &[("content-type", b"application/json")],
        }
    }

    /// The reason for people; a 204 has no body to say it in.
    pub fn message(self) -> Cow<'static, str> {
        match self {
            Reply::Ignored(Ignored::NoCustomer) => "The event is not about a customer.".into(),
            Reply::Ignored(Ignored::EventNotAllowed) => {
                "The configuration does not let events of this type through.".into()
            }
            Reply::Rejected(rejection) => rejection.message(),
        }
    }

    /// The body; a 204 has none.
    pub fn body(self) -> Option<Vec<u8>> {
        match self {
            Reply::Ignored(_) => None,
            Reply::Rejected(rejection) => {
                serde_json::to_vec(&Body { code: rejection.code(), message: &rejection.message() }).ok()
            }
        }
    }
}

/// Each reason's status, and its code: the reason for programs, which never changes.
macro_rules! reasons {
    ($kind:ident: $($reason:pat => $status:literal $code:literal,)+) => {
        impl $kind {
            /// Every code there is.
            pub const CODES: &[&'static str] = &[$($code),+];

            fn status(self) -> u32 {
                match self { $($reason => $status),+ }
            }

            fn code(self) -> &'static str {
                match self { $($reason => $code),+ }
            }
        }
    };
}

reasons! { Ignored:
    Ignored::NoCustomer => 204 "no_customer",
    Ignored::EventNotAllowed => 204 "event_not_allowed",
}

reasons! { Rejection:
    Rejection::Empty => 400 "empty_body",
    Rejection::Malformed { .. } => 400 "malformed_json",
    Rejection::NotAnObject => 400 "not_an_object",
    Rejection::CustomerId => 400 "invalid_customer_id",
    Rejection::Type => 400 "invalid_type",
    Rejection::Unauthorized => 401 "unauthorized",
    Rejection::UnknownPath => 404 "unknown_path",
    Rejection::Method => 405 "method_not_allowed",
    Rejection::BodyTooLarge(_) => 413 "body_too_large",
    Rejection::EventTooLarge { .. } => 413 "event_too_large",
    Rejection::ContentEncoding => 415 "unsupported_content_encoding",
    Rejection::Internal => 500 "internal",
    Rejection::NoSecret => 500 "secret_unavailable",
}

impl Rejection {
    /// The reason for people: a sentence that says what to do. Nothing of the event or of a secret is in it.
    fn message(self) -> Cow<'static, str> {
        match self {
            Rejection::Method => "Send webhooks to this URL with POST.".into(),
            Rejection::Unauthorized => format!(
                "The header {SECRET_HEADER} is missing or is not the configured secret; copy the webhook's secret from \
                 Stigg into the filter's configuration."
            )
            .into(),
            Rejection::NoSecret => {
                "The gateway has no webhook secret yet; check that it can read it, and deliver the event again.".into()
            }
            Rejection::ContentEncoding => {
                "Send the body without a content-encoding, or put a decompressor before this filter.".into()
            }
            Rejection::BodyTooLarge(limit) => {
                format!("The body is over {limit} bytes; send a smaller event or raise max_body_bytes.").into()
            }
            Rejection::EventTooLarge { size, limit } => format!(
                "The track call for this event is {size} bytes, and Segment takes at most {limit}; send a smaller event."
            )
            .into(),
            Rejection::Empty => "The body is empty; send one Stigg event as a JSON object.".into(),
            Rejection::Malformed { error, position: (line, column) } => {
                format!("The body is not JSON: {error} (line {line}, column {column}); send one JSON object in UTF-8.")
                    .into()
            }
            Rejection::NotAnObject => "The body is JSON, but not an object; send one Stigg event as an object.".into(),
            Rejection::UnknownPath => {
                "No environment is configured for this path; check the webhook's endpoint URL.".into()
            }
            Rejection::CustomerId => {
                "The customer's id is neither a string nor a number; send the customer's id as a string.".into()
            }
            Rejection::Type => {
                "type is not a non-empty string; send the name of the event, such as customer.updated.".into()
            }
            Rejection::Internal => {
                "The gateway could not rewrite the request; nothing was sent, deliver the event again.".into()
            }
        }
    }
}
