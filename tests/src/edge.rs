//! Shared by the end-to-end tests: a real Envoy on the shipped `envoy.yaml` between a sender and the stand-in for Segment,
//! and a plain socket for requests that no HTTP client would send.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, Options, PLUGIN, Shell, is_older_than};
use sandbox::segment::Segment;
pub use sandbox::stigg::PATH;
use sandbox::stigg::{Reply, Webhook};
use sandbox::workspace_root;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

pub use crate::cases::{CATALOG_EVENT, EVENT, PREVIOUS_SECRET, SECRET, WRITE_KEY, message_id};
use crate::skip::skip;

/// The filter's user agent.
pub const USER_AGENT: &str = concat!("stigg-segment-filter/", env!("CARGO_PKG_VERSION"));
/// Longer than any step takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where `envoy.yaml` says how many connections Envoy takes in all.
pub const MOST_CONNECTIONS: &str = "/overload_manager/resource_monitors/\
    envoy.resource_monitors.global_downstream_max_connections/typed_config/max_active_downstream_connections";

/// The shell that these tests run: those of the target `native` run the dynamic module, all others the Wasm module.
pub fn shell() -> Shell {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(|program| program.file_name()).map(|name| name.to_string_lossy());
    if name.is_some_and(|name| name.starts_with("native-")) { Shell::Native } else { Shell::Wasm }
}

/// Envoy, and the stand-in for Segment that it sends to.
#[derive(Debug)]
pub struct Edge {
    /// The gateway.
    pub envoy: Envoy,
    /// The stand-in for Segment.
    pub segment: Segment,
}

/// The environment that `envoy.yaml` reads its secrets from.
pub fn options() -> Options {
    Options::default()
        .env("SEGMENT_WRITE_KEY", WRITE_KEY)
        .env("STIGG_WEBHOOK_SECRET", SECRET)
        .env("STIGG_WEBHOOK_SECRET_PREVIOUS", PREVIOUS_SECRET)
}

impl Edge {
    /// Starts it as shipped.
    pub async fn start() -> Result<Edge> {
        Edge::start_with(Ok).await
    }

    /// Starts it as shipped, with one change.
    pub async fn start_with(change: impl FnOnce(Config) -> Result<Config>) -> Result<Edge> {
        Edge::start_between(Segment::start().await?, change, options()).await
    }

    /// Starts it in each of the two ways to hold a request back until its body is mapped.
    pub async fn start_both_ways() -> Result<[Edge; 2]> {
        Ok([Edge::start().await?, Edge::start_with(buffered).await?])
    }

    /// Starts it in those of these ways in which the filter sees the headers before the body has come.
    pub async fn start_seeing_headers_first() -> Result<Vec<Edge>> {
        Ok(match shell() {
            Shell::Wasm => Edge::start_both_ways().await?.into(),
            Shell::Native => vec![Edge::start().await?],
        })
    }

    /// Starts it with this stand-in and these options.
    pub async fn start_between(
        segment: Segment,
        change: impl FnOnce(Config) -> Result<Config>,
        options: Options,
    ) -> Result<Edge> {
        let envoy = Envoy::start(change(Config::sandboxed_with(shell(), &segment)?)?, options).await?;
        Ok(Edge { envoy, segment })
    }

    /// Sends a webhook with the right secret.
    pub async fn send(&self, webhook: Webhook) -> Result<Reply> {
        webhook.secret(SECRET).send(&self.envoy.url(PATH)).await
    }

    /// Sends an event with the right secret.
    pub async fn send_event(&self, event: impl Into<String>) -> Result<Reply> {
        self.send(Webhook::new(event.into())).await
    }

    /// Sends a request as it is on a new connection.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Result<Response> {
        let mut connection = self.connect().await?;
        connection.send(request).await?;
        connection.response().await
    }

    /// A socket to the webhooks listener.
    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(self.envoy.addr(sandbox::envoy::LISTENER).context("no listener")?).await
    }
}

/// Adds the stock buffer filter. It holds the request after the Wasm filter, which then does not hold the headers, or
/// before the dynamic module, which then gets the whole request at once.
pub fn buffered(config: Config) -> Result<Config> {
    match config.shell() {
        Shell::Wasm => config.hold_request_headers(false),
        Shell::Native => config.buffered_before(),
    }
}

/// Forbids the Wasm module these calls to Envoy.
pub fn without_calls(mut config: Config, calls: &[&str]) -> Result<Config> {
    for call in calls {
        config = config.remove(&format!("{PLUGIN}/capability_restriction_config/allowed_capabilities/{call}"))?;
    }
    Ok(config)
}

/// The name of a counter of the filter in Envoy's own statistics.
pub fn own_stat(counter: &str) -> String {
    let prefix = match shell() {
        Shell::Wasm => "wasmcustom",
        Shell::Native => "dynamicmodulescustom",
    };
    format!("{prefix}.stigg_segment.{counter}")
}

/// How many VMs Envoy has made; 0 with the dynamic module.
pub async fn vms(envoy: &Envoy) -> Result<u64> {
    match shell() {
        Shell::Wasm => envoy.stat("wasm.envoy.wasm.runtime.v8.created").await,
        Shell::Native => Ok(0),
    }
}

/// The dynamic module that panics in the hook that a request's header `x-panic` names. `make panicking` builds it.
pub fn panicking_module() -> PathBuf {
    workspace_root().join("target/panicking/debug/libstigg_segment_native.so")
}

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let wait = async {
        while !holds().await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("not in time: {what}"))?
}

/// Whether this Envoy is older than a version; if so, reports what the test skips.
pub async fn is_too_old(version: (u32, u32), for_what: &str) -> Result<bool> {
    let too_old = tokio::task::spawn_blocking(move || is_older_than(version)).await??;
    if too_old {
        skip(&format!("{for_what} need Envoy {}.{}", version.0, version.1));
    }
    Ok(too_old)
}

/// Whether counters of a dynamic module begin with their first event in this Envoy, and not at 0.
pub async fn counters_do_not_begin_at_0() -> Result<bool> {
    Ok(shell() == Shell::Native && is_too_old((1, 39), "counters of a dynamic module that begin at 0").await?)
}

/// Whether this Envoy cannot read secrets from files.
pub async fn reads_no_secrets_from_files() -> Result<bool> {
    is_too_old((1, 39), "secrets from files").await
}

/// Whether this Envoy takes no body over the buffer limit of the connection.
pub async fn rejects_large_bodies() -> Result<bool> {
    is_too_old((1, 37), "bodies over 32 KiB").await
}

/// A plain HTTP/1.1 connection.
#[derive(Debug)]
pub struct Connection(BufStream<TcpStream>);

/// An HTTP/1.1 response, unchanged.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Connection {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufStream::new(stream)))
    }

    /// Sends these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.0.write_all(bytes.as_ref()).await?;
        Ok(self.0.flush().await?)
    }

    /// Sends these bytes one by one.
    pub async fn trickle(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        for byte in bytes.as_ref() {
            self.send([*byte]).await?;
        }
        Ok(())
    }

    /// Reads the next response; its body must have a content-length.
    pub async fn response(&mut self) -> Result<Response> {
        self.response_within(PATIENCE).await
    }

    /// The same, with another patience.
    pub async fn response_within(&mut self, patience: Duration) -> Result<Response> {
        let read = async {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                anyhow::ensure!(self.0.read_line(&mut head).await? > 0, "the connection closed after {head:?}");
            }
            let head = head.to_lowercase();
            let status = head.split(' ').nth(1).context("no status")?.parse()?;
            let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(Ok(0), str::parse)?];
            self.0.read_exact(&mut body).await?;
            Ok(Response { status, head, body: String::from_utf8(body)? })
        };
        tokio::time::timeout(patience, read).await.context("no response")?
    }

    /// Waits until the other side closes; returns what it sent before that.
    pub async fn closed(&mut self) -> Result<String> {
        let mut rest = Vec::new();
        // A reset closes it too.
        let _ = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.context("still open")?;
        Ok(String::from_utf8_lossy(&rest).into_owned())
    }
}

/// An HTTP/1.1 request for the webhook's path, with `headers` (each with its line end) beside host and secret.
pub fn request(method: &str, headers: &str, body: &str) -> String {
    format!("{method} {PATH} HTTP/1.1\r\nhost: edge\r\nstigg-webhooks-secret: {SECRET}\r\n{headers}\r\n{body}")
}

/// The POST of a body whose length is announced.
pub fn post(body: &str) -> String {
    request("POST", &format!("content-length: {}\r\n", body.len()), body)
}

/// The POST of a body in chunks of this size.
pub fn post_chunked(body: &str, size: usize) -> String {
    let mut chunks = String::new();
    for chunk in body.as_bytes().chunks(size) {
        chunks += &format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk));
    }
    request("POST", "transfer-encoding: chunked\r\n", &(chunks + "0\r\n\r\n"))
}
