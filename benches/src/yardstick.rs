//! The alternatives that the filter is measured against: the same Envoy with another filter, or with none.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, Options, SEGMENT_CLUSTER, Shell};
use sandbox::process::{Process, pin};
use sandbox::segment::Segment;
use sandbox::workspace_root;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The path of the filter in Envoy's configuration.
const FILTER: &str = "/static_resources/listeners/webhooks/filter_chains/0/filters/0/typed_config\
                      /http_filters/stigg_segment";

/// The filter, or an alternative in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// No filter: the event is forwarded unchanged.
    Bare,
    /// A Wasm filter that does nothing.
    Noop,
    /// The filter without reading the event.
    Edits,
    /// The least that a Wasm filter of this kind must do: hold, read and rewrite a request.
    Floor,
    /// The filter as shipped.
    Shipped,
    /// The least that a dynamic module of this kind must do.
    NativeFloor,
    /// The filter as a dynamic module.
    Native,
    /// The same job as a Lua filter.
    Lua,
    /// What many would write in ten minutes of Lua: patterns, and no checks.
    Script,
    /// The filter without holding headers, followed by Envoy's buffer filter.
    Buffered,
    /// The same job as a function in Node.js: Envoy sends it the event, and it calls Segment itself.
    Node,
}

impl Variant {
    /// All variants, in the order of the tables.
    pub const ALL: [Variant; 11] = [
        Variant::Bare,
        Variant::Noop,
        Variant::Floor,
        Variant::Edits,
        Variant::Shipped,
        Variant::NativeFloor,
        Variant::Native,
        Variant::Lua,
        Variant::Script,
        Variant::Buffered,
        Variant::Node,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Bare => "bare",
            Variant::Noop => "noop",
            Variant::Edits => "edits",
            Variant::Floor => "floor",
            Variant::Shipped => "shipped",
            Variant::NativeFloor => "nativefloor",
            Variant::Native => "native",
            Variant::Lua => "lua",
            Variant::Script => "script",
            Variant::Buffered => "buffered",
            Variant::Node => "node",
        }
    }

    /// Whether it knows which events to send.
    pub fn reads_the_event(self) -> bool {
        !matches!(self, Variant::Bare | Variant::Noop | Variant::Edits | Variant::Floor | Variant::NativeFloor)
    }

    /// The shell whose configuration it changes.
    pub fn shell(self) -> Shell {
        match self {
            Variant::NativeFloor | Variant::Native => Shell::Native,
            _ => Shell::Wasm,
        }
    }

    /// Replaces the filter in a configuration with this variant.
    pub fn put_into(self, config: Config) -> Result<Config> {
        match self {
            Variant::Shipped | Variant::Native => Ok(config),
            Variant::Noop | Variant::Edits | Variant::Floor => {
                let module = Config::shipped()?.module_file()?.with_file_name(self.name()).with_extension("wasm");
                config.to_segment_at_once()?.module(&built(module)?)
            }
            Variant::NativeFloor => {
                let library = workspace_root().join("target/native/libnative_floor.so");
                config.to_segment_at_once()?.module(&built(library)?)
            }
            Variant::Buffered => config.hold_request_headers(false),
            Variant::Bare | Variant::Node => config.without_filter(),
            Variant::Lua => lua(config, "filter.lua"),
            Variant::Script => lua(config, "script.lua"),
        }
    }
}

/// A Lua script in the filter's place.
fn lua(config: Config, script: &str) -> Result<Config> {
    config.to_segment_at_once()?.set(
        &format!("{FILTER}/typed_config"),
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "filename": file(script) },
        }),
    )
}

/// A file of a variant.
fn file(name: &str) -> PathBuf {
    workspace_root().join("benches/yardsticks").join(name)
}

fn built(file: PathBuf) -> Result<PathBuf> {
    anyhow::ensure!(file.exists(), "{} does not exist: run `make yardsticks` first", file.display());
    Ok(file)
}

/// An Envoy with a variant in the filter's place, and the variant's other processes.
#[derive(Debug)]
pub struct Gateway {
    /// The Envoy.
    pub envoy: Envoy,
    function: Option<Function>,
}

impl Gateway {
    /// Starts an Envoy with this variant. `change` applies to the configuration of every variant; `beside` are the
    /// processors for the variant's other processes.
    pub async fn start(
        variant: Variant,
        segment: &Segment,
        change: impl FnOnce(Config) -> Result<Config>,
        options: Options,
        beside: &[usize],
    ) -> Result<Self> {
        let mut config = variant.put_into(change(Config::sandboxed_with(variant.shell(), segment)?)?)?;
        let function = match variant {
            Variant::Node => Some(Function::start(segment, &options, beside).await?),
            _ => None,
        };
        if let Some(function) = &function {
            config = function.route(config)?;
        }
        let envoy = Envoy::start(config, options).await?;
        Ok(Self { envoy, function })
    }

    /// The processes whose time is measured.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        [self.envoy.pid()].into_iter().chain(self.function.as_ref().map(|function| function.process.pid()))
    }
}

/// The function in Node.js, running.
#[derive(Debug)]
struct Function {
    process: Process,
    addr: SocketAddr,
}

impl Function {
    async fn start(segment: &Segment, options: &Options, cpus: &[usize]) -> Result<Self> {
        const READY: &str = "listening on ";
        let mut command = Command::new("node");
        command.arg(file("function.js")).env("SEGMENT_URL", format!("http://{}", segment.addr()));
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        if !cpus.is_empty() {
            pin(&mut command, cpus)?;
        }
        let process = Process::spawn(command).context("Node.js is needed: apt-get install nodejs")?;
        let ready = async {
            tokio::select! {
                line = process.log().line(|line| line.starts_with(READY)) => Ok(line),
                status = process.exited() => anyhow::bail!("it ended with {status}:\n{}", process.log().tail()),
            }
        };
        let line = tokio::time::timeout(Duration::from_secs(20), ready).await??;
        let addr = line.trim_start_matches(READY).trim().parse()?;
        Ok(Self { process, addr })
    }

    /// Sends the requests for Segment to the function.
    fn route(&self, config: Config) -> Result<Config> {
        let http = "typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        config
            .set(
                &format!(
                    "{SEGMENT_CLUSTER}/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address"
                ),
                json!({ "address": self.addr.ip(), "port_value": self.addr.port() }),
            )?
            .set(&format!("{SEGMENT_CLUSTER}/{http}/explicit_http_config"), json!({ "http_protocol_options": {} }))?
            .set(&format!("{SEGMENT_CLUSTER}/transport_socket"), Value::Null)
    }
}
