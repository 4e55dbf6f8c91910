//! The ways to run it in deploy/: each manifest is what its API takes, and does on a real Envoy what it is there for.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

#[path = "deploy/container.rs"]
mod container;
mod edge;
#[path = "deploy/envoy_gateway.rs"]
mod envoy_gateway;
#[path = "deploy/istio.rs"]
mod istio;
#[path = "deploy/manifests.rs"]
mod manifests;
#[path = "deploy/schemas.rs"]
mod schemas;
#[path = "deploy/xds.rs"]
mod xds;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use container::Container;
use edge::*;
use manifests::*;
use sandbox::envoy::{ENVOY_VERSION, Envoy, Options, SKIPPED};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;
use schemas::{Published, definitions, misspelt};
use serde_json::{Value, json};

/// All manifests for a cluster.
fn for_clusters() -> Result<Vec<Value>> {
    let kubernetes = Manifests::kubernetes()?.map_or_else(Vec::new, |manifests| manifests.0);
    Ok([kubernetes, Manifests::read("istio.yaml")?.0, Manifests::read("envoy-gateway.yaml")?.0].concat())
}

#[test]
fn every_manifest_is_what_its_schema_says() -> Result<()> {
    let mut published = Published::read()?;
    let mut checked = vec![(Manifests::read("compose.yaml")?.the_only()?, published.compose)];
    let definitions = definitions();
    for manifest in for_clusters()? {
        match published.schema(&manifest, definitions.as_deref()) {
            Ok(schema) => checked.push((manifest, schema)),
            Err(none) => println!("{SKIPPED}{none}"),
        }
    }
    for (manifest, schema) in checked {
        assert_eq!(published.wrong(&manifest, schema), None, "{manifest}");
        for misspelt in misspelt(&manifest) {
            assert!(published.wrong(&misspelt, schema).is_some(), "nobody minds: {misspelt}");
        }
    }
    Ok(())
}

#[test]
fn no_manifest_has_a_secret_in_it() -> Result<()> {
    for manifest in for_clusters()? {
        assert_ne!(manifest["kind"], "Secret");
        for variable in every(&manifest, "env").into_iter().flat_map(each) {
            let by_reference = variable["valueFrom"] == "HOST" || variable["valueFrom"]["secretKeyRef"].is_object();
            assert!(variable.is_string() || by_reference, "{variable} in {manifest}");
        }
    }
    Ok(())
}

#[test]
fn the_parts_for_istio_find_each_other() -> Result<()> {
    let manifests = Manifests::read("istio.yaml")?;
    let the =
        |kind, path: &str| Ok::<_, anyhow::Error>(manifests.the(kind)?.pointer(path).cloned().unwrap_or_default());
    let labels = the("Deployment", "/spec/template/metadata/labels")?;
    for (kind, path) in [
        ("Deployment", "/spec/selector/matchLabels"),
        ("Service", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("Gateway", "/spec/selector"),
        ("WasmPlugin", "/spec/selector/matchLabels"),
        ("EnvoyFilter", "/spec/workloadSelector/labels"),
    ] {
        let selector = the(kind, path)?;
        let selector = selector.as_object().with_context(|| format!("{kind} selects nothing"))?;
        assert!(!selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value), "{kind}");
    }
    for (kind, path, other, other_path) in [
        ("VirtualService", "/spec/gateways/0", "Gateway", "/metadata/name"),
        ("VirtualService", "/spec/hosts", "Gateway", "/spec/servers/0/hosts"),
        ("VirtualService", "/spec/http/0/route/0/destination/host", "ServiceEntry", "/spec/hosts/0"),
        ("VirtualService", "/spec/http/0/route/0/destination/port/number", "ServiceEntry", "/spec/ports/0/number"),
        ("DestinationRule", "/spec/host", "ServiceEntry", "/spec/hosts/0"),
        ("Role", "/rules/0/resourceNames/0", "Gateway", "/spec/servers/0/tls/credentialName"),
        ("RoleBinding", "/roleRef/name", "Role", "/metadata/name"),
        ("RoleBinding", "/subjects/0/name", "ServiceAccount", "/metadata/name"),
        ("Deployment", "/spec/template/spec/serviceAccountName", "ServiceAccount", "/metadata/name"),
        ("Service", "/spec/ports/0/port", "Gateway", "/spec/servers/0/port/number"),
    ] {
        assert_eq!(the(kind, path)?, the(other, other_path)?, "{kind}{path}, {other}{other_path}");
    }
    Ok(())
}

#[test]
fn the_parts_for_envoy_gateway_find_each_other() -> Result<()> {
    let manifests = Manifests::read("envoy-gateway.yaml")?;
    let mut references = 0;
    for manifest in &manifests.0 {
        let keys = ["parametersRef", "parentRefs", "targetRefs", "backendRefs"];
        let lists = keys.iter().flat_map(|key| every(manifest, key));
        for reference in lists.flat_map(|found| if found.is_array() { each(found).collect() } else { vec![found] }) {
            let kind = reference["kind"].as_str().unwrap_or("Gateway");
            let target = manifests.the(kind)?;
            assert_eq!(target["metadata"]["name"], reference["name"], "{reference}");
            let group = reference["group"].as_str().unwrap_or("gateway.networking.k8s.io");
            assert!(target["apiVersion"].as_str().is_some_and(|version| version.starts_with(group)), "{reference}");
            references += 1;
        }
    }
    // All but the Gateway and its class are found by another.
    assert_eq!(references, manifests.0.len() - 1);
    Ok(())
}

#[test]
fn the_images_are_of_the_version_that_is_tested() -> Result<()> {
    let tag = concat!("/stigg-segment-filter:", env!("CARGO_PKG_VERSION"));
    let istio = Manifests::read("istio.yaml")?;
    let gateway = Manifests::read("envoy-gateway.yaml")?;
    for url in [
        &istio.the("WasmPlugin")?["spec"]["url"],
        &gateway.the("EnvoyExtensionPolicy")?["spec"]["wasm"][0]["code"]["image"]["url"],
    ] {
        assert!(url.as_str().is_some_and(|url| url.ends_with(tag)), "{url}");
    }
    for file in ["compose.yaml", "kubernetes/deployment.yaml"] {
        let manifest = Manifests::read(file)?.the_only()?;
        assert_eq!(every(&manifest, "image"), [&json!(format!("envoyproxy/envoy:v{ENVOY_VERSION}"))], "{file}");
    }
    Ok(())
}

/// The secrets that a manifest can refer to, by their key in the Kubernetes Secret.
const SECRETS: [(&str, &str); 3] = [
    ("SEGMENT_WRITE_KEY", WRITE_KEY),
    ("STIGG_WEBHOOK_SECRET", SECRET),
    ("STIGG_WEBHOOK_SECRET_PREVIOUS", PREVIOUS_SECRET),
];

/// The environment of a container, from the Secret that the page on deployment has one create, and from nothing else.
fn environment(container: &Value) -> Result<Options> {
    let secrets = BTreeMap::from(SECRETS);
    let mut options = Options::default();
    for variable in each(&container["env"]) {
        let reference = &variable["valueFrom"]["secretKeyRef"];
        assert_eq!(reference["name"], "stigg-segment", "{variable}");
        let key = reference["key"].as_str().context("a reference has a key")?;
        options = options.env(variable["name"].as_str().context("a variable has a name")?, secrets[key]);
    }
    Ok(options)
}

/// Sends a webhook to a gateway that knows the host of the manifests.
async fn ask(edge: &Edge, request: String) -> Result<Response> {
    let mut connection = edge.connect().await?;
    connection.send(request.replace("host: edge", &format!("host: {HOST}"))).await?;
    connection.response().await
}

/// The host that manifests stand for one's own with.
const HOST: &str = "webhooks.example.com";

/// An event that is not about a customer, nearly as large as the filter takes.
fn large_catalog_event() -> String {
    format!(r#"{{"type":"plan.created","x":"{}"}}"#, "x".repeat(500 * 1024))
}

/// What is true of every deployment: who may send, what is sent, and that nothing else reaches Segment.
async fn forwards_ignores_and_refuses(edge: &Edge, besides: &[&str]) -> Result<()> {
    let large = large_catalog_event();
    for event in [CATALOG_EVENT, &large].into_iter().take(if refuses_large_bodies().await? { 1 } else { 2 }) {
        assert_eq!(ask(edge, post(event)).await?.status, 204);
        assert_eq!(ask(edge, post_chunked(event, 10_000)).await?.status, 204);
    }
    let refused = ask(edge, post(EVENT).replace(SECRET, "wrong")).await?;
    assert!(refused.status == 401 && refused.body.contains("unauthorized"), "{refused:?}");
    assert_eq!(edge.segment.connections(), 0);

    for secret in [SECRET, PREVIOUS_SECRET] {
        edge.segment.clear();
        let reply = ask(edge, post(EVENT).replace(SECRET, secret)).await?;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"success":true}"#));
        let call = &edge.segment.wait_for(1, PATIENCE).await?[0];
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/v1/track"));
        assert_eq!((call.sni.as_deref(), call.host.as_deref()), (Some("api.segment.io"), Some("api.segment.io")));
        assert_eq!(call.write_key.as_deref(), Some(WRITE_KEY));
        assert_eq!(call.json()["properties"], serde_json::from_str::<Value>(EVENT)?);
        let mut expected =
            BTreeSet::from(["authorization", "content-length", "content-type", "user-agent", "x-request-id"]);
        expected.extend(besides);
        let names: BTreeSet<_> = call.headers.keys().map(|name| name.as_str()).filter(|name| *name != "host").collect();
        assert_eq!(names, expected);
    }
    Ok(())
}

/// Envoy sends again what Segment could not take, and not what it would not.
async fn retries(edge: &Edge) -> Result<()> {
    for (status, calls) in [(503, 2), (429, 2), (400, 1)] {
        edge.segment.clear();
        edge.segment.script([Behaviour::Answer { status, headers: vec![], body: String::new(), accept: false }]);
        let reply = ask(edge, post(EVENT)).await?;
        assert_eq!(reply.status, if calls == 1 { status } else { 200 });
        assert_eq!(edge.segment.calls().len(), calls, "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn the_envoy_that_istio_configures_forwards_ignores_and_refuses() -> Result<()> {
    let manifests = Manifests::read("istio.yaml")?;
    let segment = Segment::start().await?;
    let config = istio::config(&manifests, &segment)?;
    let container = &manifests.the("Deployment")?["spec"]["template"]["spec"]["containers"][0];
    let edge = Edge { envoy: Envoy::start(config, environment(container)?).await?, segment };
    forwards_ignores_and_refuses(&edge, &[]).await?;
    retries(&edge).await?;
    for (request, status, code) in [
        (request("GET", "", ""), 405, "method_not_allowed"),
        (post(EVENT).replace(PATH, "/elsewhere"), 404, "not_found"),
    ] {
        let reply = ask(&edge, request).await?;
        let body: Value = serde_json::from_str(&reply.body)?;
        assert_eq!((reply.status, &body["code"]), (status, &json!(code)));
        assert!(reply.head.contains("content-type: application/json"), "{reply:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_envoy_that_envoy_gateway_configures_forwards_ignores_and_refuses() -> Result<()> {
    let manifests = Manifests::read("envoy-gateway.yaml")?;
    let segment = Segment::start().await?;
    let config = envoy_gateway::config(&manifests, &segment)?;
    let proxy = &manifests.the("EnvoyProxy")?["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"];
    let edge = Edge { envoy: Envoy::start(config, environment(proxy)?).await?, segment };
    forwards_ignores_and_refuses(&edge, &["x-forwarded-host"]).await?;
    retries(&edge).await?;
    // The filter runs for no other route.
    assert_eq!(ask(&edge, request("GET", "", "")).await?.status, 404);
    Ok(())
}

/// A container starts as it is, and its Envoy does what envoy.yaml says.
async fn runs(container: Container) -> Result<Edge> {
    let output = container.validate()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("[error]"), "{said}");
    let segment = Segment::start().await?;
    let edge = Edge { envoy: container.start(&segment).await?, segment };
    forwards_ignores_and_refuses(&edge, &[]).await?;
    Ok(edge)
}

#[tokio::test]
async fn the_container_on_kubernetes_runs_what_is_shipped() -> Result<()> {
    let Some(manifests) = Manifests::kubernetes()? else { return Ok(()) };
    let pod = &manifests.the("Deployment")?["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let edge = runs(Container::of_deployment(&manifests, environment(container)?)?).await?;

    let ports = &container["ports"][0];
    assert_eq!(ports["containerPort"], container::port()?);
    assert_eq!(manifests.the("Service")?["spec"]["ports"][0]["targetPort"], ports["name"]);
    for probe in ["startupProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        let path = get["path"].as_str().context("a path")?;
        let answer = Webhook::new("").method("GET".parse()?).send(&edge.envoy.url(path)).await?;
        assert_eq!((answer.status, &get["port"]), (200, &ports["name"]), "{probe}");
    }
    for (kind, path) in [
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("Service", "/spec/selector"),
        ("Deployment", "/spec/selector/matchLabels"),
    ] {
        let labels = manifests.the("Deployment")?.pointer("/spec/template/metadata/labels");
        assert_eq!(manifests.the(kind)?.pointer(path), labels, "{kind}");
    }
    let scaled = &manifests.the("HorizontalPodAutoscaler")?["spec"]["scaleTargetRef"];
    assert_eq!(scaled["name"], manifests.the("Deployment")?["metadata"]["name"]);
    Ok(())
}

#[tokio::test]
async fn the_container_of_docker_compose_runs_what_is_shipped() -> Result<()> {
    let service = &Manifests::read("compose.yaml")?.the_only()?["services"]["envoy"];
    let edge = runs(Container::of_compose(service, container::from_environment(service, &SECRETS)?)?).await?;
    assert_eq!(service["ports"], json!([format!("${{PORT:-10000}}:{}", container::port()?)]));

    let [shell, flag, script] = &texts(&service["healthcheck"]["test"])[1..] else { panic!("{service}") };
    let webhooks = edge.envoy.url("");
    let (_, port) = webhooks.rsplit_once(':').unwrap();
    let script = script.replace(&format!("/{}", container::port()?), &format!("/{port}"));
    let healthy = || Ok::<_, anyhow::Error>(Command::new(shell).args([flag, script.as_str()]).status()?.success());
    assert!(healthy()?);
    edge.envoy.admin_post("/healthcheck/fail").await?;
    assert!(!healthy()?);
    Ok(())
}
