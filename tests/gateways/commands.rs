//! The commands of docs/deployment.md that need a cluster, as the page prints them, on a real API server. It has no nodes and runs
//! no gateway, so what waits for pods or for a gateway is only parsed (`tests/deploy`).

use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::workspace_root;
use serde_json::Value;
use tests::pages::{blocks, pages, with_a_path};
use tests::tools::path;

use crate::kubernetes::{ENVOY_GATEWAY, ISTIO, Kubernetes};
use crate::tls::Identity;

const PAGE: &str = "docs/deployment.md";

/// `kubectl` and `make` for the page's commands: without those that wait, and those that build.
const INSTEAD: &str = "make() { :; }; kubectl() { case $1 in rollout|wait) ;; *) command kubectl \"$@\" ;; esac; }";

/// Runs the commands of a section, one after the other, on such a cluster, but for a block that contains this alternative.
fn run(section: &str, cluster: &Kubernetes, other: Option<&str>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for there in ["deploy", "envoy.yaml"] {
        symlink(workspace_root().join(there), folder.path().join(there))?;
    }
    std::fs::create_dir(folder.path().join("target"))?;
    for (file, text) in Identity::of("webhooks.example.com")?.files() {
        std::fs::write(folder.path().join(file), text)?;
    }
    let mut ran = 0;
    for block in blocks(PAGE)? {
        let is_other = other.is_some_and(|other| block.text.contains(other));
        if block.section != section || block.kind != "sh" || block.comment == "needs: a registry" || is_other {
            continue;
        }
        let script = with_a_path(&block.text);
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{INSTEAD}\n{script}")])
            .current_dir(folder.path())
            .env("PATH", path()?)
            .env("KUBECONFIG", cluster.kubeconfig())
            .envs([("SEGMENT_WRITE_KEY", "key"), ("STIGG_WEBHOOK_SECRET", "old")])
            .envs([("NEW_SECRET", "new"), ("OLD_SECRET", "old")])
            .output()?;
        ensure!(output.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&output.stderr));
        ran += usize::from(block.comment == "needs: a cluster");
    }
    ensure!(ran > 1, "{section} has no commands");
    Ok(())
}

/// A member of an object in a namespace.
fn member(cluster: &Kubernetes, namespace: &str, object: &str, pointer: &str) -> Result<Value> {
    let text = cluster.kubectl(["get", object, "--namespace", namespace, "--output=json"])?;
    let object: Value = serde_json::from_str(&text)?;
    object.pointer(pointer).cloned().with_context(|| format!("no {pointer} in {object}"))
}

#[tokio::test]
async fn the_commands_install_the_chart_and_rotate_its_secret() -> Result<()> {
    for other in ["kubectl apply", "helm upgrade"] {
        let cluster = Kubernetes::start().await?;
        run("Kubernetes", &cluster, Some(other))?;
        assert_eq!(member(&cluster, "stigg-segment", "deployment/stigg-segment", "/spec/replicas")?, 2);
        let secret = member(&cluster, "stigg-segment", "secret/stigg-segment", "/data/STIGG_WEBHOOK_SECRET")?;
        assert_eq!(secret, "bmV3Cm9sZA=="); // "new\nold"
    }
    Ok(())
}

#[tokio::test]
async fn the_commands_install_istios_manifest() -> Result<()> {
    let cluster = Kubernetes::start().await?;
    cluster.define(ISTIO)?;
    cluster.define_gateway_api()?;
    run("Istio", &cluster, None)?;
    let url = member(&cluster, "stigg-segment", "wasmplugin/stigg-segment", "/spec/url")?;
    assert!(url.as_str().is_some_and(|url| url.starts_with("oci://registry.example.com:5000/acme/")), "{url}");
    // The rotation has ended, and the variant has replaced Istio's own Gateway.
    let previous = member(&cluster, "stigg-segment", "secret/stigg-segment", "/data/STIGG_WEBHOOK_SECRET_PREVIOUS")?;
    assert_eq!(previous, "bmV3"); // "new"
    let gateway = |kind| member(&cluster, "stigg-segment", &format!("{kind}/stigg-gateway"), "/metadata/name");
    assert!(gateway("gateways.networking.istio.io").is_err() && gateway("gateways.gateway.networking.k8s.io").is_ok());
    Ok(())
}

#[tokio::test]
async fn the_commands_install_envoy_gateways_manifest() -> Result<()> {
    let cluster = Kubernetes::start().await?;
    cluster.define(ENVOY_GATEWAY)?;
    cluster.kubectl(["create", "namespace", "envoy-gateway-system"])?;
    run("Envoy Gateway", &cluster, None)?;
    let url = member(&cluster, "stigg-segment", "envoyextensionpolicy/stigg-segment", "/spec/wasm/0/code/image/url")?;
    assert!(url.as_str().is_some_and(|url| url.starts_with("registry.example.com:5000/acme/")), "{url}");
    assert_eq!(
        member(&cluster, "envoy-gateway-system", "secret/stigg-segment", "/data/SEGMENT_WRITE_KEY")?,
        "a2V5" // "key"
    );
    Ok(())
}

#[test]
fn no_other_section_has_a_command_for_a_cluster() -> Result<()> {
    for page in pages()? {
        for block in blocks(&page)?.iter().filter(|block| block.comment == "needs: a cluster") {
            let runs = page == PAGE && ["Kubernetes", "Istio", "Envoy Gateway"].contains(&block.section.as_str());
            assert!(runs, "{}: run it here", block.place);
        }
    }
    Ok(())
}
