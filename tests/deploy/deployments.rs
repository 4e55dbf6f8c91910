//! The deployments in deploy/: the Envoy of each does its job.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result};
use base64ct::{Base64, Encoding};
use sandbox::envoy::{Config, Envoy, Options, Shell};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;
use sandbox::{image, workspace_root};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::edge::*;
use tests::manifests::*;
use tests::tools::tool;
use tokio::io::AsyncReadExt;

use crate::container::{self, Container, Secret};
use crate::{envoy_gateway, istio};

/// The secrets that a manifest can refer to, by their key in the Kubernetes Secret.
const SECRETS: [(&str, &str); 3] = [
    ("SEGMENT_WRITE_KEY", WRITE_KEY),
    ("STIGG_WEBHOOK_SECRET", SECRET),
    ("STIGG_WEBHOOK_SECRET_PREVIOUS", PREVIOUS_SECRET),
];

/// The environment of a container, only from the Secret that the page on deployment creates.
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

/// Sends a webhook for the host name in the manifests.
async fn ask(edge: &Edge, request: String) -> Result<Response> {
    let mut connection = edge.connect().await?;
    connection.send(request.replace("host: edge", &format!("host: {HOST}"))).await?;
    connection.response().await
}

/// The host name that the manifests use as an example.
const HOST: &str = "webhooks.example.com";

/// Bodies can be about as large as the filter's limit.
async fn takes_large_bodies(edge: &Edge) -> Result<()> {
    let event = format!(r#"{{"type":"plan.created","x":"{}"}}"#, "x".repeat(500 * 1024));
    for request in [post(&event), post_chunked(&event, 10_000)] {
        assert_eq!(ask(edge, request).await?.status, 204);
    }
    Ok(())
}

/// What is true of every deployment: who may send, what is sent, and that nothing else reaches Segment.
async fn forwards_ignores_and_rejects(edge: &Edge, besides: &[&str]) -> Result<()> {
    for request in [post(CATALOG_EVENT), post_chunked(CATALOG_EVENT, 7)] {
        assert_eq!(ask(edge, request).await?.status, 204);
    }
    for (request, status, code) in [
        (post(EVENT).replace(SECRET, "wrong"), 401, "unauthorized"),
        (post("{"), 400, "malformed_json"),
        (request("GET", "", ""), 405, "method_not_allowed"),
    ] {
        let rejected = ask(edge, request).await?;
        assert!(rejected.status == status && rejected.body.contains(code), "{rejected:?}");
    }
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

/// Envoy retries retryable answers, and no others.
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
async fn the_envoy_that_istio_configures_forwards_ignores_and_rejects() -> Result<()> {
    let manifests = Manifests::read("istio.yaml")?;
    let segment = Segment::start().await?;
    let config = istio::config(&manifests, &segment)?;
    let container = &manifests.the("Deployment")?["spec"]["template"]["spec"]["containers"][0];
    let edge = Edge { envoy: Envoy::start(config, environment(container)?).await?, segment };
    forwards_ignores_and_rejects(&edge, &[]).await?;
    takes_large_bodies(&edge).await?;
    retries(&edge).await?;
    let elsewhere = ask(&edge, post(EVENT).replace(PATH, "/elsewhere")).await?;
    assert!(elsewhere.status == 404 && elsewhere.body.contains("not_found"), "{elsewhere:?}");
    assert!(elsewhere.head.contains("content-type: application/json"), "{elsewhere:?}");
    Ok(())
}

#[tokio::test]
async fn the_envoy_that_envoy_gateway_configures_forwards_ignores_and_rejects() -> Result<()> {
    envoy_gateway_forwards_ignores_and_rejects(Shell::Wasm).await
}

#[tokio::test]
async fn the_envoy_that_envoy_gateway_configures_with_the_dynamic_module_does_too() -> Result<()> {
    if is_too_old((1, 38), "dynamic modules").await? {
        return Ok(());
    }
    envoy_gateway_forwards_ignores_and_rejects(Shell::Native).await
}

async fn envoy_gateway_forwards_ignores_and_rejects(shell: Shell) -> Result<()> {
    let manifests = Manifests::read_for(shell, "envoy-gateway.yaml")?;
    let segment = Segment::start().await?;
    let config = envoy_gateway::config(&manifests, &segment)?;
    let proxy = &manifests.the("EnvoyProxy")?["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"];
    let edge = Edge { envoy: Envoy::start(config, environment(proxy)?).await?, segment };
    forwards_ignores_and_rejects(&edge, &["x-forwarded-host"]).await?;
    takes_large_bodies(&edge).await?;
    retries(&edge).await?;
    // The filter does not run for other paths.
    assert_eq!(ask(&edge, post(EVENT).replace(PATH, "/elsewhere")).await?.status, 404);
    Ok(())
}

/// Without the filter no webhook reaches Segment, not even one that claims to have been mapped.
async fn is_closed_without_the_filter(edge: &Edge) -> Result<()> {
    let forged = "x-stigg-segment-filter: admitted\r\nstigg_mapped: true\r\nwasm.stigg_mapped: true\r\n";
    for request in [
        post(EVENT),
        post(CATALOG_EVENT),
        post("{"),
        post_chunked(EVENT, 7),
        request("POST", &format!("{forged}content-length: {}\r\n", EVENT.len()), EVENT),
    ] {
        let reply = ask(edge, request).await?;
        assert!(reply.status == 503 && reply.body.contains("filter_missing"), "{reply:?}");
        assert!(reply.head.contains("content-type: application/json"), "{reply:?}");
    }
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn without_the_wasm_plugin_istio_sends_nothing_to_segment() -> Result<()> {
    let manifests = Manifests::read("istio.yaml")?.without("WasmPlugin");
    let segment = Segment::start().await?;
    let envoy = Envoy::start(istio::config(&manifests, &segment)?, Options::default()).await?;
    is_closed_without_the_filter(&Edge { envoy, segment }).await?;

    // Without the EnvoyFilter, a header decides: Stigg does not send it.
    let segment = Segment::start().await?;
    let envoy = Envoy::start(istio::config(&manifests.without("EnvoyFilter"), &segment)?, Options::default()).await?;
    let edge = Edge { envoy, segment };
    let reply = ask(&edge, post(EVENT)).await?;
    assert!(reply.status == 503 && reply.body.contains("filter_missing"), "{reply:?}");
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn without_the_extension_policy_envoy_gateway_sends_nothing_to_segment() -> Result<()> {
    let manifests = Manifests::read("envoy-gateway.yaml")?.without("EnvoyExtensionPolicy");
    let segment = Segment::start().await?;
    let envoy = Envoy::start(envoy_gateway::config(&manifests, &segment)?, Options::default()).await?;
    is_closed_without_the_filter(&Edge { envoy, segment }).await
}

#[tokio::test]
async fn without_its_request_buffer_envoy_gateway_sends_neither_the_secret_nor_a_rejected_event() -> Result<()> {
    let mut manifests = Manifests::read("envoy-gateway.yaml")?;
    let policies = manifests.0.iter_mut().filter(|manifest| manifest["kind"] == "BackendTrafficPolicy");
    policies.for_each(|policy| policy["spec"]["requestBuffer"] = Value::Null);
    let proxy = &manifests.the("EnvoyProxy")?["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"];
    only_the_head_of_a_rejected_event_reaches_segment(
        envoy_gateway::config(&manifests, &Segment::start().await?)?,
        environment(proxy)?,
    )
    .await
}

#[tokio::test]
async fn without_its_envoy_filter_istio_sends_neither_the_secret_nor_a_rejected_event() -> Result<()> {
    let manifests = Manifests::read("istio.yaml")?.without("EnvoyFilter");
    let container = &manifests.the("Deployment")?["spec"]["template"]["spec"]["containers"][0];
    only_the_head_of_a_rejected_event_reaches_segment(
        istio::config(&manifests, &Segment::start().await?)?,
        environment(container)?,
    )
    .await
}

/// Where only a header chooses the route, it is chosen before the event is read. If nothing holds the request, the head
/// of one with a valid secret reaches Segment although its event is rejected; neither the secret nor the event does.
async fn only_the_head_of_a_rejected_event_reaches_segment(config: Config, options: Options) -> Result<()> {
    // It takes down whatever comes, also of a request that does not end.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let socket = json!({ "address": "127.0.0.1", "port_value": listener.local_addr()?.port() });
    let cluster = sandbox::envoy::SEGMENT_CLUSTER;
    let endpoint = format!("{cluster}/load_assignment/endpoints/0/lb_endpoints/0/endpoint");
    let config = config
        .remove(&format!("{cluster}/transport_socket"))?
        .set(&format!("{endpoint}/address/socket_address"), socket)?;
    let edge = Edge { envoy: Envoy::start(config, options).await?, segment: Segment::start().await? };

    let unmapped = [CATALOG_EVENT, "{\"type\": \"customer.payment_failed", "[\"private\"]"];
    for (body, status) in unmapped.into_iter().zip([204, 400, 400]) {
        let chunked = post_chunked(body, 7).replace("host: edge", &format!("host: {HOST}"));
        let (head, body) = chunked.split_at(chunked.find("\r\n\r\n").context("a head")? + 4);
        let exchange = async {
            let mut stigg = edge.connect().await?;
            stigg.send(head).await?;
            let (mut segment, _) = listener.accept().await?;
            let mut received = Vec::new();
            while !received.ends_with(b"\r\n\r\n") {
                received.push(segment.read_u8().await?);
            }
            stigg.send(body).await?;
            let reply = stigg.response().await?;
            let _ = segment.read_to_end(&mut received).await; // Envoy resets what it does not finish
            Ok::<_, anyhow::Error>((reply, String::from_utf8(received)?.to_lowercase()))
        };
        let (reply, received) = tokio::time::timeout(PATIENCE, exchange).await??;
        assert_eq!(reply.status, status, "{body}");
        assert!(received.starts_with("post /v1/track http/1.1\r\n"), "{received}");
        assert!(received.ends_with("\r\n\r\n") && received.matches("\r\n\r\n").count() == 1, "{received}");
        assert!(!received.contains(SECRET) && !received.contains("x-stigg-segment-filter"), "{received}");
    }
    // A stranger's request does not get there at all.
    assert_eq!(ask(&edge, post(EVENT).replace(SECRET, "wrong")).await?.status, 401);
    let more = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await;
    assert!(more.is_err(), "a request without the secret reached Segment");
    Ok(())
}

/// A container starts unchanged, and its Envoy follows envoy.yaml.
async fn runs(container: &Container) -> Result<Edge> {
    let output = container.validate()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("[error]"), "{said}");
    let segment = Segment::start().await?;
    let edge = Edge { envoy: container.start(&segment).await?, segment };
    forwards_ignores_and_rejects(&edge, &[]).await?;
    if !rejects_large_bodies().await? {
        takes_large_bodies(&edge).await?;
    }
    Ok(edge)
}

/// The Secret that the page on deployment makes.
fn secret(write_key: &str, webhook_secrets: &str) -> Result<Secret> {
    let page = std::fs::read_to_string(workspace_root().join("docs/deployment.md"))?.replace("\\\n", "");
    let made = page.lines().find(|line| line.starts_with("kubectl create secret generic")).context("no command")?;
    let mut shell = tool("sh")?;
    shell.args(["-c", &format!("{made} --dry-run=client --output=json")]);
    let output = shell.env("SEGMENT_WRITE_KEY", write_key).env("STIGG_WEBHOOK_SECRET", webhook_secrets).output()?;
    let secret: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let data = secret["data"].as_object().context("no data")?;
    data.iter()
        .map(|(key, value)| {
            Ok((key.clone(), String::from_utf8(Base64::decode_vec(value.as_str().context("a text")?)?)?))
        })
        .collect()
}

/// The image of the modules with what was built for this machine, unpacked.
fn modules() -> Result<TempDir> {
    let (folder, layout) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let target = workspace_root().join("target");
    let processor = image::Processor {
        name: "amd64",
        library: target.join("native/libstigg_segment.so"),
        copy: target.join("copy").join(std::env::consts::ARCH).join("copy"),
    };
    let wasm = Config::shipped()?.module_file()?;
    image::write_modules(&wasm, &[processor], env!("CARGO_PKG_VERSION"), layout.path())?;
    crate::image::unpack(layout.path(), folder.path())?;
    Ok(folder)
}

#[tokio::test]
async fn the_pod_of_the_chart_runs_what_is_shipped() -> Result<()> {
    if reads_no_secrets_from_files().await? {
        return Ok(());
    }
    let (secret, image) = (secret(WRITE_KEY, &[SECRET, PREVIOUS_SECRET].join("\n"))?, modules()?);
    for values in RENDERINGS {
        let container = Container::of_deployment(&Manifests::chart(values)?, &secret, image.path())?;
        let output = container.validate()?;
        assert!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // The dynamic module, from a volume.
    runs(&Container::of_deployment(&Manifests::chart(RENDERINGS[1])?, &secret, image.path())?).await?;
    let manifests = Manifests::chart(&[])?;
    let pod = &manifests.the("Deployment")?["spec"]["template"]["spec"];
    let started = Container::of_deployment(&manifests, &secret, image.path())?;
    let edge = runs(&started).await?;
    let container = &pod["containers"][0];

    let [ports, metrics] = &each(&container["ports"]).collect::<Vec<_>>()[..] else { panic!("{container}") };
    assert_eq!(ports["containerPort"], container::port()?);
    assert_eq!(manifests.the("Service")?["spec"]["ports"][0]["targetPort"], ports["name"]);
    let annotations = &manifests.the("Deployment")?["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], json!(metrics["containerPort"].to_string()));
    let path = annotations["prometheus.io/path"].as_str().context("no path")?;
    let scrape = async |method: &str, path: &str| {
        let address = edge.envoy.addr("metrics").context("no metrics")?;
        Webhook::new("").method(method.parse()?).send(&format!("http://{address}{path}")).await
    };
    assert!(scrape("GET", path).await?.text().contains("stigg_segment_webhooks{"));
    for (method, path) in [("POST", "/quitquitquit"), ("GET", "/config_dump"), ("POST", path)] {
        assert_eq!(scrape(method, path).await?.status, 404, "{method} {path}");
    }
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
    let Value::Array(stop) = &container["lifecycle"]["preStop"]["exec"]["command"] else { panic!("{container}") };
    let [Value::String(_), Value::String(seconds)] = &stop[..] else { panic!("{stop:?}") };
    let grace = pod["terminationGracePeriodSeconds"].as_u64().context("no grace period")?;
    assert!(grace > seconds.parse::<u64>()? + container::stop_seconds()?, "killed while it drains");
    let heap = container::largest_heap()?;
    assert!(bytes(&container["resources"]["limits"]["memory"])? > heap, "killed before Envoy sheds load");
    let scaled = Manifests::chart(RENDERINGS[3])?;
    assert_eq!(
        scaled.the("HorizontalPodAutoscaler")?["spec"]["scaleTargetRef"]["name"],
        scaled.the("Deployment")?["metadata"]["name"]
    );
    assert_eq!(scaled.the("Deployment")?["spec"]["replicas"], Value::Null, "the autoscaler sets it");
    Ok(())
}

#[tokio::test]
async fn a_change_of_the_secret_in_kubernetes_reaches_the_pod_without_a_failed_request() -> Result<()> {
    if reads_no_secrets_from_files().await? {
        return Ok(());
    }
    const NEW_SECRET: &str = "whsec-next-91c0";
    const NEW_KEY: &str = "wkABCDEFGHIJKLMNOPQRSTUVWXYZ0123";
    let image = modules()?;
    let container = Container::of_deployment(&Manifests::chart(&[])?, &secret(WRITE_KEY, SECRET)?, image.path())?;
    let segment = Segment::start().await?;
    let edge = Arc::new(Edge { envoy: container.start(&segment).await?, segment });
    let (rotated, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: tokio::task::JoinHandle<Result<()>> = tokio::spawn({
        let (edge, rotated, answered) = (edge.clone(), rotated.clone(), answered.clone());
        async move {
            loop {
                let secret = if rotated.load(Relaxed) { NEW_SECRET } else { SECRET };
                let reply = Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?;
                anyhow::ensure!(reply.status == 200, "{reply:?}");
                answered.fetch_add(1, Relaxed);
            }
        }
    });
    let status =
        async |secret| anyhow::Ok(Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?.status);
    let some_more = async || {
        let enough = answered.load(Relaxed) + 50;
        eventually("50 more answers", async || Ok(answered.load(Relaxed) >= enough || load.is_finished())).await
    };
    let has_new_key = || edge.segment.calls().last().is_some_and(|call| call.write_key.as_deref() == Some(NEW_KEY));
    for (write_key, secrets) in [(WRITE_KEY, [NEW_SECRET, SECRET].join("\n")), (NEW_KEY, NEW_SECRET.to_owned())] {
        Container::change(container.folder(), &secret(write_key, &secrets)?)?;
        eventually("the new secret is valid", async || Ok(status(NEW_SECRET).await? == 200)).await?;
        some_more().await?;
        rotated.store(true, Relaxed); // Stigg uses it from now on
        some_more().await?;
    }
    eventually("the old secret is rejected", async || Ok(status(SECRET).await? == 401)).await?;
    eventually("the new write key is used", async || Ok(has_new_key() || load.is_finished())).await?;
    assert!(!load.is_finished(), "a request failed: {:?}", load.await);
    load.abort();
    Ok(())
}

#[tokio::test]
async fn connections_to_the_metrics_are_bounded_and_take_none_from_the_webhooks() -> Result<()> {
    const MOST: u64 = 16;
    if reads_no_secrets_from_files().await? {
        return Ok(());
    }
    let segment = Segment::start().await?;
    let image = modules()?;
    let container = Container::of_deployment(&Manifests::chart(&[])?, &secret(WRITE_KEY, SECRET)?, image.path())?;
    let envoy = container.start_with(&segment, |config| config.set(MOST_CONNECTIONS, json!(MOST + 4))).await?;
    let edge = Edge { envoy, segment };
    let metrics = edge.envoy.addr("metrics").context("no metrics")?;
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(Connection::open(metrics).await?);
    }
    let active = "http.metrics.downstream_cx_active";
    edge.envoy.wait_for_stat(active, MOST, PATIENCE).await?;
    // The last one is closed, so Envoy has seen them all.
    assert_eq!(idle.last_mut().context("none")?.closed().await?, "");
    assert_eq!(edge.envoy.stat(active).await?, MOST);
    for _ in 0..3 {
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
    }
    Ok(())
}

#[tokio::test]
async fn the_container_of_docker_compose_runs_what_is_shipped() -> Result<()> {
    let service = &Manifests::read("compose.yaml")?.the_only()?["services"]["envoy"];
    if reads_no_secrets_from_files().await? {
        return Ok(());
    }
    let both = [SECRET, PREVIOUS_SECRET].join("\n");
    let container = Container::of_compose(service, &[("segment", WRITE_KEY), ("stigg", &both)])?;
    let edge = runs(&container).await?;
    assert_eq!(service["ports"], json!([format!("${{PORT:-10000}}:{}", container::port()?)]));

    let grace = service["stop_grace_period"].as_str().and_then(|period| period.strip_suffix('s'));
    assert!(grace.context("no grace period")?.parse::<u64>()? > container::stop_seconds()?, "killed while it drains");
    let limit = service["mem_limit"].as_str().and_then(|limit| limit.strip_suffix('m')).context("no limit in MiB")?;
    assert!(limit.parse::<u64>()? << 20 > container::largest_heap()?, "killed before Envoy sheds load");

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
