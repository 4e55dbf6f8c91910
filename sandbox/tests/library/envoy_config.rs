//! The changes to a configuration that let it run on this machine; everything else stays.

use std::path::Path;

use anyhow::Result;
use sandbox::envoy::{self, Config, HTTP_CONNECTION_MANAGER, PLUGIN, SEGMENT_CLUSTER};
use sandbox::segment::{Options, Segment, Transport};
use serde_json::{Value, json};

const ENDPOINT: &str = "/static_resources/clusters/segment/load_assignment/endpoints/0/lb_endpoints/0/endpoint";
const TRUSTED_CA: &str = "/static_resources/clusters/segment/transport_socket/typed_config/common_tls_context/\
                          validation_context/trusted_ca/filename";

/// Two listeners; one of them proxies to the admin interface.
const TWO_LISTENERS: &str = "
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 9901 } } }
static_resources:
  listeners:
  - name: webhooks
    address: { socket_address: { address: '::', port_value: 10000, ipv4_compat: true } }
  - name: readiness
    address: { socket_address: { address: 0.0.0.0, port_value: 9902 } }
    additional_addresses: [ { address: { socket_address: { address: 0.0.0.0, port_value: 9903 } } } ]
  clusters:
  - name: admin
    endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 9901 } } }
  - name: elsewhere
    endpoint: { address: { socket_address: { address: api.segment.io, port_value: 10000 } } }
";

fn port(config: &Config, path: &str) -> Result<u64> {
    Ok(config.get(path)?["socket_address"]["port_value"].as_u64().expect("a number"))
}

#[tokio::test]
async fn only_addresses_and_the_authority_are_changed() -> Result<()> {
    let segment = Segment::start().await?;
    let shipped = Config::shipped()?;
    let sandboxed = Config::sandboxed(&segment)?;

    let name = shipped.get(ENDPOINT)?["address"]["socket_address"]["address"].clone();
    let expected = shipped
        .set("/admin/address/socket_address", json!({"address": "127.0.0.1", "port_value": 0}))?
        .set(
            "/static_resources/listeners/webhooks/address/socket_address",
            json!({"address": "127.0.0.1", "port_value": 0}),
        )?
        .set(
            &format!("{ENDPOINT}/address/socket_address"),
            json!({"address": "127.0.0.1", "port_value": segment.addr().port()}),
        )?
        .set(&format!("{ENDPOINT}/hostname"), name)?
        .set(TRUSTED_CA, json!(segment.ca_file()))?;
    assert_eq!(sandboxed, expected);
    Ok(())
}

#[tokio::test]
async fn without_tls_http2_is_not_negotiated() -> Result<()> {
    const HTTP: &str = "/static_resources/clusters/segment/typed_extension_protocol_options/\
                        envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let segment = Segment::start_with(Options { transport: Transport::Plain, ..Options::default() }).await?;
    let config = Config::shipped()?
        .set(HTTP, json!({"auto_config": {"http2_protocol_options": {"max_concurrent_streams": 100}}}))?
        .upstream(&segment)?;
    assert_eq!(config.get(SEGMENT_CLUSTER)?["transport_socket"], Value::Null);
    let http2 = json!({"explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 100}}});
    assert_eq!(config.get(HTTP)?, &http2);
    Ok(())
}

#[test]
fn the_module_is_found_from_anywhere() -> Result<()> {
    let module = Config::shipped()?.module_file()?;
    assert!(module.starts_with(envoy::workspace_root()) && module.extension().is_some_and(|it| it == "wasm"));
    let config = Config::shipped()?.module(Path::new("/another.wasm"))?;
    assert_eq!(config.module_file()?, Path::new("/another.wasm"));
    Ok(())
}

#[test]
fn every_listener_moves_to_loopback() -> Result<()> {
    let config = Config::from_yaml(TWO_LISTENERS)?.on_loopback()?;
    let loopback = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    for listener in ["webhooks/address", "readiness/address", "readiness/additional_addresses/0/address"] {
        assert_eq!(config.get(&format!("/static_resources/listeners/{listener}"))?, &loopback, "{listener}");
    }
    Ok(())
}

#[test]
fn a_cluster_for_the_admin_interface_follows_its_port() -> Result<()> {
    let config = Config::from_yaml(TWO_LISTENERS)?.on_loopback()?;
    let admin = port(&config, "/admin/address")?;
    assert!(admin != 0 && admin != 9901);
    assert_eq!(port(&config, "/static_resources/clusters/admin/endpoint/address")?, admin);
    assert_eq!(port(&config, "/static_resources/clusters/elsewhere/endpoint/address")?, 10000);
    Ok(())
}

#[test]
fn ports_can_be_chosen() -> Result<()> {
    let config = Config::from_yaml(TWO_LISTENERS)?.on_loopback_at(|port| port + 1)?;
    assert_eq!(port(&config, "/static_resources/listeners/webhooks/address")?, 10001);
    assert_eq!(port(&config, "/admin/address")?, 9902);
    assert_eq!(port(&config, "/static_resources/clusters/admin/endpoint/address")?, 9902);
    Ok(())
}

#[test]
fn the_plugins_own_configuration() -> Result<()> {
    let value = |config: &Config| -> Result<Value> {
        let text = config.get(&format!("{PLUGIN}/configuration/value"))?.as_str().expect("text").to_owned();
        Ok(serde_json::from_str(&text)?)
    };
    let config = Config::shipped()?.edit_plugin_configuration(|plugin| plugin["write_key"] = json!("k"))?;
    assert_eq!(value(&config)?["write_key"], "k");
    assert_eq!(value(&config)?["hold_request_headers"], true);

    let config = config.plugin_configuration(json!({"a": 1}))?;
    assert_eq!(value(&config)?, json!({"a": 1}));

    let config = config.plugin_configuration("not { JSON")?;
    assert_eq!(config.get(PLUGIN)?["configuration"]["value"], "not { JSON");
    assert!(config.edit_plugin_configuration(|_| ()).is_err());
    Ok(())
}

#[test]
fn holding_request_headers_or_buffering_them() -> Result<()> {
    let filters = |config: &Config| -> Result<Vec<Value>> {
        let filters = config.get(&format!("{HTTP_CONNECTION_MANAGER}/http_filters"))?.as_array().expect("a list");
        Ok(filters.iter().map(|filter| filter["name"].clone()).collect())
    };
    let shipped = Config::shipped()?;
    let held = shipped.clone().hold_request_headers(true)?;
    assert_eq!(filters(&held)?, filters(&shipped)?);

    let buffered = shipped.hold_request_headers(false)?;
    assert_eq!(buffered.get(PLUGIN)?["allow_on_headers_stop_iteration"], false);
    let order = filters(&buffered)?;
    let wasm = order.iter().position(|name| name == "stigg_segment").expect("it is there");
    assert_eq!(order[wasm + 1], "envoy.filters.http.buffer");
    Ok(())
}

#[test]
fn paths_select_list_items_by_index_or_name() -> Result<()> {
    let config = Config::from_yaml("list: [ { name: a, n: 1 }, { name: b, n: 2 }, 3 ]")?;
    assert_eq!(config.get("/list/b/n")?, 2);
    assert_eq!(config.get("/list/0/n")?, 1);
    assert_eq!(config.get("/list/2")?, 3);

    let config = config.set("/list/a/x/y", json!(4))?.remove("/list/b")?;
    assert_eq!(config.get("/list")?, &json!([{"name": "a", "n": 1, "x": {"y": 4}}, 3]));

    let error = config.get("/list/c/n").unwrap_err().to_string();
    assert_eq!(error, "/list/c/n: there is no `c`");
    assert!(config.clone().set("/list/c", json!(1)).is_err());
    assert!(config.clone().set("/list/a/n/deeper", json!(1)).is_err());
    assert!(config.clone().remove("/list/5").is_err());
    Ok(())
}
