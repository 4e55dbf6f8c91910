//! The alternatives do the filter's job: they pass the cases of [`tests::cases`].

use anyhow::{Context, Result};
use benches::yardstick::{Gateway, Variant};
use sandbox::segment::{Options, Segment, Transport};
use serde_json::Value;
use tests::case_runner::{hold_to, options};
use tests::cases::{Call, cases};
use tests::edge::{Edge, rejects_large_bodies};
use tests::outcome::in_javascript;

#[tokio::test]
async fn the_cases_hold_with_a_lua_filter() -> Result<()> {
    let segment = Segment::start().await?;
    let gateway = Gateway::start(Variant::Lua, &segment, Ok, options(), &[]).await?;
    let mut cases = cases()?;
    if rejects_large_bodies().await? {
        cases.retain(|case| !case.is_large());
    }
    hold_to(cases, &Edge { envoy: gateway.envoy, segment }, |_, _| Ok(())).await
}

/// The function parses the event and writes it again, so it cannot pass the other cases.
#[tokio::test]
async fn the_cases_of_documented_events_hold_with_a_function() -> Result<()> {
    let segment = Segment::start_with(Options { transport: Transport::Plain, ..Default::default() }).await?;
    let gateway = Gateway::start(Variant::Node, &segment, Ok, options(), &[]).await?;
    let mut cases = cases()?;
    cases.retain(|case| case.name.ends_with(".json") || case.name.starts_with("not about"));
    let edge = Edge { envoy: gateway.envoy, segment };
    hold_to(cases, &edge, |request, outcome| match &mut outcome.call {
        Some(call) => spelt_as_it_came(call, &request.body.concat()),
        None => Ok(()),
    })
    .await
}

/// If the properties are the event in another spelling, restores the event's spelling. Also removes the headers that
/// Node.js adds for HTTP/1.1.
fn spelt_as_it_came(call: &mut Call, event: &[u8]) -> Result<()> {
    let mut track: Value = serde_json::from_slice(&call.body)?;
    let properties = track.as_object_mut().and_then(|track| track.remove("properties")).context("no properties")?;
    if in_javascript(properties) == in_javascript(serde_json::from_slice(event)?) {
        let members = track.to_string();
        let members = members.strip_suffix('}').context("no object")?;
        call.body = [members.as_bytes(), br#","properties":"#, event, b"}"].concat();
        call.headers.retain(|(name, _)| !["connection", "content-length"].contains(&&**name));
    }
    Ok(())
}
