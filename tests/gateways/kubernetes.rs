//! A real API server of Kubernetes, without nodes, and the manifests on it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use sandbox::envoy::workspace_root;
use sandbox::process::Process;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::edge::eventually;
use tests::manifests::Manifests;
use tests::tools::tool;

/// The kinds of Istio, for `Kubernetes::define`.
pub const ISTIO: &str = "istio/manifests/charts/base/files/crd-all.gen.yaml";
/// Those of Envoy Gateway.
pub const ENVOY_GATEWAY: &str = "envoy-gateway/charts/gateway-helm/charts/crds/crds";

/// An API server with its etcd. Dropping it ends both.
pub struct Kubernetes {
    _api_server: Process,
    _etcd: Process,
    folder: TempDir,
}

impl Kubernetes {
    /// Starts an empty one.
    pub async fn start() -> Result<Self> {
        ensure!(std::env::var_os("ALONE").is_some(), "run it by `make test-gateways`");
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let mut etcd = tool("etcd")?;
        etcd.arg("--data-dir").arg(file("etcd"));
        let etcd = Process::spawn(etcd)?;

        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        fs::write(file("accounts.key"), key.serialize_pem())?;
        fs::write(file("accounts.pub"), key.public_key_pem())?;
        fs::write(file("tokens.csv"), "admin,admin,admin,system:masters\n")?;
        let user = json!({ "name": "admin", "user": { "token": "admin" } });
        let cluster = json!({ "server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": true });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [user],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "admin" } }],
            "current-context": "test",
        });
        fs::write(file("kubeconfig"), config.to_string())?;
        let mut api_server = tool("kube-apiserver")?;
        api_server
            .args(["--etcd-servers=http://127.0.0.1:2379", "--bind-address=127.0.0.1", "--authorization-mode=RBAC"])
            .args(["--service-cluster-ip-range=10.0.0.0/24", "--service-account-issuer=https://kubernetes.default.svc"])
            .args(["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none", "--cert-dir"])
            .arg(file("certificates"))
            .arg("--token-auth-file")
            .arg(file("tokens.csv"))
            .arg("--service-account-signing-key-file")
            .arg(file("accounts.key"))
            .arg("--service-account-key-file")
            .arg(file("accounts.pub"));
        let this = Self { _api_server: Process::spawn(api_server)?, _etcd: etcd, folder };
        let ready = async || Ok(this.kubectl(["get", "--raw", "/readyz"]).is_ok());
        eventually("the API server is ready", ready).await.with_context(|| this._api_server.log().tail())?;
        Ok(this)
    }

    /// Adds the kinds of the Gateway API that Istio's manifest uses, which are not experimental.
    pub fn define_gateway_api(&self) -> Result<()> {
        let kinds = ["gateways", "httproutes"];
        kinds.iter().try_for_each(|kinds| {
            self.define(&format!("gateway-api/config/crd/standard/gateway.networking.k8s.io_{kinds}.yaml"))
        })
    }

    /// The file that tells clients where it is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Runs kubectl, and returns what it prints.
    pub fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        said(tool("kubectl")?.args(arguments).env("KUBECONFIG", self.kubeconfig()))
    }

    /// Applies a manifest on the server side.
    pub fn apply(&self, manifest: &Value) -> Result<()> {
        let file = self.folder.path().join("manifest.json");
        fs::write(&file, manifest.to_string())?;
        let file = file.to_str().context("a path in UTF-8")?;
        self.kubectl(["apply", "--server-side", "--force-conflicts", "--validate=strict", "--filename", file])?;
        Ok(())
    }

    /// Adds the kinds that a gateway's sources define, and waits until the API server knows them.
    pub fn define(&self, path: &str) -> Result<()> {
        let path = workspace_root().join("target/tools/sources").join(path);
        let path = path.to_str().context("a path in UTF-8")?;
        self.kubectl(["apply", "--server-side", "--recursive", "--filename", path])?;
        self.kubectl(["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
        Ok(())
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The oldest version of Envoy Gateway that the page on deployment names; `tests/tools` fetches it.
const OLDEST: &str = "github.com/envoyproxy/gateway@v1.8.0";

#[tokio::test]
async fn the_oldest_envoy_gateway_knows_what_its_manifests_contain() -> Result<()> {
    let minor = OLDEST.rsplit_once("@v").and_then(|(_, version)| version.rsplit_once('.')).context("a version")?.0;
    let page = fs::read_to_string(workspace_root().join("docs/deployment.md"))?;
    assert!(page.contains(&format!("You need Envoy Gateway {minor} or later")), "{minor}");
    let kubernetes = Kubernetes::start().await?;
    kubernetes.kubectl(["create", "namespace", "stigg-segment"])?;
    kubernetes.kubectl(["create", "namespace", "envoy-gateway-system"])?;
    kubernetes.define("oldest-envoy-gateway/charts/gateway-helm/charts/crds/crds")?;
    for variants in [&[][..], &["native"], &["sds"], &["native", "sds"]] {
        for manifest in &Manifests::variant("envoy-gateway.yaml", variants)?.0 {
            kubernetes.apply(manifest).with_context(|| manifest.to_string())?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_api_server_accepts_every_manifest() -> Result<()> {
    let kubernetes = Kubernetes::start().await?;
    kubernetes.kubectl(["create", "namespace", "stigg-segment"])?;
    kubernetes.kubectl(["create", "namespace", "envoy-gateway-system"])?;
    kubernetes.define_gateway_api()?;
    let with_gateway_api = Manifests::variant("istio.yaml", &["gateway-api"])?;
    kubernetes.apply(with_gateway_api.the("Gateway")?)?;
    kubernetes.apply(with_gateway_api.the("HTTPRoute")?)?;
    // Envoy Gateway's hold the experimental Gateway API.
    kubernetes.define(ENVOY_GATEWAY)?;
    kubernetes.define(ISTIO)?;
    kubernetes.define("prometheus-operator/example/prometheus-operator-crd")?;
    for manifest in &Manifests::for_clusters()?.0 {
        kubernetes.apply(manifest).with_context(|| manifest.to_string())?;
        let mut misspelt = manifest.clone();
        misspelt["misspelt"] = json!({});
        assert!(kubernetes.apply(&misspelt).is_err(), "accepted: {misspelt}");
    }
    // The rules of the custom kinds hold too.
    let mut both = Manifests::read("envoy-gateway.yaml")?.the("ClientTrafficPolicy")?.clone();
    both["spec"]["targetRef"] = both["spec"]["targetRefs"][0].clone();
    assert!(kubernetes.apply(&both).is_err());
    Ok(())
}
