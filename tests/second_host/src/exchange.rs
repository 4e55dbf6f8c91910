//! A request and its answer in the gateway: what the module may access, and when.
//!
//! The rules are those of
//! [proxy-wasm 0.2.1](https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1#http-fields) on buffers, on HTTP
//! fields and on local responses.

use std::collections::BTreeMap;

use proxy_wasm_host::abi::v0_2_1::types::{BufferType, MapType, Status};
use proxy_wasm_host::abi::v0_2_1::{Access, Callback, ForeignCall, Invocation, LocalResponse, StreamState};
use proxy_wasm_host::{Buffer, HeaderMap, VecHeaderMap};

use crate::gateway::Kind;

/// One request and its answer.
pub(crate) struct Exchange {
    pub(crate) kind: Kind,
    pub(crate) request: Message,
    pub(crate) response: Message,
    /// The module's answer.
    pub(crate) reply: Option<LocalResponse<'static>>,
    /// Whether there is an answer, from the module or from upstream.
    pub(crate) answered: bool,
    /// By path.
    properties: BTreeMap<Vec<Vec<u8>>, Vec<u8>>,
}

/// A request or an answer: the part that is here, and the part that was forwarded.
#[derive(Default)]
pub(crate) struct Message {
    pub(crate) headers: VecHeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: VecHeaderMap,
    pub(crate) sent: Option<Sent>,
    /// The module paused at the last part, and may still change it.
    pub(crate) paused: bool,
}

/// The forwarded part.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) headers: VecHeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: VecHeaderMap,
}

/// The callbacks of one direction.
struct Direction {
    headers: Callback,
    body: Callback,
    trailers: Callback,
}

const REQUEST: Direction =
    Direction { headers: Callback::RequestHeaders, body: Callback::RequestBody, trailers: Callback::RequestTrailers };

const RESPONSE: Direction = Direction {
    headers: Callback::ResponseHeaders,
    body: Callback::ResponseBody,
    trailers: Callback::ResponseTrailers,
};

impl Exchange {
    pub(crate) fn new(kind: Kind, headers: VecHeaderMap) -> Self {
        let request = Message { headers, ..Message::default() };
        Self { kind, request, response: Message::default(), reply: None, answered: false, properties: BTreeMap::new() }
    }
}

impl Message {
    /// Forwards everything that is here.
    pub(crate) fn send(&mut self) {
        let headers = &self.headers;
        let sent = self.sent.get_or_insert_with(|| Sent { headers: headers.clone(), ..Sent::default() });
        sent.body.append(&mut self.body);
        sent.trailers.clone_from(&self.trailers);
    }

    fn headers_at(&mut self, callback: Callback, direction: &Direction) -> Option<&mut dyn HeaderMap> {
        let here = callback == direction.headers
            || (callback == direction.body || callback == direction.trailers) && self.paused;
        (here && self.sent.is_none()).then_some(&mut self.headers)
    }

    fn body_at(&mut self, callback: Callback, direction: &Direction) -> Option<&mut dyn Buffer> {
        let here = callback == direction.body || callback == direction.trailers && self.paused;
        here.then_some(&mut self.body)
    }

    fn trailers_at(&mut self, callback: Callback, direction: &Direction) -> Option<&mut dyn HeaderMap> {
        (callback == direction.trailers).then_some(&mut self.trailers)
    }
}

impl StreamState for Exchange {
    fn header_map(&mut self, call: Invocation, access: Access, map: MapType) -> Result<&mut dyn HeaderMap, Status> {
        let callback = call.callback.ok_or(Status::BadArgument)?;
        let logging = callback == Callback::Log && access == Access::Read;
        let (request, response) = (&mut self.request, &mut self.response);
        match map {
            MapType::HttpRequestHeaders if logging => Some(&mut request.headers as &mut dyn HeaderMap),
            MapType::HttpRequestTrailers if logging => Some(&mut request.trailers as &mut dyn HeaderMap),
            MapType::HttpResponseHeaders if logging => Some(&mut response.headers as &mut dyn HeaderMap),
            MapType::HttpResponseTrailers if logging => Some(&mut response.trailers as &mut dyn HeaderMap),
            MapType::HttpRequestHeaders => request.headers_at(callback, &REQUEST),
            MapType::HttpRequestTrailers => request.trailers_at(callback, &REQUEST),
            MapType::HttpResponseHeaders => response.headers_at(callback, &RESPONSE),
            MapType::HttpResponseTrailers => response.trailers_at(callback, &RESPONSE),
            _ => None,
        }
        .ok_or(Status::BadArgument)
    }

    fn buffer(&mut self, call: Invocation, _: Access, buffer: BufferType) -> Result<&mut dyn Buffer, Status> {
        let callback = call.callback.ok_or(Status::NotFound)?;
        match buffer {
            BufferType::HttpRequestBody => self.request.body_at(callback, &REQUEST),
            BufferType::HttpResponseBody => self.response.body_at(callback, &RESPONSE),
            _ => None,
        }
        .ok_or(Status::NotFound)
    }

    /// Accepts one answer, if there is none yet.
    fn send_local_response(&mut self, _: Invocation, response: LocalResponse<'_>) -> Result<(), Status> {
        let valid = match response.status_code {
            204 | 304 => response.body.is_empty(),
            status => (200..600).contains(&status),
        };
        let names = response.headers.iter().map(|(name, _)| name);
        let lower_case = names.clone().all(|name| !name.is_empty() && name.to_ascii_lowercase() == **name);
        if !valid || !lower_case || std::mem::replace(&mut self.answered, true) {
            return Err(Status::BadArgument);
        }
        self.reply = Some(response.into_owned());
        Ok(())
    }

    fn property(&mut self, _: Invocation, path: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Status> {
        let path: Vec<_> = path.iter().map(|segment| segment.to_vec()).collect();
        out.extend_from_slice(self.properties.get(&path).ok_or(Status::NotFound)?);
        Ok(())
    }

    fn set_property(&mut self, _: Invocation, path: &[&[u8]], value: &[u8]) -> Result<(), Status> {
        if !self.kind.has_extras {
            return Err(Status::NotFound);
        }
        self.properties.insert(path.iter().map(|segment| segment.to_vec()).collect(), value.to_vec());
        Ok(())
    }

    /// This host has no functions beyond the specification.
    fn call_foreign_function(&mut self, _: Invocation, _: ForeignCall<'_>, _: &mut Vec<u8>) -> Result<(), Status> {
        Err(Status::NotFound)
    }
}
