//! Where the parts of a call come from, in words.

use anyhow::Result;
use stigg_segment::config::Config;
use stigg_segment::event_name::Style;
use stigg_segment::mapping::Origins;

/// Stands for every secret: none is needed to say what becomes of an event. As long as a write key.
pub const ANY_SECRET: &str = "00000000000000000000000000000000";

/// The fields of a call for this event whose origin is worth a word, each with its origin; none where no call is made.
pub fn origins(configuration: &[u8], path: &str, event: &[u8]) -> Option<[(&'static str, String); 4]> {
    let environment = parse(configuration).ok()?.environment(path.as_bytes())?;
    environment.mapping.origins(event).ok().as_ref().map(why)
}

/// Reads a configuration without any of its secrets.
pub fn parse(configuration: &[u8]) -> Result<Config> {
    Config::parse(configuration, |_| Some(ANY_SECRET.to_owned())).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Where the event's name, the user's id, the message's id and the timestamp come from.
pub fn why(origins: &Origins<'_>) -> [(&'static str, String); 4] {
    let name = match (origins.renamed, origins.style) {
        (true, _) => "the name that the configuration has for this type",
        (false, Style::Underscores) => "the type with dots as underscores",
        (false, Style::AsIs) => "the type",
        (false, Style::TitleCase) => "the type in title case",
    };
    let number = if origins.user_id_is_number { ", a number there" } else { "" };
    let message_id = match origins.message_id_is_stiggs {
        true => "Stigg's messageId behind \"stigg-\"",
        false => "the event's SHA-256, as it brings no usable messageId",
    };
    let timestamp = match origins.has_timestamp {
        true => "the event's timestamp",
        false => "the event has none that is an RFC 3339 date-time",
    };
    let user_id = format!("from {}{number}", origins.user_id.steps().join("."));
    [
        ("event", name.to_owned()),
        ("userId", user_id),
        ("messageId", message_id.to_owned()),
        ("timestamp", timestamp.to_owned()),
    ]
}
