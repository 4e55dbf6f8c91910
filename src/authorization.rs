//! How a call names its Segment source: the write key is the user name of Basic authentication, without a password
//! (<https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#authentication>).

use std::sync::{Arc, OnceLock};

use base64ct::{Base64, Encoding};

use crate::secret::{NONE, Secret};
use crate::verify::without_mark;

/// The length of Segment's write keys.
const WRITE_KEY_CHARS: usize = 32;

/// Where the `authorization` header to Segment comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// The configuration: this is its value.
    Header(Arc<Secret>),
    /// The write key that the host's filter state has under `key`. The filter reads it for each request, so it can be
    /// replaced at any time. `warned` is set when one has looked wrong.
    FilterState {
        /// The key in the filter state.
        key: String,
        /// Whether a warning has been given.
        warned: OnceLock<()>,
    },
    /// The gateway sets it.
    Gateway,
}

/// The host has no write key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoWriteKey;

impl Authorization {
    /// The write key in the host's filter state under this key.
    pub fn from_filter_state(key: String) -> Self {
        Authorization::FilterState { key, warned: OnceLock::new() }
    }

    /// The header's value for a request; `None` if the gateway sets it. `filter_state` reads the host's filter state.
    /// `warning` gets what an operator should know, the first time.
    pub fn header(
        &self,
        filter_state: impl FnOnce(&str) -> Option<Vec<u8>>,
        warning: &mut Option<String>,
    ) -> Result<Option<Arc<Secret>>, NoWriteKey> {
        match self {
            Authorization::Gateway => Ok(None),
            Authorization::Header(header) => Ok(Some(header.clone())),
            Authorization::FilterState { key, warned } => {
                let text = filter_state(key).unwrap_or_default();
                let write_key = without_mark(&text).trim_ascii();
                // A second line, or UTF-16, is not a key.
                if write_key.is_empty() || write_key == NONE || write_key.iter().any(u8::is_ascii_control) {
                    return Err(NoWriteKey);
                }
                // Only the first one is written, not one for each request.
                if warned.get().is_none() {
                    *warning = wrong_shape(write_key).filter(|_| warned.set(()).is_ok());
                }
                Ok(Some(basic(write_key)))
            }
        }
    }
}

/// The header's value for a write key.
pub fn basic(write_key: &[u8]) -> Arc<Secret> {
    Arc::new(Secret::new(format!("Basic {}", Base64::encode_string(&[write_key, b":"].concat()))))
}

/// A warning if this does not look like a write key.
pub fn wrong_shape(write_key: &[u8]) -> Option<String> {
    let is_right = write_key.len() == WRITE_KEY_CHARS && write_key.iter().all(u8::is_ascii_alphanumeric);
    (!is_right).then(|| {
        format!(
            "write_key: this is not {WRITE_KEY_CHARS} letters and digits, as Segment's write keys are; Segment accepts \
             calls with a wrong key and drops them, so compare it with the source's Settings > API Keys"
        )
    })
}
