//! What the gateways make of the manifests, as it is kept beside these tests. `make test` runs Envoy on it.

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Shell, workspace_root};
use serde_json::{Map, Value, json};
use tests::manifests::{ISTIO_VARIANTS, each, every, text};
use tests::tools::run;

use crate::gateway::Gateway;
use crate::tls::Identity;

/// Compares with the file, or writes it if the variable `KEEP` is set.
fn hold(name: &str, module: &str, mut made: Value) -> Result<()> {
    let (folder, path) = module.split_once(' ').context("a module in a folder")?;
    let modules = std::fs::read_to_string(workspace_root().join(format!("tests/gateways/{folder}/go.mod")))?;
    let version = modules.lines().find_map(|line| line.trim().trim_start_matches("require ").strip_prefix(path));
    made["made_by"] = format!("{path}{}", version.context("no version")?.trim_end_matches(" // indirect")).into();
    let file = workspace_root().join(format!("tests/gateways/{name}.json"));
    let text = format!("{made:#}\n");
    if std::env::var_os("KEEP").is_some() {
        return Ok(std::fs::write(file, text)?);
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = text.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    ensure!(
        text == kept,
        "{name}.json differs: {differs:?}. See what is different, and run `KEEP=1 make test-gateways`"
    );
    Ok(())
}

/// What Istio makes of a manifest and the certificate for its gateway, without what is different in each run.
pub fn istio(manifest: &str) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("manifest.yaml");
    let identity = Identity::of("webhooks.example.com")?;
    let certificate = identity.secret("stigg-segment", "stigg-gateway-certificate");
    std::fs::write(&file, format!("{manifest}\n---\n{certificate}"))?;
    let made = run("istio-translate", [file.to_str().context("a path in UTF-8")?])?;
    let mut made: Value = serde_json::from_str(&made)?;
    replace(&mut made, &|key, value| {
        if key == "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION" {
            *value = json!("VERSION");
        }
    });
    Ok(made)
}

/// What Envoy Gateway has told its Envoy.
pub async fn envoy_gateway(gateway: Gateway) -> Result<Value> {
    let edge = gateway.edge().await?;
    let dump: Value = serde_json::from_str(&edge.envoy.admin_get("/config_dump").await?)?;
    let all = |list: &str, kind: &str| {
        let entries =
            every(&dump, list).into_iter().flat_map(each).filter_map(|entry| every(entry, kind)[0].as_object());
        let mut all: Vec<_> = entries.cloned().map(untyped).collect();
        all.sort_by_key(|entry| entry["name"].to_string()); // they come in any order
        all
    };
    let mut made = json!({
        "listeners": all("dynamic_listeners", "listener"),
        "routes": all("dynamic_route_configs", "route_config"),
        "clusters": all("dynamic_active_clusters", "cluster"),
    });
    replace(&mut made, &|key, value| match key {
        "uri" => *value = json!("MODULE"),
        "sha256" => *value = json!("CHECKSUM"),
        _ => {}
    });
    Ok(made)
}

/// A message without its type, which only such a list names.
fn untyped(mut message: Map<String, Value>) -> Value {
    message.remove("@type");
    message.into()
}

/// Lets a function change each value that has a name.
fn replace(value: &mut Value, change: &impl Fn(&str, &mut Value)) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                change(key, inner);
                replace(inner, change);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| replace(inner, change)),
        _ => {}
    }
}

#[test]
fn istio_makes_what_is_kept() -> Result<()> {
    for (name, variants) in [("istio", &[][..]), ("istio-variants", &ISTIO_VARIANTS)] {
        hold(name, "istio istio.io/istio", istio(&text("istio.yaml", variants)?)?)?;
    }
    Ok(())
}

const ENVOY_GATEWAY: &str = "envoy-gateway github.com/envoyproxy/gateway";

#[tokio::test]
async fn envoy_gateway_makes_what_is_kept() -> Result<()> {
    hold("envoy-gateway", ENVOY_GATEWAY, envoy_gateway(Gateway::prepare(Shell::Wasm).await?).await?)
}

#[tokio::test]
async fn envoy_gateway_makes_what_is_kept_with_the_dynamic_module() -> Result<()> {
    hold("envoy-gateway-native", ENVOY_GATEWAY, envoy_gateway(Gateway::prepare(Shell::Native).await?).await?)
}
