//! The Envoy configuration that Envoy Gateway makes from deploy/envoy-gateway.yaml, as far as it concerns this filter.

use anyhow::{Context, Result, bail, ensure};
use sandbox::envoy::{Config, HTTP_CONNECTION_MANAGER, LISTENER, SEGMENT_CLUSTER, Shell};
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tests::manifests::{Manifests, bytes, each, texts};

use crate::xds;

const WASM: &str = "envoy.filters.http.wasm/envoyextensionpolicy/stigg-segment/stigg-segment/wasm/0";
const NATIVE: &str =
    "envoy.filters.http.dynamic_modules/envoyextensionpolicy/stigg-segment/stigg-segment/dynamicmodule/0";
const BUFFER: &str = "envoy.filters.http.buffer";

/// Envoy's configuration.
pub fn config(manifests: &Manifests, segment: &Segment) -> Result<Config> {
    let spec = |kind| manifests.the(kind).map(|manifest| &manifest["spec"]);
    let shipped = Config::shipped()?;

    let traffic = spec("BackendTrafficPolicy")?;
    // The filters that the route enables: off by default, and in Envoy Gateway's order.
    let mut filters = Vec::new();
    let mut enabled = serde_json::Map::new();
    if !traffic["requestBuffer"].is_null() {
        let buffer = json!({ "max_request_bytes": bytes(&traffic["requestBuffer"]["limit"])? });
        let mut whole = buffer.clone();
        whole["@type"] = json!("type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer");
        filters.push(xds::filter(BUFFER, whole));
        let kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
        enabled.insert(BUFFER.to_owned(), json!({ "@type": kind, "buffer": buffer }));
    }
    if manifests.has("EnvoyExtensionPolicy") {
        let policy = spec("EnvoyExtensionPolicy")?;
        let (name, own) = match each(&policy["dynamicModule"]).next() {
            Some(native) => (NATIVE, dynamic_module(native, &spec("EnvoyProxy")?["dynamicModules"])?),
            None => {
                (WASM, json!({ "@type": xds::WASM, "config": plugin(&policy["wasm"][0], &shipped.module_file()?) }))
            }
        };
        filters.push(xds::filter(name, own));
        let kind = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
        enabled.insert(name.to_owned(), json!({ "@type": kind, "config": {} }));
    }
    filters.iter_mut().for_each(|filter| filter["disabled"] = json!(true));
    order(&mut filters, &spec("EnvoyProxy")?["filterOrder"])?;
    let router = json!({ "@type": xds::ROUTER, "suppress_envoy_headers": true });
    filters.push(xds::filter("envoy.filters.http.router", router));

    let routing = spec("HTTPRoute")?;
    let direct = &spec("HTTPRouteFilter")?["directResponse"];
    // Those that match on more come first.
    let mut rules: Vec<_> = each(&routing["rules"]).collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(each(&rule["matches"][0]["headers"]).count()));
    let mut routes = rules.into_iter().map(|rule| route(rule, traffic, direct)).collect::<Result<Vec<_>>>()?;
    for route in &mut routes {
        route["typed_per_filter_config"] = json!(enabled);
    }
    let clients = spec("ClientTrafficPolicy")?;
    let buffer_limit = match &clients["connection"]["bufferLimit"] {
        Value::Null => 32768,
        limit => bytes(limit)?,
    };
    let early: Vec<_> = texts(&clients["headers"]["earlyRequestHeaders"]["remove"])
        .into_iter()
        .map(|name| json!({ "remove": name }))
        .collect();
    let connection_manager = json!({
        "@type": xds::HTTP_CONNECTION_MANAGER,
        "stat_prefix": "webhooks",
        "common_http_protocol_options": { "max_stream_duration": clients["connection"]["connectionLimit"]["maxStreamDuration"] },
        "use_remote_address": true,
        "server_header_transformation": "PASS_THROUGH",
        "early_header_mutation_extensions": [{
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                "mutations": early,
            },
        }],
        "http_filters": filters,
        "route_config": {
            "virtual_hosts": [{ "name": "webhooks", "domains": routing["hostnames"], "routes": routes }],
        },
    });
    let endpoint = &spec("Backend")?["endpoints"][0]["fqdn"];
    let name = &spec("BackendTLSPolicy")?["validation"]["hostname"];
    shipped
        .set(HTTP_CONNECTION_MANAGER, connection_manager)?
        .set(&format!("/static_resources/listeners/{LISTENER}/per_connection_buffer_limit_bytes"), json!(buffer_limit))?
        .set(SEGMENT_CLUSTER, xds::cluster(&endpoint["hostname"], &endpoint["port"], name, &json!([name])))?
        .on_loopback()?
        .upstream(segment)
}

fn plugin(wasm: &Value, module: &std::path::Path) -> Value {
    json!({
        "name": wasm["name"],
        "root_id": wasm["rootID"],
        "configuration": xds::text(&wasm["config"]),
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "local": { "filename": module } },
            "environment_variables": { "host_env_keys": wasm["env"]["hostKeys"] },
        },
    })
}

/// A dynamic module that the EnvoyProxy has registered.
fn dynamic_module(native: &Value, registered: &Value) -> Result<Value> {
    let is_it = |module: &&Value| module["name"] == native["name"];
    let module = each(registered).find(is_it).with_context(|| format!("{} is not registered", native["name"]))?;
    ensure!(module["source"]["local"]["path"] == "/stigg-segment/libstigg_segment.so", "{module}");
    Ok(json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        "dynamic_module_config": { "module": { "local": { "filename": Config::shipped_with(Shell::Native)?.module_file()? } } },
        "filter_name": native["filterName"],
        "filter_config": xds::text(&native["config"]),
    }))
}

/// Moves filters as filterOrder says.
fn order(filters: &mut Vec<Value>, positions: &Value) -> Result<()> {
    let find = |filters: &[Value], kind: &Value| {
        let kind = kind.as_str().context("a filter has a name")?.to_owned();
        let is_it = |filter: &Value| filter["name"].as_str().is_some_and(|name| name.starts_with(&kind));
        Ok::<_, anyhow::Error>(filters.iter().position(is_it))
    };
    for position in each(positions) {
        let (beside, behind) = match (&position["before"], &position["after"]) {
            (before @ Value::String(_), Value::Null) => (before, 0),
            (Value::Null, after) => (after, 1),
            _ => bail!("before or after? {position}"),
        };
        // A filter that no route asks for is not there.
        let (Some(from), Some(_)) = (find(filters, &position["name"])?, find(filters, beside)?) else { continue };
        let moved = filters.remove(from);
        let at = find(filters, beside)?.context("it is still there")? + behind;
        filters.insert(at, moved);
    }
    Ok(())
}

fn route(rule: &Value, traffic: &Value, direct: &Value) -> Result<Value> {
    let matching = &rule["matches"][0];
    let headers = each(&matching["headers"])
        .map(|header| json!({ "name": header["name"], "string_match": { "exact": header["value"] } }))
        .collect::<Vec<_>>();
    let matching = json!({ "path": matching["path"]["value"], "headers": headers });
    if each(&rule["filters"]).any(|filter| filter["extensionRef"]["kind"] == "HTTPRouteFilter") {
        return Ok(json!({
            "match": matching,
            "direct_response": { "status": direct["statusCode"], "body": { "inline_string": direct["body"]["inline"] } },
            "response_headers_to_add": [{
                "header": { "key": "content-type", "value": direct["contentType"] },
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }],
        }));
    }
    let filter = |kind: &str, field: &str| {
        let found = each(&rule["filters"]).find(|filter| filter["type"] == kind);
        found.map(|filter| &filter[field]).with_context(|| format!("there is no filter {kind}"))
    };
    let rewrite = filter("URLRewrite", "urlRewrite")?;
    let retry = &traffic["retry"];
    Ok(json!({
        "match": matching,
        "request_headers_to_remove": texts(&filter("RequestHeaderModifier", "requestHeaderModifier")?["remove"]),
        "route": {
            "cluster": "segment",
            "regex_rewrite": { "pattern": { "regex": "^/.*$" }, "substitution": rewrite["path"]["replaceFullPath"] },
            "host_rewrite_literal": rewrite["hostname"],
            "append_x_forwarded_host": true,
            "timeout": rule["timeouts"]["request"],
            "retry_policy": {
                "retry_on": texts(&retry["retryOn"]["triggers"]).join(","),
                "retriable_status_codes": retry["retryOn"]["httpStatusCodes"],
                "num_retries": retry["numRetries"],
                "per_try_timeout": retry["perRetry"]["timeout"],
                "retry_back_off": {
                    "base_interval": xds::seconds(&retry["perRetry"]["backOff"]["baseInterval"]),
                    "max_interval": retry["perRetry"]["backOff"]["maxInterval"],
                },
            },
        },
    }))
}
