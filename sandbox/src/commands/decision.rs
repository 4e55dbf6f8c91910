//! Says what the filter does with an event, and why. `explain` and the debugger share it.

use anyhow::Result;
use sha2::{Digest, Sha256};
use stigg_segment::config::Config;
use stigg_segment::event_name::Style;
use stigg_segment::mapping::Origins;
use stigg_segment::reply::Reply;

/// Replaces every secret, because a decision needs no real one. As long as a write key.
pub const ANY_SECRET: &str = "00000000000000000000000000000000";

/// A field of a call, and its origin.
pub type Origin = (&'static str, String);

/// What the filter does with an event sent to this path: the origins of the call's fields, or the answer that Stigg gets
/// instead. `None` if the configuration has no environment for the path.
pub fn decide(configuration: &[u8], path: &str, event: &[u8]) -> Option<Result<Vec<Origin>, Reply>> {
    let environment = parse(configuration).ok()?.environment(path.as_bytes())?;
    Some(environment.mapping.origins(event).as_ref().map(explain_origins).map_err(|reply| *reply))
}

/// The key in `properties` that events sent to this path come under, as it is written in JSON.
pub fn under(configuration: &[u8], path: &str) -> Option<String> {
    let environment = parse(configuration).ok()?.environment(path.as_bytes())?;
    environment.mapping.under().map(|key| String::from_utf8_lossy(key).into_owned())
}

/// Reads a configuration without its secrets.
pub fn parse(configuration: &[u8]) -> Result<Config> {
    parse_with(configuration, "")
}

/// Whether a made-up write key names the source in the ids of calls.
pub fn has_made_up_source(configuration: &[u8], path: &[u8]) -> bool {
    let prefix = |salt| {
        let environment = parse_with(configuration, salt).ok()?.environment(path)?;
        Some(environment.mapping.message_id_prefix().to_owned())
    };
    prefix("") != prefix("other keys")
}

fn parse_with(configuration: &[u8], salt: &str) -> Result<Config> {
    // Another one for each variable, because two environments with the same key are warned about.
    let digest = |name: &str| format!("{:x}", Sha256::digest(format!("{name}{salt}")));
    let made_up = |name: &str| digest(name).chars().take(ANY_SECRET.len()).collect();
    Config::parse(configuration, |name| Ok(made_up(name))).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Where the event's name, the ids and the timestamp come from, or why they are left out.
pub fn explain_origins(origins: &Origins<'_>) -> Vec<Origin> {
    let name = match (origins.renamed, origins.style) {
        (true, _) => "the name that the configuration has for this type",
        (false, Style::Underscores) => "the type with dots as underscores",
        (false, Style::AsIs) => "the type",
        (false, Style::TitleCase) => "the type in title case",
    };
    let number = if origins.user_id_is_number { ", a number there" } else { "" };
    let message_id = match (origins.message_id_is_stiggs, origins.message_id_has_the_day) {
        (true, _) => "\"stigg-\", the source, and the event's messageId",
        (false, true) => {
            "\"stigg-\", the source, and the SHA-256 of the event and the day (UTC), because it has neither a messageId nor a \
             timestamp"
        }
        (false, false) => {
            "\"stigg-\", the source, and the event's SHA-256, because its messageId is missing or unusable"
        }
    };
    let timestamp = match &origins.timestamp {
        Ok(path) => format!("from {path}"),
        Err(places) => places.iter().map(|(path, why)| format!("{path} {why}")).collect::<Vec<_>>().join(", "),
    };
    let group_id = origins.group_id.map(|found| match found {
        Some(path) => format!("from {path}"),
        None => "no place of group_id has an id, so there is no group call either".to_owned(),
    });
    let mut explained = vec![
        ("event", name.to_owned()),
        ("userId", format!("from {}{number}", origins.user_id)),
        ("messageId", message_id.to_owned()),
        ("timestamp", timestamp),
    ];
    explained.extend(group_id.map(|origin| ("groupId", origin)));
    explained
}
