//! Removes members from an event.

use serde_json::{Value, json};

/// What stays of an event: everything except these paths, or only these paths. A step `*` leads to every member of an object
/// and to every element of an array.
#[derive(Debug)]
pub enum Listed {
    Remove(&'static [&'static str]),
    KeepOnly(&'static [&'static str]),
}

impl Listed {
    /// The configuration that says so, with every other call beside the track call. A second list is that of the
    /// environment of the path `/`.
    pub fn settings(lists: &[Listed]) -> String {
        let properties = |listed: &Listed| match listed {
            Listed::Remove(paths) => json!({ "remove": paths }),
            Listed::KeepOnly(paths) => json!({ "keep_only": paths }),
        };
        let mut settings = json!({ "properties": properties(&lists[0]), "also": ["identify", "group"] });
        if let [_, own] = lists {
            settings["environments"] = json!({ "/": { "properties": properties(own) } });
        }
        settings.to_string()
    }
}

/// The rest of `event`.
pub fn redacted(event: &Value, listed: &Listed) -> Value {
    let steps = |paths: &[&'static str]| paths.iter().map(|path| path.split('.').collect()).collect::<Vec<Vec<_>>>();
    match listed {
        Listed::Remove(paths) => {
            let mut event = event.clone();
            steps(paths).iter().for_each(|path| remove(&mut event, path));
            event
        }
        Listed::KeepOnly(paths) => keep(event, &steps(paths).iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap(),
    }
}

fn remove(value: &mut Value, path: &[&str]) {
    match (value, path) {
        (Value::Object(members), [step]) => members.retain(|key, _| !leads_to(step, key)),
        (Value::Object(members), [step, deeper @ ..]) => {
            members.iter_mut().filter(|(key, _)| leads_to(step, key)).for_each(|(_, value)| remove(value, deeper));
        }
        (Value::Array(elements), ["*"]) => elements.clear(),
        (Value::Array(elements), ["*", deeper @ ..]) => elements.iter_mut().for_each(|value| remove(value, deeper)),
        _ => {}
    }
}

/// The rest of `value`, if any. An object or array that a path goes through stays, even if it is empty.
fn keep(value: &Value, paths: &[&[&str]]) -> Option<Value> {
    let behind = |key: &str| -> Vec<&[&str]> {
        paths.iter().filter_map(|path| path.split_first()).filter(|(s, _)| leads_to(s, key)).map(|(_, p)| p).collect()
    };
    let kept = |key: &str, value| Some(behind(key)).filter(|paths| !paths.is_empty()).and_then(|p| keep(value, &p));
    match value {
        _ if paths.iter().any(|path| path.is_empty()) => Some(value.clone()),
        Value::Object(members) => {
            Some(members.iter().filter_map(|(key, value)| Some((key.clone(), kept(key, value)?))).collect())
        }
        Value::Array(elements) => Some(elements.iter().filter_map(|value| kept("*", value)).collect()),
        _ => None,
    }
}

fn leads_to(step: &str, key: &str) -> bool {
    step == "*" || step == key
}
