//! Envoy's configuration as a gateway's control plane makes it from the manifests: `tests/gateways/*.json`, which
//! `make test-gateways` compares with what they make now.

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Config, LISTENER, Shell, VALIDATION_CONTEXT, workspace_root};
use sandbox::segment::Segment;
use serde_json::{Value, json};

use crate::manifests::{each, every};

/// What a control plane makes: `listeners`, `routes`, `clusters`, and Istio's `plugins`, also without their images.
#[derive(Debug, Clone)]
pub struct Translated(pub Value);

impl Translated {
    /// What is kept of Istio's.
    pub fn by_istio() -> Result<Self> {
        Self::read("istio")
    }

    /// What is kept of Istio's for the manifest with all its variants.
    pub fn by_istio_with_variants() -> Result<Self> {
        Self::read("istio-variants")
    }

    /// What is kept of Envoy Gateway's.
    pub fn by_envoy_gateway(shell: Shell) -> Result<Self> {
        Self::read(if shell == Shell::Native { "envoy-gateway-native" } else { "envoy-gateway" })
    }

    fn read(name: &str) -> Result<Self> {
        let file = workspace_root().join(format!("tests/gateways/{name}.json"));
        Ok(Self(serde_json::from_slice(&std::fs::read(file)?)?))
    }

    /// The listener for webhooks.
    fn listener(&mut self) -> Result<&mut Value> {
        let listeners = self.0["listeners"].as_array_mut().context("no listeners")?;
        let has_routes =
            |listener: &&mut Value| listener.pointer(MANAGER).is_some_and(|manager| manager["rds"].is_object());
        listeners.iter_mut().find(has_routes).context("no listener with routes")
    }

    /// Its connection manager.
    pub fn connection_manager(&mut self) -> Result<&mut Value> {
        self.listener()?.pointer_mut(MANAGER).context("no connection manager")
    }

    /// How much a connection may hold, as its listener says.
    pub fn buffer_limit(&mut self) -> Result<Value> {
        Ok(self.listener()?["per_connection_buffer_limit_bytes"].clone())
    }

    /// The cluster for Segment.
    pub fn cluster(&self) -> Result<&Value> {
        let mut clusters = each(&self.0["clusters"]);
        clusters
            .find(|cluster| every(cluster, "address").iter().any(|address| *address == "api.segment.io"))
            .context("no cluster")
    }

    /// A stock Envoy's configuration: the filter's module from this machine, without TLS in front, and the stand-in for
    /// Segment. The filters that only Istio's Envoy has are left out.
    pub fn config(mut self, shell: Shell, segment: &Segment) -> Result<Config> {
        let mut cluster = self.cluster()?.clone();
        let name = cluster["name"].as_str().context("a cluster has a name")?.to_owned();
        if let Some(socket) = cluster.pointer_mut("/transport_socket_matches/0/transport_socket").map(Value::take) {
            cluster["transport_socket"] = socket;
        }
        let members = cluster.as_object_mut().context("an object")?;
        members.remove("transport_socket_matches");
        members.remove("filters"); // istio.metadata_exchange
        cluster["name"] = json!("segment");
        // Its authorities come from the control plane, if it says so.
        let mut verifies = false;
        if let Some(tls) = cluster.pointer_mut("/transport_socket/typed_config/common_tls_context") {
            let mut combined = tls["combined_validation_context"].take();
            verifies = combined["validation_context_sds_secret_config"].is_object();
            tls["validation_context"] = combined["default_validation_context"].take();
            tls.as_object_mut().context("an object")?.remove("combined_validation_context");
        }

        let mut listener = self.listener()?.take();
        listener["name"] = json!(LISTENER);
        listener["address"] = json!({ "socket_address": { "address": "0.0.0.0", "port_value": 0 } });
        for tls in ["filter_chain_match", "transport_socket"] {
            listener["filter_chains"][0].as_object_mut().context("an object")?.remove(tls);
        }
        let manager = listener.pointer_mut(MANAGER).context("no connection manager")?;
        let rds = manager.as_object_mut().context("an object")?.remove("rds").context("no routes")?;
        let mut routes = each(&self.0["routes"]).filter(|routes| routes["name"] == rds["route_config_name"]);
        let mut routes = routes.next().context("no such routes")?.clone();
        // `webhooks.example.com` is the only one.
        ensure!(routes["virtual_hosts"].as_array().is_some_and(|hosts| hosts.len() == 1), "{routes}");
        routes["virtual_hosts"][0]["domains"] = json!(["*"]);
        for route in routes["virtual_hosts"][0]["routes"].as_array_mut().into_iter().flatten() {
            if route["route"]["cluster"] == name.as_str() {
                route["route"]["cluster"] = json!("segment");
            }
        }
        manager["route_config"] = routes;
        let filters = manager["http_filters"].as_array_mut().context("no filters")?;
        filters.retain(|filter| filter["name"].as_str().is_some_and(|name| !name.starts_with("istio.")));
        let plugins: Vec<_> = each(&self.0["plugins"]).collect();
        let module = Config::shipped_with(shell)?.module_file()?;
        for filter in filters {
            if filter["config_discovery"].is_object() {
                let named = plugins.iter().find(|plugin| plugin["name"] == filter["name"]).context("no plugin")?;
                *filter = (*named).clone();
            }
            let own = [("/typed_config/config/vm_config/code", json!({ "local": { "filename": module } }))];
            let own =
                own.into_iter().chain([("/typed_config/dynamic_module_config/module/local/filename", json!(module))]);
            for (path, module) in own {
                if let Some(place) = filter.pointer_mut(path) {
                    *place = module;
                }
            }
        }

        let whole = json!({
            "node": { "id": "test", "cluster": "test" },
            "admin": { "address": { "socket_address": { "address": "0.0.0.0", "port_value": 0 } } },
            "static_resources": { "listeners": [listener], "clusters": [cluster] },
            "stats_config": self.0["stats_config"],
        });
        let config = Config::from_yaml(&whole.to_string())?.on_loopback()?.upstream(segment)?;
        let authority = format!("{VALIDATION_CONTEXT}/trusted_ca");
        if verifies || config.get(&authority).is_err() { Ok(config) } else { config.remove(&authority) }
    }
}

/// Where a listener has its connection manager.
const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
