//! The shipped `envoy.yaml`, and the few changes that make it run here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use stigg_segment::config::Shell;

use super::tap;
use crate::fresh::fresh;
use crate::segment::Segment;
use crate::workspace_root;

/// Path of the HTTP connection manager that takes the webhooks.
pub const HTTP_CONNECTION_MANAGER: &str = "/static_resources/listeners/webhooks/filter_chains/0/filters/0/typed_config";

/// Path of the filter.
const FILTER: &str = "/static_resources/listeners/webhooks/filter_chains/0/filters/0/typed_config\
                      /http_filters/stigg_segment/typed_config";

/// Path of the Wasm filter's plugin configuration.
pub const PLUGIN: &str = "/static_resources/listeners/webhooks/filter_chains/0/filters/0/typed_config\
                          /http_filters/stigg_segment/typed_config/config";

/// Path of the route from Stigg to Segment.
pub const ROUTE: &str = "/static_resources/listeners/webhooks/filter_chains/0/filters/0/typed_config\
                         /route_config/virtual_hosts/webhooks/routes/stigg_to_segment";

/// Path of the route that a webhook matches until it is mapped.
pub const FILTER_MISSING: &str = "/static_resources/listeners/webhooks/filter_chains/0/filters/0/typed_config\
                                  /route_config/virtual_hosts/webhooks/routes/filter_missing";

/// Path of the cluster that is Segment.
pub const SEGMENT_CLUSTER: &str = "/static_resources/clusters/segment";

/// Path of what a server must prove to get calls, in its TLS settings.
pub const VALIDATION_CONTEXT: &str =
    "/static_resources/clusters/segment/transport_socket/typed_config/common_tls_context/validation_context";

/// An Envoy configuration, as JSON.
///
/// A path into it is written like a JSON pointer, except that an element of a list may be named as well as counted:
/// `/static_resources/clusters/segment/connect_timeout`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config(Value);

/// A YAML file in the variant for a shell. `envoy.yaml` says how sed does this.
pub fn variant(shell: Shell, yaml: &str) -> String {
    match shell {
        Shell::Wasm => yaml.to_owned(),
        Shell::Native => {
            let kept = yaml.lines().filter(|line| !line.ends_with("#wasm"));
            kept.map(|line| line.replacen("#native ", "", 1) + "\n").collect()
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl Config {
    /// The configuration as shipped; only the path of the module is made absolute.
    pub fn shipped() -> Result<Self> {
        Self::shipped_with(Shell::Wasm)
    }

    /// The variant for a shell; only the path of the module is made absolute. `NATIVE_MODULE` names another build of the
    /// dynamic module, such as one for another processor.
    pub fn shipped_with(shell: Shell) -> Result<Self> {
        let other = std::env::var_os("NATIVE_MODULE").filter(|_| shell == Shell::Native).map(PathBuf::from);
        Self::from_yaml(&Self::text(shell)?)
            .and_then(|config| {
                let module = other.map_or_else(|| config.module_named(), Ok)?;
                config.module(&module)
            })
            .context("in envoy.yaml")
    }

    /// The text of `envoy.yaml` in the variant for a shell.
    pub fn text(shell: Shell) -> Result<String> {
        let file = workspace_root().join("envoy.yaml");
        let yaml = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(variant(shell, &yaml))
    }

    /// The shipped configuration, with everything on loopback and the stand-in for Segment.
    pub fn sandboxed(segment: &Segment) -> Result<Self> {
        Self::sandboxed_with(Shell::Wasm, segment)
    }

    /// The same in the variant for a shell.
    pub fn sandboxed_with(shell: Shell, segment: &Segment) -> Result<Self> {
        Self::shipped_with(shell)?.on_loopback()?.upstream(segment)
    }

    /// The shell that it runs.
    pub fn shell(&self) -> Shell {
        if self.get(PLUGIN).is_ok() { Shell::Wasm } else { Shell::Native }
    }

    /// Any configuration.
    pub fn from_yaml(yaml: &str) -> Result<Self> {
        Ok(Self(serde_yaml_ng::from_str(yaml)?))
    }

    /// Sends to the stand-in what is meant for Segment. Host, SNI and the name its certificate must carry stay what
    /// they are.
    pub fn upstream(mut self, segment: &Segment) -> Result<Self> {
        let endpoints = self.at(&format!("{SEGMENT_CLUSTER}/load_assignment/endpoints"))?;
        for endpoint in each_mut(endpoints).flat_map(|locality| each_mut(&mut locality["lb_endpoints"])) {
            let endpoint = &mut endpoint["endpoint"];
            let socket = &mut endpoint["address"]["socket_address"];
            let name = socket["address"].take();
            socket["address"] = json!(segment.addr().ip());
            socket["port_value"] = json!(segment.addr().port());
            if endpoint["hostname"].is_null() {
                endpoint["hostname"] = name;
            }
        }

        match segment.ca_file() {
            Some(_) if self.get(&format!("{SEGMENT_CLUSTER}/transport_socket")).is_err() => Ok(self),
            Some(ca_file) => self.set(&format!("{VALIDATION_CONTEXT}/trusted_ca"), json!({ "filename": ca_file })),
            None => self.without_encryption(),
        }
    }

    /// Takes TLS off the way to Segment. The choice of HTTP/2, which is negotiated in its handshake, is then fixed.
    fn without_encryption(mut self) -> Result<Self> {
        let cluster = self.at(SEGMENT_CLUSTER)?;
        cluster["transport_socket"] = Value::Null;
        let http = cluster
            .pointer_mut("/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
            .and_then(Value::as_object_mut);
        if let Some(http) = http
            && let Some(negotiated) = http.remove("auto_config")
        {
            let http2 = negotiated.get("http2_protocol_options").cloned().unwrap_or_else(|| json!({}));
            http.insert("explicit_http_config".to_owned(), json!({ "http2_protocol_options": http2 }));
        }
        Ok(self)
    }

    /// Moves all that Envoy listens on to loopback and to ports the system chooses.
    pub fn on_loopback(self) -> Result<Self> {
        self.on_loopback_at(|_| 0)
    }

    /// Moves all that Envoy listens on to loopback and to other ports, each chosen with a view to the one it had. 0
    /// lets the system choose. Clusters that point to what was moved, such as the admin interface, follow.
    pub fn on_loopback_at(mut self, choose: impl Fn(u16) -> u16) -> Result<Self> {
        let mut pointed_to = BTreeSet::new();
        let clusters = self.0.pointer_mut("/static_resources/clusters");
        visit_socket_addresses(clusters, &mut |socket| {
            if is_local(socket) {
                pointed_to.extend(port(socket));
            }
        });

        let mut moved = BTreeMap::new();
        for part in ["/admin", "/static_resources/listeners"] {
            visit_socket_addresses(self.0.pointer_mut(part), &mut |socket| {
                let Some(old) = port(socket) else { return };
                let mut new = choose(old);
                if new == 0 && pointed_to.contains(&old) {
                    new = free_port().unwrap_or(0); // a cluster must know it before Envoy does
                }
                moved.insert(old, new);
                socket.remove("ipv4_compat");
                socket.insert("address".to_owned(), json!("127.0.0.1"));
                socket.insert("port_value".to_owned(), json!(new));
            });
        }

        let clusters = self.0.pointer_mut("/static_resources/clusters");
        visit_socket_addresses(clusters, &mut |socket| {
            if let Some(new) = port(socket).filter(|_| is_local(socket)).and_then(|old| moved.get(&old)) {
                socket.insert("address".to_owned(), json!("127.0.0.1"));
                socket.insert("port_value".to_owned(), json!(new));
            }
        });
        Ok(self)
    }

    /// Moves the admin interface to a socket that only this user may open, at this path.
    pub fn admin_at(self, socket: &Path) -> Result<Self> {
        self.set("/admin/address", json!({ "pipe": { "path": socket, "mode": 0o600 } }))
    }

    /// Where the filter's module is.
    ///
    /// # Errors
    /// It is not built from the sources as they are; the error has the command that builds it.
    pub fn module_file(&self) -> Result<PathBuf> {
        let module = self.module_named()?;
        fresh(workspace_root(), &module)?;
        Ok(module)
    }

    /// The path as it is named.
    pub(super) fn module_named(&self) -> Result<PathBuf> {
        let path = self.module_path();
        let file = self.get(&path)?.as_str().with_context(|| format!("{path} is no text"))?;
        Ok(workspace_root().join(file))
    }

    /// Runs another build of the filter.
    pub fn module(self, file: &Path) -> Result<Self> {
        let path = self.module_path();
        self.set(&path, json!(file))
    }

    fn module_path(&self) -> String {
        match self.shell() {
            Shell::Wasm => format!("{PLUGIN}/vm_config/code/local/filename"),
            Shell::Native => format!("{FILTER}/dynamic_module_config/module/local/filename"),
        }
    }

    /// The filter's own configuration, as JSON text.
    pub fn own_configuration(&self) -> Result<&str> {
        let path = self.own_configuration_path();
        self.get(&path)?.as_str().with_context(|| format!("{path} is no text"))
    }

    /// Replaces the filter's own configuration.
    pub fn plugin_configuration(self, configuration: impl fmt::Display) -> Result<Self> {
        let path = self.own_configuration_path();
        self.set(&path, json!(configuration.to_string()))
    }

    /// Changes the filter's own configuration.
    pub fn edit_plugin_configuration(self, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let text = self.own_configuration()?;
        let mut configuration = serde_json::from_str(text).context("the filter's configuration is no JSON")?;
        change(&mut configuration);
        self.plugin_configuration(configuration)
    }

    fn own_configuration_path(&self) -> String {
        match self.shell() {
            Shell::Wasm => format!("{PLUGIN}/configuration/value"),
            Shell::Native => format!("{FILTER}/filter_config/value"),
        }
    }

    /// Chooses between the two ways to keep a request from Segment until its body is mapped: the filter holds the
    /// headers back itself, or, where Envoy does not let it, the stock buffer filter behind it does.
    pub fn hold_request_headers(self, hold: bool) -> Result<Self> {
        let mut config = self
            .set(&format!("{PLUGIN}/allow_on_headers_stop_iteration"), json!(hold))?
            .edit_plugin_configuration(|plugin| plugin["hold_request_headers"] = json!(hold))?;
        if !hold {
            config.insert_buffer(1)?;
        }
        Ok(config)
    }

    /// Takes the filter out, and sends every webhook to Segment as it is.
    pub fn without_filter(self) -> Result<Self> {
        self.remove(&format!("{HTTP_CONNECTION_MANAGER}/http_filters/stigg_segment"))?
            .remove(&format!("{FILTER_MISSING}/typed_per_filter_config"))?
            .remove(&format!("{ROUTE}/typed_per_filter_config"))?
            .to_segment_at_once()
    }

    /// Sends webhooks to Segment that the filter has not marked as mapped.
    pub fn to_segment_at_once(self) -> Result<Self> {
        self.remove(&format!("{ROUTE}/match/filter_state"))
    }

    /// Takes webhooks at further paths. Each path comes with the endpoint of Segment that takes its calls.
    pub fn paths<'a>(mut self, paths: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let shipped = [self.get(ROUTE)?.clone(), self.get(FILTER_MISSING)?.clone()];
        let mut routes = Vec::new();
        for (path, endpoint) in paths {
            let [mut to_segment, mut filter_missing] = shipped.clone();
            to_segment["route"]["prefix_rewrite"] = json!(endpoint);
            for route in [&mut to_segment, &mut filter_missing] {
                route["name"] = json!(path);
                route["match"]["path"] = json!(path);
            }
            routes.extend([to_segment, filter_missing]);
        }
        let (all, _) = ROUTE.rsplit_once('/').context("a route is in a list")?;
        self.at(all)?.as_array_mut().context("routes are a list")?.splice(0..0, routes);
        Ok(self)
    }

    /// Lets the stock buffer filter hold the whole request before the filter sees it.
    pub fn buffered_before(mut self) -> Result<Self> {
        self.insert_buffer(0)?;
        Ok(self)
    }

    /// Puts the stock buffer filter so many places after the filter's own.
    fn insert_buffer(&mut self, after: usize) -> Result<()> {
        let filters = self.at(&format!("{HTTP_CONNECTION_MANAGER}/http_filters"))?;
        let filters = filters.as_array_mut().context("http_filters is no list")?;
        let own = filters.iter().position(|filter| filter["name"] == "stigg_segment");
        filters.insert(
            own.context("there is no http filter `stigg_segment`")? + after,
            json!({
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": 1024 * 1024,
                },
            }),
        );
        Ok(())
    }

    /// Lets [`Envoy::tap`](super::Envoy::tap) watch every request but health checks, and tells the client the id of its
    /// request.
    pub fn tapped(mut self) -> Result<Self> {
        let filters = self.at(&format!("{HTTP_CONNECTION_MANAGER}/http_filters"))?;
        let filters = filters.as_array_mut().context("http_filters is no list")?;
        let health_check = filters.iter().position(|filter| filter["name"] == "health_check");
        filters.insert(health_check.map_or(0, |position| position + 1), tap::filter());
        self.set(&format!("{HTTP_CONNECTION_MANAGER}/always_set_request_id_in_response"), json!(true))
    }

    /// Changes anything.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.0);
        self
    }

    /// Sets the value at a path. What is missing on the way is created, except in lists.
    pub fn set(mut self, path: &str, value: Value) -> Result<Self> {
        let mut place = &mut self.0;
        for step in steps(path) {
            if place.is_null() {
                *place = json!({});
            }
            place = match place {
                Value::Object(object) => object.entry(step).or_insert(Value::Null),
                other => child_mut(other, step).with_context(|| format!("{path}: there is no `{step}`"))?,
            };
        }
        *place = value;
        Ok(self)
    }

    /// Removes what is at a path.
    pub fn remove(mut self, path: &str) -> Result<Self> {
        let (parent, last) = path.rsplit_once('/').with_context(|| format!("`{path}` is no path"))?;
        let removed = match self.at(parent)? {
            Value::Object(object) => object.remove(last),
            Value::Array(list) => index(list, last).map(|index| list.remove(index)),
            _ => None,
        };
        removed.with_context(|| format!("there is no {path}"))?;
        Ok(self)
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Result<&Value> {
        steps(path).try_fold(&self.0, |value, step| {
            child(value, step).with_context(|| format!("{path}: there is no `{step}`"))
        })
    }

    /// What is at a path, to be changed.
    pub fn at(&mut self, path: &str) -> Result<&mut Value> {
        steps(path).try_fold(&mut self.0, |value, step| {
            child_mut(value, step).with_context(|| format!("{path}: there is no `{step}`"))
        })
    }
}

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(step),
        Value::Array(list) => list.get(index(list, step)?),
        _ => None,
    }
}

fn child_mut<'a>(value: &'a mut Value, step: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(object) => object.get_mut(step),
        Value::Array(list) => {
            let index = index(list, step)?;
            list.get_mut(index)
        }
        _ => None,
    }
}

/// The element of a list that is called this, or has this number.
fn index(list: &[Value], step: &str) -> Option<usize> {
    let named = list.iter().position(|item| item["name"] == step);
    named.or_else(|| step.parse().ok().filter(|index| *index < list.len()))
}

fn each_mut(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

/// Visits every `socket_address` in a part of the configuration.
fn visit_socket_addresses(part: Option<&mut Value>, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    match part {
        Some(Value::Object(object)) => {
            for (key, value) in object {
                match value {
                    Value::Object(socket) if key == "socket_address" => visit(socket),
                    other => visit_socket_addresses(Some(other), visit),
                }
            }
        }
        Some(Value::Array(list)) => list.iter_mut().for_each(|item| visit_socket_addresses(Some(item), visit)),
        _ => {}
    }
}

fn port(socket: &Map<String, Value>) -> Option<u16> {
    socket.get("port_value")?.as_u64()?.try_into().ok()
}

fn is_local(socket: &Map<String, Value>) -> bool {
    matches!(socket.get("address").and_then(Value::as_str), Some("127.0.0.1" | "localhost" | "::1" | "0.0.0.0" | "::"))
}

/// A port nobody listens on, as far as one can tell without keeping it.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
