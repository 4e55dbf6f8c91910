//! A running Envoy Gateway with its Envoy, as it comes, but that its resources come from files and not from Kubernetes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64ct::{Base64, Encoding};
use sandbox::envoy::{Config, Envoy, Shell, locate, variant, workspace_root};
use sandbox::image;
use sandbox::process::Process;
use sandbox::segment::{Options, Segment};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::edge::*;
use tests::manifests::Manifests;
use tests::registry::Registry;
use tests::tools::tool;

use crate::tls::Identity;

/// The host name that takes webhooks; `alone` makes it known.
pub const HOST: &str = "edge";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where Envoy takes webhooks: not on port 443, where the stand-in for Segment is.
const WEBHOOKS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_443);

/// What a gateway runs on: a registry, a folder with resources, and a certificate.
pub struct Gateway {
    folder: TempDir,
    identity: Identity,
    /// The digest of the module's image.
    pub digest: String,
    /// Where its image is; taken, it is stopped.
    pub registry: Option<Registry>,
    /// The objects of deploy/envoy-gateway.yaml for this shell, as the page on deployment changes them.
    pub manifests: Manifests,
}

impl Gateway {
    /// Prepares one without any resources of ours.
    pub async fn prepare(shell: Shell) -> Result<Self> {
        ensure!(std::env::var_os("ALONE").is_some(), "run it by `make test-gateways`");
        let registry = Registry::start()?;
        let folder = tempfile::tempdir()?;
        let config = Config::shipped_with(shell)?;
        let mut digest = String::new();
        match shell {
            Shell::Wasm => {
                let layout = folder.path().join("image");
                let origin = image::Origin { version: VERSION, source: None, revision: None };
                digest = image::write(&config.module_file()?, &origin, &layout)?;
                registry.push(&layout, &format!("stigg-segment-filter:{VERSION}"))?;
            }
            // As the volume that the manifest mounts.
            Shell::Native => drop(fs::copy(config.module_file()?, "/stigg-segment/libstigg_segment.so")?),
        }
        let text = fs::read_to_string(workspace_root().join("deploy/envoy-gateway.yaml"))?;
        let text = variant(shell, &text)
            .replace("webhooks.example.com", HOST)
            .replace("registry.example.com", registry.address())
            .replace("\n    port: 443\n", &format!("\n    port: {}\n", WEBHOOKS.port()));
        let this = Self {
            folder,
            digest,
            identity: Identity::of(HOST)?,
            registry: Some(registry),
            manifests: Manifests::parse(&text)?,
        };

        fs::create_dir(this.resources())?;
        let certgen = tool("envoy-gateway")?.args(["certgen", "--local", "--config-home"]).arg(this.home()).output()?;
        ensure!(certgen.status.success(), "{}", String::from_utf8_lossy(&certgen.stderr));
        let certificates = this.home().join("certs/envoy");
        let mut own = Vec::new();
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            fs::copy(certificates.join(file), Path::new("/certs").join(file))?;
            own.push((file, fs::read_to_string(certificates.join(file))?));
        }
        this.apply(&secret("envoy-gateway-system", "envoy", &own))?;
        let served = [("tls.crt", this.identity.certificate.clone()), ("tls.key", this.identity.key.clone())];
        this.apply(&secret("stigg-segment", "stigg-gateway-certificate", &served))?;
        this.apply(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": { "name": "eg" },
            "spec": { "controllerName": "gateway.envoyproxy.io/gatewayclass-controller" },
        }))?;

        let version = this.home().join("data/envoy-versions/1.39.0/bin");
        fs::create_dir_all(&version)?;
        std::os::unix::fs::symlink(tokio::task::spawn_blocking(locate).await??, version.join("envoy"))?;
        let home = this.home();
        let config = json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "EnvoyGateway",
            "gateway": { "controllerName": "gateway.envoyproxy.io/gatewayclass-controller" },
            "provider": { "type": "Custom", "custom": {
                "resource": { "type": "File", "file": { "paths": [this.resources()] } },
                "infrastructure": { "type": "Host", "host": { "configHome": home, "dataHome": home.join("data"), "stateHome": home, "runtimeDir": home } },
            } },
            "extensionApis": { "enableBackend": true },
        });
        fs::write(this.home().join("config.json"), config.to_string())?;
        Ok(this)
    }

    fn home(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn resources(&self) -> PathBuf {
        self.folder.path().join("resources")
    }

    /// Creates or replaces an object.
    pub fn apply(&self, object: &Value) -> Result<()> {
        // The gateway must not read half a file.
        let whole = self.home().join("new");
        fs::write(&whole, serde_yaml_ng::to_string(object)?)?;
        Ok(fs::rename(whole, self.file(object))?)
    }

    /// Deletes an object.
    pub fn delete(&self, object: &Value) -> Result<()> {
        Ok(fs::remove_file(self.file(object))?)
    }

    fn file(&self, object: &Value) -> PathBuf {
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        self.resources().join(format!("{kind}-{name}.yaml").replace('"', ""))
    }

    /// Starts the gateway.
    pub fn run(&self) -> Result<Process> {
        let mut command: Command = tool("envoy-gateway")?;
        command.arg("server").arg("--config-path").arg(self.home().join("config.json"));
        command.env("HOME", self.home()).envs(options().env);
        Process::spawn(command)
    }

    /// A proxy for webhooks.
    pub async fn proxy(&self) -> Result<SocketAddr> {
        self.identity.proxy(WEBHOOKS).await
    }

    /// Where the admin interface of its Envoy listens.
    pub fn admin(&self) -> Option<SocketAddr> {
        let folders = fs::read_dir(self.home()).ok()?.flatten();
        folders
            .filter_map(|folder| fs::read_to_string(folder.path().join("admin-address.txt")).ok()?.trim().parse().ok())
            .last()
    }

    /// Starts it with the whole manifest, and waits until it takes webhooks.
    pub async fn edge(self) -> Result<Edge> {
        let segment = segment().await?;
        self.manifests.0.iter().try_for_each(|object| self.apply(object))?;
        let process = self.run()?;
        let proxy = self.proxy().await?;
        let takes = async || Ok(answer(proxy, CATALOG_EVENT).await == Some(204));
        eventually("the gateway takes webhooks", takes).await.with_context(|| process.log().text())?;
        all_accepted(&process.log().text())?;
        let admin = self.admin().context("no admin interface")?;
        Ok(Edge { envoy: Envoy::of(process, self.folder, admin, HOST, proxy), segment })
    }
}

/// Checks the conditions of all objects, as the gateway logs them. Only a cluster gives a Gateway an address.
fn all_accepted(log: &str) -> Result<()> {
    let statuses: Vec<_> = log.split("Got new status for ").skip(1).collect();
    ensure!(statuses.iter().any(|status| status.starts_with("EnvoyExtensionPolicy\n")), "no status");
    for status in statuses {
        let status = status.split("\n\t").next().unwrap_or_default();
        for (place, _) in status.match_indices("status: \"False\"") {
            let reason = status[..place].rsplit("reason: ").next().unwrap_or_default().trim();
            ensure!(reason == "AddressNotAssigned", "{status}");
        }
    }
    Ok(())
}

/// The status of the answer to an event; `None` if there is none.
pub async fn answer(proxy: SocketAddr, event: &str) -> Option<u16> {
    let mut connection = Connection::open(proxy).await.ok()?;
    connection.send(post(event)).await.ok()?;
    Some(connection.response().await.ok()?.status)
}

/// A stand-in for Segment where the manifest sends, with an authority that this machine trusts.
pub async fn segment() -> Result<Segment> {
    let segment = Segment::start_with(Options { address: ([127, 0, 0, 1], 443).into(), ..Options::default() }).await?;
    // `alone` has put a copy in its place.
    let authority = fs::read_to_string(segment.ca_file().context("no authority")?)?;
    fs::write("/etc/ssl/certs/ca-certificates.crt", authority)?;
    Ok(segment)
}

fn secret(namespace: &str, name: &str, data: &[(&str, String)]) -> Value {
    let data: serde_json::Map<_, _> =
        data.iter().map(|(key, value)| ((*key).to_owned(), Base64::encode_string(value.as_bytes()).into())).collect();
    let metadata = json!({ "namespace": namespace, "name": name });
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data })
}
