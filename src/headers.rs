//! The headers of the request to Segment.
//!
//! What reaches Segment is allow-listed: of the incoming headers only those that Envoy itself needs stay. The changes go
//! back to the host header by header, since it costs Envoy less than a whole new map.

use crate::identity::USER_AGENT;
use crate::secret::Secret;

/// Whether a header of the incoming request stays: what Envoy routes by (it finds no route without
/// `x-forwarded-proto`, which the route then removes), and the id that ties Envoy's log lines to the request.
fn stays(name: &[u8]) -> bool {
    name.starts_with(b":") || matches!(name, b"host" | b"x-forwarded-proto" | b"x-request-id")
}

/// The path of a request target without the query. The query can be anything, a secret too, and is never needed.
pub fn without_query(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

const PATH: &[u8] = b":path";
const CONTENT_TYPE: (&[u8], &[u8]) = (b"content-type", b"application/json");
const AGENT: (&[u8], &[u8]) = (b"user-agent", USER_AGENT.as_bytes());
/// Tells a gateway that cannot match a route on its filter state that the filter has admitted the request. The route
/// removes it again. Its name has underscores because [Envoy Gateway takes no such header from a
/// client](https://gateway.envoyproxy.io/docs/api/extension_types/#headersettings), whatever policies are there.
const ADMITTED: (&[u8], &[u8]) = (b"stigg_segment_filter", b"admitted");
const AUTHORIZATION: &[u8] = b"authorization";
const CONTENT_LENGTH: &[u8] = b"content-length";

/// What makes the incoming headers those of the request to Segment. It borrows nothing, so that it can wait for the body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The path, if a query has to go.
    path: Option<Vec<u8>>,
    /// The names of the headers to remove, each followed by a zero byte, which is in no name.
    removed: Vec<u8>,
    sets_content_type: bool,
    sets_user_agent: bool,
}

impl Changes {
    /// The changes to these headers.
    pub fn to<'a>(incoming: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        // A header that is right already, and is there once, is left alone: to look costs less than a call to the host.
        let mut content_types = Vec::new();
        let mut user_agents = Vec::new();
        let mut changes = Changes { removed: Vec::with_capacity(256), ..Changes::default() };
        for (name, value) in incoming {
            match name {
                PATH if without_query(value) != value => changes.path = Some(without_query(value).to_vec()),
                b"content-type" => content_types.push(value == CONTENT_TYPE.1),
                b"user-agent" => user_agents.push(value == AGENT.1),
                _ if stays(name) => {}
                _ => {
                    changes.removed.extend_from_slice(name);
                    changes.removed.push(0);
                }
            }
        }
        changes.sets_content_type = content_types != [true];
        changes.sets_user_agent = user_agents != [true];
        changes
    }

    /// The headers to set, each with its value, and the headers to remove, without one.
    ///
    /// Without `authorization`, something else adds the credential. Without `content_length`, the headers go on before
    /// the body, and the host frames the body.
    pub fn list<'a>(
        &'a self,
        authorization: Option<&'a Secret>,
        content_length: Option<&'a str>,
        admitted: bool,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let own = [
            self.sets_content_type.then_some(CONTENT_TYPE),
            self.sets_user_agent.then_some(AGENT),
            authorization.map(|secret| (AUTHORIZATION, secret.reveal())),
            content_length.map(|length| (CONTENT_LENGTH, length.as_bytes())),
            admitted.then_some(ADMITTED),
            self.path.as_deref().map(|path| (PATH, path)),
        ];
        let set = move |name: &[u8]| own.iter().flatten().any(|(other, _)| *other == name);
        let removed = self.removed.split(|byte| *byte == 0).filter(move |name| !name.is_empty() && !set(name));
        own.into_iter().flatten().map(|(name, value)| (name, Some(value))).chain(removed.map(|name| (name, None)))
    }
}
