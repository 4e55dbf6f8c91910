//! Where the ids, the time and the traits of calls come from.

use serde_json::{Map, Value, json};

use super::json::{Document, is_well_formed};
use super::{Outcome, filtered, id, is_date_time, message_id, read};
use stigg_segment::identity;

/// A path, the start of the types that have something there, and the traits by their names.
type Place = (&'static str, &'static str, Option<&'static [(&'static str, &'static str)]>);

/// Where Stigg's events have the customer's id.
const KNOWN: &[Place] =
    &[("customer.id", "", None), ("customerId", "", None), ("input.customerId", "", None), ("id", "customer.", None)];

/// A configuration. An empty list of places is left out.
struct Placed {
    user_id: &'static [Place],
    group_id: &'static [Place],
    timestamp: &'static [Place],
    under: Option<&'static str>,
    also: &'static [&'static str],
}

const PLACED: [Placed; 4] = [
    Placed {
        user_id: KNOWN,
        group_id: &[],
        timestamp: &[("customer.timestamp", "", None), ("timestamp", "customer.", None)],
        under: Some("stigg"),
        also: &[],
    },
    Placed {
        user_id: &[("customer.metadata.userId", "", Some(&[("a", "customer.metadata.a"), ("é", "input")]))],
        group_id: KNOWN,
        timestamp: &[],
        under: None,
        also: &["identify", "group"],
    },
    Placed {
        user_id: &[("customer.id", "", None), ("customerId", "subscription.", Some(&[]))],
        group_id: &[("id", "", None), ("customer.metadata.id", "", None)],
        timestamp: &[],
        under: Some("a \"b\""),
        also: &["group"],
    },
    Placed { user_id: &[], group_id: &[("customerId", "", None)], timestamp: &[], under: None, also: &[] },
];

/// Maps `body` both ways where the configuration says where the parts of the calls come from.
pub fn compare_placed(body: &[u8]) {
    for placed in PLACED {
        let settings = placed.settings();
        match (filtered(&settings, body), placed.expected(body)) {
            (Ok(call), Ok(expected)) => {
                let sent = [&call.head, call.properties.as_deref().unwrap_or(body), &call.tail].concat();
                assert!(is_well_formed(&sent), "this request is not JSON: {}", sent.escape_ascii());
                // Values nested deeper are not in the same place in both documents.
                if Document::read(body).unwrap().depth() <= 90 {
                    let sent = Document::read(&sent).unwrap().exact();
                    assert_eq!(
                        sent,
                        expected,
                        "(left: the filter, right: the reference) under {settings} for {}",
                        body.escape_ascii()
                    );
                }
            }
            (filtered, expected) => {
                assert_eq!(filtered.err(), expected.err(), "under {settings} for {}", body.escape_ascii());
            }
        }
    }
}

impl Placed {
    fn settings(&self) -> String {
        let place = |(path, start, traits): &Place| {
            let mut place = json!({ "path": path });
            if !start.is_empty() {
                place["events"] = json!([format!("{start}*")]);
            }
            if let Some(traits) = traits {
                place["traits"] =
                    traits.iter().map(|(name, path)| ((*name).to_owned(), json!(path))).collect::<Map<_, _>>().into();
            }
            place
        };
        let mut settings = json!({ "also": self.also });
        for (field, places) in [("user_id", self.user_id), ("group_id", self.group_id), ("timestamp", self.timestamp)] {
            if places == KNOWN {
                settings[field] = "all".into();
            } else if !places.is_empty() {
                settings[field] = places.iter().map(place).collect();
            }
        }
        if let Some(key) = self.under {
            settings["properties"] = json!({ "under": key });
        }
        settings.to_string()
    }

    fn expected(&self, body: &[u8]) -> Result<Value, Outcome> {
        let (document, event) = read(body)?;
        let user_id = if self.user_id.is_empty() { &KNOWN[..1] } else { self.user_id };
        let Some((user_id, person)) = first(user_id, &event, &document)? else {
            return Err(ignored(&event, &document));
        };
        let group = first(self.group_id, &event, &document)?;
        let kind = event["type"].as_str().filter(|kind| !kind.is_empty());
        let kind = kind.ok_or(Outcome::Rejected("invalid_type"))?;
        let timestamp = if self.timestamp.is_empty() { &[("timestamp", "", None)] } else { self.timestamp };
        let mut timestamps = timestamp.iter().filter(|place| applies(place, &event));
        let timestamp = timestamps.find_map(|(path, ..)| at(&event, path).as_str().filter(|text| is_date_time(text)));

        let call = |suffix: &str| {
            let mut call = json!({
                "userId": user_id,
                "messageId": message_id(&event, body, suffix),
                "context": { "library": { "name": identity::NAME, "version": identity::VERSION } },
            });
            if let Some(timestamp) = timestamp {
                call["timestamp"] = timestamp.into();
            }
            if let Some((group_id, _)) = &group {
                call["context"]["groupId"] = group_id.as_str().into();
            }
            call
        };
        let exact = document.exact();
        let mut track = call("");
        track["event"] = kind.replace('.', "_").into();
        track["properties"] = match self.under {
            Some(key) => json!({ key: exact }),
            None => exact.clone(),
        };
        if self.also.is_empty() {
            return Ok(track);
        }
        track["type"] = "track".into();
        let mut batch = vec![track];
        for also in self.also {
            let mut call = call(&format!("-{also}"));
            call["type"] = (*also).into();
            call["traits"] = match (*also, &group) {
                ("group", None) => continue,
                ("group", Some((group_id, company))) => {
                    call["groupId"] = group_id.as_str().into();
                    traits(company, &exact)
                }
                _ => traits(person, &exact),
            };
            batch.push(call);
        }
        Ok(json!({ "batch": batch }))
    }
}

/// The answer to an event without an id where the configuration looks.
pub(super) fn ignored(event: &Value, document: &Document) -> Outcome {
    let mut known = KNOWN.iter().filter(|place| applies(place, event));
    let is_elsewhere = known.any(|(path, ..)| matches!(id(at(event, path), document), Ok(Some(_))));
    Outcome::Ignored(if is_elsewhere { "customer_elsewhere" } else { "no_customer" })
}

/// The first id at one of these places, and that place.
fn first<'p>(places: &'p [Place], event: &Value, document: &Document) -> Result<Option<(String, &'p Place)>, Outcome> {
    for place in places.iter().filter(|place| applies(place, event)) {
        if let Some(id) = id(at(event, place.0), document)? {
            return Ok(Some((id, place)));
        }
    }
    Ok(None)
}

fn applies((_, start, _): &Place, event: &Value) -> bool {
    start.is_empty() || event["type"].as_str().is_some_and(|kind| kind.starts_with(start))
}

/// The value at a path; null if there is none.
fn at<'v>(event: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(event, |value, key| &value[key])
}

fn traits((path, _, named): &Place, event: &Value) -> Value {
    let beside = match path.strip_suffix("id") {
        Some(start) if start.is_empty() || start.ends_with('.') && !start.ends_with("metadata.") => {
            ["name", "email", "metadata"].map(|name| (name, format!("{start}{name}"))).to_vec()
        }
        _ => Vec::new(),
    };
    let traits = match named {
        Some(named) => named.iter().map(|(name, path)| (*name, (*path).to_owned())).collect(),
        None => beside,
    };
    let traits = traits.into_iter().map(|(name, path)| (name.to_owned(), at(event, &path).clone()));
    traits.filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
}
