//! Parts of Envoy's configuration that all gateways make in the same way.

use serde_json::{Value, json};

pub const HTTP_CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
pub const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
pub const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// An HTTP filter.
pub fn filter(name: &str, typed_config: Value) -> Value {
    json!({ "name": name, "typed_config": typed_config })
}

/// A plugin's configuration as the gateways pass it on: the JSON of the manifest as text.
pub fn text(configuration: &Value) -> Value {
    json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": configuration.to_string() })
}

/// Headers that replace existing ones.
pub fn headers<'a>(headers: impl Iterator<Item = (&'a String, &'a Value)>) -> Vec<Value> {
    headers
        .map(|(name, value)| {
            json!({ "header": { "key": name, "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" })
        })
        .collect()
}

/// A duration as Envoy writes it: `250ms` is `0.25s`.
pub fn seconds(duration: &Value) -> Value {
    let text = duration.as_str().unwrap_or_default();
    match text.strip_suffix("ms").map(str::parse::<f64>) {
        Some(Ok(milliseconds)) => json!(format!("{}s", milliseconds / 1000.0)),
        _ => duration.clone(),
    }
}

/// The cluster `segment`, reached over TLS with the system's authorities.
pub fn cluster(host: &Value, port: &Value, sni: &Value, names: &Value) -> Value {
    let names: Vec<_> =
        tests::manifests::each(names).map(|name| json!({ "san_type": "DNS", "matcher": { "exact": name } })).collect();
    json!({
        "name": "segment",
        "type": "STRICT_DNS",
        "load_assignment": {
            "cluster_name": "segment",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": { "address": host, "port_value": port } } } }] }],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": sni,
                "common_tls_context": { "validation_context": {
                    "trusted_ca": { "filename": "/etc/ssl/certs/ca-certificates.crt" },
                    "match_typed_subject_alt_names": names,
                } },
            },
        },
    })
}
