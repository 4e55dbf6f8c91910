//! `deploy/existing-envoy.yaml`: an Envoy that serves another application, with and without the parts of `envoy.yaml`.

use anyhow::{Context, Result};
use sandbox::envoy::{Config, LISTENER};
use sandbox::segment::{Options, Segment, Transport};
use serde_json::json;

use crate::pages::read;

/// The file.
pub const FILE: &str = "deploy/existing-envoy.yaml";

/// The Envoy that was there before: the file without what is between the marks.
pub fn before() -> Result<Config> {
    let text = read(FILE)?;
    let mut copied = false;
    let own = text.lines().filter(|line| {
        let (begins, ends) = (line.trim_start().starts_with("# >>>"), line.trim_start() == "# <<<");
        copied = begins || copied && !ends;
        !copied
    });
    let config = Config::from_yaml(&own.collect::<Vec<_>>().join("\n"))?;
    assert!(!config.to_string().contains("stigg"), "a part for webhooks is outside the marks");
    Ok(config)
}

/// The Envoy that takes webhooks too, under the name of the listener in `envoy.yaml`.
pub fn after() -> Result<Config> {
    Config::from_yaml(&read(FILE)?)?.set("/static_resources/listeners/0/name", json!(LISTENER)).context(FILE)
}

/// The same on loopback, between stand-ins for Segment and for the other application, which says 200 to everything.
pub async fn between(segment: &Segment) -> Result<(Config, Segment)> {
    let shop = Segment::start_with(Options { transport: Transport::Plain, ..Options::default() }).await?;
    shop.behave(sandbox::segment::Behaviour::status(200));
    let endpoint = "/static_resources/clusters/shop/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
    let address = json!({ "address": shop.addr().ip(), "port_value": shop.addr().port() });
    let config = after()?.set(&format!("{endpoint}/socket_address"), address)?.on_loopback()?.upstream(segment)?;
    Ok((config, shop))
}
