//! Whether a webhook comes from Stigg: it carries the secret that Stigg shows for the webhook, which is its only proof
//! of origin (<https://docs.stigg.io/docs/webhooks>).

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

/// The header that carries the webhook's secret, as Envoy spells it.
pub const SECRET_HEADER: &str = "stigg-webhooks-secret";

/// Something that no log line, answer or debug output may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps `value` from being shown.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Secret(value.into())
    }

    /// The value itself, to be sent where it belongs.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// Whoever carries one of these secrets. More than one while they are being rotated.
    Secrets(Vec<Secret>),
    /// Whoever carries one of the secrets that the host's filter state has under this key, one a line, at the time of
    /// the request. They are replaced without the filter being told.
    FilterState(String),
    /// Anyone: something else has verified the request.
    Unverified,
}

/// Whether a request is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Admitted,
    /// It is not: it does not carry a valid secret.
    Refused,
    /// Nobody is: there is no secret to compare with.
    NoSecret,
}

impl Verification {
    /// The verdict on a request with these values of [`SECRET_HEADER`]. Sent more than once, each must be valid: whoever
    /// looks at the first only, or the last, is told the same. `filter_state` looks up the host's filter state.
    pub fn verdict<'a>(
        &self,
        presented: impl Iterator<Item = &'a [u8]>,
        filter_state: impl FnOnce(&str) -> Option<Vec<u8>>,
    ) -> Verdict {
        match self {
            Verification::Unverified => Verdict::Admitted,
            Verification::Secrets(secrets) => compare(secrets.iter().map(Secret::reveal), presented),
            Verification::FilterState(key) => {
                let lines = filter_state(key).unwrap_or_default();
                let secrets =
                    lines.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
                compare(secrets, presented)
            }
        }
    }
}

/// The time it takes tells the length of the secrets at most, and not which of them matched.
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
    if values.peek().is_some() && values.all(matches) { Verdict::Admitted } else { Verdict::Refused }
}
