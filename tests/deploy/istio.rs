//! The Envoy configuration that Istio makes from deploy/istio.yaml, as far as it concerns this filter.

use anyhow::{Context, Result};
use sandbox::envoy::{Config, HTTP_CONNECTION_MANAGER, LISTENER, SEGMENT_CLUSTER};
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tests::manifests::{Manifests, each, texts};

use crate::xds;

/// The name that Istio gives the router, and that EnvoyFilters look for.
const ROUTER: &str = "envoy.filters.http.router";

const VIRTUAL_HOST: &str = "webhooks";

/// Envoy's configuration.
pub fn config(manifests: &Manifests, segment: &Segment) -> Result<Config> {
    let shipped = Config::shipped()?;
    let module = shipped.module_file()?;
    let mut filters =
        vec![xds::filter(ROUTER, json!({ "@type": xds::ROUTER, "suppress_envoy_headers": hides_envoy(manifests)? }))];
    if manifests.has("WasmPlugin") {
        filters.insert(0, xds::filter("wasm", json!({ "@type": xds::WASM, "config": plugin(manifests, &module)? })));
    }
    let connection_manager = json!({
        "@type": xds::HTTP_CONNECTION_MANAGER,
        "stat_prefix": "webhooks",
        "use_remote_address": true,
        "http_filters": filters,
        "route_config": { "virtual_hosts": [virtual_host(&manifests.the("VirtualService")?["spec"])] },
    });
    let mut config = shipped
        .set(HTTP_CONNECTION_MANAGER, connection_manager)?
        .set(&format!("/static_resources/listeners/{LISTENER}/per_connection_buffer_limit_bytes"), json!(32768))?
        .set(SEGMENT_CLUSTER, cluster(manifests)?)?;
    if manifests.has("EnvoyFilter") {
        for patch in each(&manifests.the("EnvoyFilter")?["spec"]["configPatches"]) {
            apply(patch, &mut config)?;
        }
    }
    config.on_loopback()?.upstream(segment)
}

fn plugin(manifests: &Manifests, module: &std::path::Path) -> Result<Value> {
    let plugin = &manifests.the("WasmPlugin")?["spec"];
    let host_keys: Vec<_> =
        each(&plugin["vmConfig"]["env"]).filter(|env| env["valueFrom"] == "HOST").map(|env| &env["name"]).collect();
    Ok(json!({
        "name": "stigg-segment.stigg-segment",
        "root_id": plugin["pluginName"],
        "failure_policy": plugin["failStrategy"],
        "configuration": xds::text(&plugin["pluginConfig"]),
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "local": { "filename": module } },
            "environment_variables": { "host_env_keys": host_keys },
        },
    }))
}

/// Whether the gateway's annotation removes Envoy's headers from upstream requests.
fn hides_envoy(manifests: &Manifests) -> Result<bool> {
    let annotations = &manifests.the("Deployment")?["spec"]["template"]["metadata"]["annotations"];
    let proxy = annotations["proxy.istio.io/config"].as_str().context("no configuration of the proxy")?;
    let proxy: Value = serde_yaml_ng::from_str(proxy)?;
    Ok(proxy["proxyHeaders"]["envoyDebugHeaders"]["disabled"] == true)
}

fn virtual_host(service: &Value) -> Value {
    json!({ "name": VIRTUAL_HOST, "domains": service["hosts"], "routes": each(&service["http"]).flat_map(routes).collect::<Vec<_>>() })
}

/// A route for each way a request can match, or one for all requests.
fn routes(http: &Value) -> Vec<Value> {
    let with = |matching: Value| {
        let mut route = json!({
            "name": http["name"],
            "match": matching,
            "request_headers_to_remove": texts(&http["headers"]["request"]["remove"]),
            "response_headers_to_add": xds::headers(http["headers"]["response"]["set"].as_object().into_iter().flatten()),
        });
        match &http["directResponse"] {
            Value::Null => route["route"] = forward(http),
            answer => {
                route["direct_response"] =
                    json!({ "status": answer["status"], "body": { "inline_string": answer["body"]["string"] } });
            }
        }
        route
    };
    let headers = |matching: &Value| {
        let headers = matching["headers"].as_object().into_iter().flatten();
        headers.map(|(name, value)| json!({ "name": name, "string_match": value })).collect::<Vec<_>>()
    };
    let matches: Vec<_> = each(&http["match"])
        .map(|matching| json!({ "path": matching["uri"]["exact"], "headers": headers(matching) }))
        .collect();
    if matches.is_empty() { vec![with(json!({ "prefix": "/" }))] } else { matches.into_iter().map(with).collect() }
}

fn forward(http: &Value) -> Value {
    let retries = &http["retries"];
    let (codes, conditions): (Vec<_>, Vec<_>) =
        retries["retryOn"].as_str().unwrap_or_default().split(',').partition(|on| on.parse::<u16>().is_ok());
    json!({
        "cluster": "segment",
        "prefix_rewrite": http["rewrite"]["uri"],
        "host_rewrite_literal": http["rewrite"]["authority"],
        "timeout": http["timeout"],
        "retry_policy": {
            "retry_on": conditions.join(",") + ",retriable-status-codes",
            "retriable_status_codes": codes.iter().filter_map(|code| code.parse().ok()).collect::<Vec<u16>>(),
            "num_retries": retries["attempts"],
            "per_try_timeout": retries["perTryTimeout"],
            "retry_back_off": { "base_interval": xds::seconds(&retries["backoff"]) },
        },
    })
}

fn cluster(manifests: &Manifests) -> Result<Value> {
    let entry = &manifests.the("ServiceEntry")?["spec"];
    let tls = &manifests.the("DestinationRule")?["spec"]["trafficPolicy"]["tls"];
    anyhow::ensure!(tls["mode"] == "SIMPLE" && tls["caCertificates"] == "system", "what else? {tls}");
    Ok(xds::cluster(&entry["hosts"][0], &entry["ports"][0]["number"], &tls["sni"], &tls["subjectAltNames"]))
}

/// Applies a patch of an EnvoyFilter; the kinds that are in use.
fn apply(patch: &Value, config: &mut Config) -> Result<()> {
    let value = &patch["patch"]["value"];
    match (patch["applyTo"].as_str(), patch["patch"]["operation"].as_str()) {
        (Some("HTTP_FILTER"), Some("INSERT_BEFORE")) => {
            let before = &patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"];
            let filters = config.at(&format!("{HTTP_CONNECTION_MANAGER}/http_filters"))?;
            let filters = filters.as_array_mut().context("filters are a list")?;
            let position = filters.iter().position(|filter| filter["name"] == *before);
            filters.insert(position.with_context(|| format!("there is no filter {before}"))?, value.clone());
        }
        (Some("HTTP_ROUTE"), Some("MERGE")) => {
            let route = patch["match"]["routeConfiguration"]["vhost"]["route"]["name"].as_str();
            let route = route.context("a patch names its route")?;
            let routes = format!("{HTTP_CONNECTION_MANAGER}/route_config/virtual_hosts/{VIRTUAL_HOST}/routes");
            merge(config.at(&format!("{routes}/{route}"))?, value);
        }
        (Some("NETWORK_FILTER"), Some("MERGE")) => merge(config.at(HTTP_CONNECTION_MANAGER)?, &value["typed_config"]),
        other => anyhow::bail!("what does {other:?} do?"),
    }
    Ok(())
}

/// Merges as Protocol Buffers do: objects member by member.
fn merge(into: &mut Value, value: &Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(members)) => {
            for (name, value) in members {
                merge(into.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value.clone(),
    }
}
