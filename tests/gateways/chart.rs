//! The chart of the release on a real API server: Helm installs, changes and removes it. `kubernetes.rs` applies every rendering.

use anyhow::{Context, Result, ensure};
use tests::tools::tool;

use crate::gateway::dist;
use crate::kubernetes::Kubernetes;

#[tokio::test]
async fn helm_installs_upgrades_rolls_back_and_uninstalls_the_chart() -> Result<()> {
    let cluster = Kubernetes::start().await?;
    cluster.kubectl(["create", "namespace", "stigg-segment"])?;
    let helm = |arguments: &[&str]| {
        let mut helm = tool("helm")?;
        helm.args(arguments).args(["--namespace", "stigg-segment"]).env("KUBECONFIG", cluster.kubeconfig());
        let output = helm.output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let replicas = || {
        let there =
            ["get", "deployment/stigg-segment", "--namespace=stigg-segment", "--output=jsonpath={.spec.replicas}"];
        cluster.kubectl(there)
    };
    let chart = dist(concat!("stigg-segment-filter-", env!("CARGO_PKG_VERSION"), ".tgz"));
    let chart = chart.to_str().context("no UTF-8")?;
    let install = ["upgrade", "--install", "stigg-segment", chart, "--set", "source=production"];
    let notes = helm(&install)?;
    assert!(notes.contains("/webhooks/stigg") && notes.contains("Secret stigg-segment must be"), "{notes}");
    assert_eq!(replicas()?, "2");
    helm(&[&install[..], &["--set", "shell=native,replicas=3"]].concat())?;
    assert_eq!(replicas()?, "3");
    let config = cluster.kubectl(["get", "configmap/stigg-segment", "--namespace=stigg-segment", "--output=yaml"])?;
    assert!(config.contains("libstigg_segment.so") && config.contains("tokens_per_fill: 533"), "{config}");
    helm(&["rollback", "stigg-segment", "1"])?;
    assert_eq!(replicas()?, "2");
    helm(&["uninstall", "stigg-segment"])?;
    let selector = "--selector=app.kubernetes.io/instance=stigg-segment";
    let kinds = "deployments,services,configmaps,networkpolicies,poddisruptionbudgets,secrets";
    assert_eq!(cluster.kubectl(["get", kinds, "--namespace=stigg-segment", selector, "--output=name"])?, "");
    Ok(())
}
