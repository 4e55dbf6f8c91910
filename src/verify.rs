//! Does a webhook come from Stigg? It does if it carries the webhook's secret, which is Stigg's only proof of origin
//! (<https://docs.stigg.io/docs/webhooks>).

use subtle::{Choice, ConstantTimeEq};

use crate::secret::{NONE, Secret};

/// The header that carries the webhook's secret, as Envoy spells it.
pub const SECRET_HEADER: &str = "stigg-webhooks-secret";

/// Who may send webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// Senders that present one of these secrets. There is more than one while a secret is rotated.
    Secrets(Vec<Secret>),
    /// Senders that present one of the secrets that the host's filter state has under this key, one on each line. The
    /// filter reads them for each request, so they can be replaced at any time.
    FilterState(String),
    /// Everyone: something else has verified the request.
    Unverified,
}

/// Whether a request is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request is let in.
    Admitted,
    /// The request does not carry a valid secret.
    Unauthorized,
    /// There is no secret to compare with, so nobody is let in.
    NoSecret,
}

impl Verification {
    /// The verdict on a request with these values of [`SECRET_HEADER`]. A header that is sent twice must be valid twice,
    /// whichever of the two another reader would take. `filter_state` reads the host's filter state.
    pub fn verdict<'a>(
        &self,
        presented: impl Iterator<Item = &'a [u8]>,
        filter_state: impl FnOnce(&str) -> Option<Vec<u8>>,
    ) -> Verdict {
        match self {
            Verification::Unverified => Verdict::Admitted,
            Verification::Secrets(secrets) => compare(secrets.iter().map(Secret::reveal), presented),
            Verification::FilterState(key) => {
                let text = filter_state(key).unwrap_or_default();
                compare(lines(without_mark(&text)), presented)
            }
        }
    }
}

/// A text without the byte order mark that some editors begin a file with.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// The secrets in a text without a byte order mark. A line that no header can carry is not one: in UTF-16 every line has
/// NULs, and then there is no secret.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let lines = text.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && *line != NONE && !line.iter().any(u8::is_ascii_control))
}

/// Compares in constant time: the time taken can tell the length of the secrets, but not which of them matched.
fn compare<'s, 'p>(
    secrets: impl Iterator<Item = &'s [u8]> + Clone,
    presented: impl Iterator<Item = &'p [u8]>,
) -> Verdict {
    if secrets.clone().next().is_none() {
        return Verdict::NoSecret;
    }
    let matches = |value: &[u8]| {
        let none = Choice::from(0);
        bool::from(secrets.clone().fold(none, |matched, secret| matched | secret.ct_eq(value)))
    };
    let mut values = presented.peekable();
    if values.peek().is_some() && values.all(matches) { Verdict::Admitted } else { Verdict::Unauthorized }
}
