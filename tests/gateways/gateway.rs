//! A running Envoy Gateway with its Envoy, as it comes, but that its resources come from files and not from Kubernetes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Envoy, Shell, locate, workspace_root};
use sandbox::process::Process;
use sandbox::segment::{Options, Segment, Transport};
use sandbox::stigg::Webhook;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::cases::KEYS_SOURCE;
use tests::edge::*;
use tests::layout::unpack;
use tests::manifests::{Manifests, file_of, text};
use tests::registry::Registry;
use tests::tools::tool;
use tests::volume::project;

use crate::tls::{Identity, secret};

/// Its manifests, in deploy/.
pub const FILE: &str = "envoy-gateway.yaml";
/// The host name that takes webhooks; `alone` makes it known.
pub const HOST: &str = "edge";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `make dist` has written, which users install.
pub fn dist(file: &str) -> PathBuf {
    workspace_root().join("target/dist").join(file)
}

/// The digest of an image of it.
pub fn digest(image: &str) -> Result<String> {
    let images = fs::read_to_string(dist("IMAGES"))?;
    let name = format!("  registry.example.com/{image}");
    let digest = images.lines().find_map(|line| line.strip_suffix(&name));
    Ok(format!("sha256:{}", digest.context("no digest")?))
}

/// Where Envoy takes webhooks: not on port 443, where the stand-in for Segment is.
const WEBHOOKS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_443);

/// Where a gateway answers with the number of the last change that its Envoy has.
const CHANGES: &str = "/changes";
/// After this time without an answer there, there is no way through the gateway.
const NO_WAY: Duration = Duration::from_secs(2);

/// What a gateway runs on: a registry, a folder with resources, and a certificate.
pub struct Gateway {
    folder: TempDir,
    identity: Identity,
    changes: AtomicUsize,
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
        Self::prepare_variant(shell, &[]).await
    }

    /// The same with the secrets in files.
    pub async fn prepare_with_files(shell: Shell) -> Result<Self> {
        let gateway = Self::prepare_variant(shell, &["sds"]).await?;
        let files = gateway.manifests.the("ConfigMap")?["data"].as_object().context("no data")?;
        for (name, text) in files {
            fs::write(Path::new("/stigg-segment-sds").join(name), text.as_str().context("a text")?)?;
        }
        put_secrets(WRITE_KEY, &[SECRET, PREVIOUS_SECRET])?;
        Ok(gateway)
    }

    async fn prepare_variant(shell: Shell, variants: &[&str]) -> Result<Self> {
        ensure!(std::env::var_os("ALONE").is_some(), "run it by `make test-gateways`");
        let registry = Registry::start()?;
        let folder = tempfile::tempdir()?;
        match shell {
            Shell::Wasm => {
                registry.push(&dist("images/stigg-segment-filter"), &format!("stigg-segment-filter:{VERSION}"))?
            }
            // As the volume that the manifest mounts.
            Shell::Native => unpack(&dist("images/stigg-segment-filter-modules"), Path::new("/stigg-segment"))?,
        }
        let native = Some("native").filter(|_| shell == Shell::Native);
        let variants: Vec<_> = native.into_iter().chain(variants.iter().copied()).collect();
        let text = text(FILE, &variants)?
            .replace("webhooks.example.com", HOST)
            .replace("registry.example.com", registry.address())
            .replace("source: main", &format!("source: {KEYS_SOURCE}"))
            .replace("\n    port: 443\n", &format!("\n    port: {}\n", WEBHOOKS.port()));
        let this = Self {
            folder,
            changes: AtomicUsize::new(0),
            digest: digest("stigg-segment-filter")?,
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
        this.apply(&this.identity.secret("stigg-segment", "stigg-gateway-certificate"))?;
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
            "extensionApis": { "enableBackend": true, "enableEnvoyPatchPolicy": true },
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

    /// Creates an object, or changes one.
    pub fn apply(&self, object: &Value) -> Result<()> {
        let file = self.file(object);
        self.write(file.file_name().and_then(|name| name.to_str()).context("a name")?, [object])
    }

    fn write<'a>(&self, name: &str, objects: impl IntoIterator<Item = &'a Value>) -> Result<()> {
        // The gateway must not read half a file.
        let whole = self.home().join("new");
        fs::write(&whole, file_of(objects))?;
        Ok(fs::rename(whole, self.resources().join(name))?)
    }

    /// Deletes an object.
    pub fn delete(&self, object: &Value) -> Result<()> {
        Ok(fs::remove_file(self.file(object))?)
    }

    fn file(&self, object: &Value) -> PathBuf {
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        self.resources().join(format!("{kind}-{name}.yaml").replace('"', ""))
    }

    /// Replaces an object by one with the same name. The gateway merges what is only applied into what it has, and so keeps
    /// what is left out.
    pub async fn replace(&self, process: &Process, object: &Value) -> Result<()> {
        let file = self.file(object);
        let file = file.to_str().context("a path in UTF-8")?;
        let mut position = process.log().text().len();
        self.delete(object)?;
        let read = async {
            process.log().line_after(&mut position, |line| line.contains("\"REMOVE\"") && line.contains(file)).await;
            process.log().line_after(&mut position, |line| line.contains("reload resources finished")).await;
        };
        tokio::time::timeout(PATIENCE, read).await.with_context(|| format!("{file} is still there"))?;
        self.apply(object)
    }

    /// Waits until its Envoy has all that was applied: it then answers with a new number. Returns whether it does.
    pub async fn settled(&self, proxy: SocketAddr) -> Result<bool> {
        let number = self.changes.fetch_add(1, Ordering::Relaxed).to_string();
        let filter = json!({ "group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": "changes" });
        let metadata = json!({ "name": "changes", "namespace": "stigg-segment" });
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": metadata,
            "spec": {
                "parentRefs": [{ "name": "stigg-gateway" }],
                "hostnames": [HOST],
                "rules": [{
                    "matches": [{ "path": { "type": "Exact", "value": CHANGES } }],
                    "filters": [{ "type": "ExtensionRef", "extensionRef": filter }],
                }],
            },
        });
        let answer = json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "HTTPRouteFilter",
            "metadata": metadata,
            "spec": { "directResponse": { "statusCode": 200, "body": { "type": "Inline", "inline": number } } },
        });
        self.write("changes.yaml", [&route, &answer])?;
        let uses_it = async {
            while !self.uses(proxy, &number).await.unwrap_or_default() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        Ok(tokio::time::timeout(NO_WAY, uses_it).await.is_ok())
    }

    /// Whether its Envoy has the change with this number, and nothing of it is still warming.
    async fn uses(&self, proxy: SocketAddr, number: &str) -> Result<bool> {
        let mut connection = Connection::open(proxy).await?;
        connection.send(post("").replace(PATH, CHANGES)).await?;
        if connection.response().await?.body != number {
            return Ok(false);
        }
        let warming = self.admin_get("/stats?filter=warming").await?;
        Ok(warming.contains("warming_clusters: 0") && warming.contains("listeners_warming: 0"))
    }

    /// Starts the gateway.
    pub fn run(&self) -> Result<Process> {
        let mut command: Command = tool("envoy-gateway")?;
        command.arg("server").arg("--config-path").arg(self.home().join("config.json"));
        command.env("HOME", self.home());
        if !self.manifests.has("EnvoyPatchPolicy") {
            command.envs(options().env);
        }
        Process::spawn(command)
    }

    /// Starts it, and waits until it sees each change.
    pub async fn run_and_watch(&self) -> Result<Process> {
        let process = self.run()?;
        process.log().line(|line| line.contains("Watching path added")).await;
        Ok(process)
    }

    /// A proxy for webhooks.
    pub async fn proxy(&self) -> Result<SocketAddr> {
        self.identity.proxy(WEBHOOKS).await
    }

    /// Where the admin interface of its Envoy listens.
    pub fn admin(&self) -> Option<SocketAddr> {
        let folders = fs::read_dir(self.home()).ok()?.flatten();
        // It may have started several Envoys, in folders named by the time.
        let newest =
            folders.map(|folder| folder.path().join("admin-address.txt")).filter(|file| file.exists()).max()?;
        fs::read_to_string(newest).ok()?.trim().parse().ok()
    }

    /// What it answers there.
    pub async fn admin_get(&self, path: &str) -> Result<String> {
        let admin = self.admin().context("no admin interface")?;
        Ok(Webhook::new("").method("GET".parse()?).send(&format!("http://{admin}{path}")).await?.text())
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

/// Writes the Secret's files where the variant with files mounts them; `alone` has made the folder.
pub fn put_secrets(write_key: &str, valid: &[&str]) -> Result<()> {
    let files = [("SEGMENT_WRITE_KEY", write_key.to_owned()), ("STIGG_WEBHOOK_SECRET", valid.join("\n"))];
    project("/stigg-segment-secrets".as_ref(), &files.map(|(key, value)| (key.to_owned(), value)).into())
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
    let segment = server(Transport::default()).await?;
    trust(&segment)?;
    Ok(segment)
}

/// A server there.
pub async fn server(transport: Transport) -> Result<Segment> {
    Segment::start_with(Options { address: ([127, 0, 0, 1], 443).into(), transport, ..Options::default() }).await
}

/// Lets this machine trust a server's authority.
pub fn trust(server: &Segment) -> Result<()> {
    // `alone` has put a copy in its place.
    let authority = fs::read_to_string(server.ca_file().context("no authority")?)?;
    Ok(fs::write("/etc/ssl/certs/ca-certificates.crt", authority)?)
}
