//! The deployments in deploy/: the Envoy of each does its job.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};
use base64ct::{Base64, Encoding};
use sandbox::envoy::{Config, Envoy, Options, Shell};
use sandbox::segment::Segment;
use sandbox::stigg::Webhook;
use sandbox::{image, workspace_root};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::case_runner::hold_to;
use tests::cases::{KEYS_SOURCE, cases};
use tests::deployed::*;
use tests::edge::*;
use tests::manifests::*;
use tests::openings::MARK;
use tests::tools::tool;
use tests::translated::Translated;
use tests::volume::project;

use crate::container::{self, Container, Secret};

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

/// Envoy as Istio configures it.
async fn on_istio() -> Result<Edge> {
    let manifests = Manifests::read("istio.yaml")?;
    let container = &manifests.the("Deployment")?["spec"]["template"]["spec"]["containers"][0];
    let segment = Segment::start().await?;
    let config = Translated::by_istio()?.config(Shell::Wasm, &segment)?;
    Ok(Edge { envoy: Envoy::start(config, environment(container)?).await?, segment })
}

/// Envoy as Istio configures it for the manifest with all its variants, with this Secret.
async fn on_istio_with_variants(secret: &Secret) -> Result<(Edge, Container)> {
    let manifests = Manifests::variant("istio.yaml", &ISTIO_VARIANTS)?;
    let container = Container::of_deployment(&manifests, secret, "".as_ref())?;
    let segment = Segment::start().await?;
    let config = Translated::by_istio_with_variants()?.config(Shell::Wasm, &segment)?;
    let config = config.to_string();
    // Istio's Envoy is built without it.
    assert!(!config.contains("envoy.formatter.generic_secret"));
    let config = config.replace(r#"\"main\""#, &format!(r#"\"{KEYS_SOURCE}\""#));
    let config = Config::from_yaml(&container.here(&config))?;
    Ok((Edge { envoy: Envoy::start(config, Options::default()).await?, segment }, container))
}

/// Everything that is tested of it: the cases, and what every deployment does.
async fn does_its_job(edge: &Edge, besides: &[&str]) -> Result<()> {
    forwards_ignores_and_rejects(edge, besides).await?;
    hold_to(cases()?, edge, |_, outcome| {
        let calls = outcome.call.iter_mut();
        calls.for_each(|call| call.headers.retain(|(name, _)| !besides.contains(&name.as_str())));
        Ok(())
    })
    .await?;
    takes_large_bodies(edge).await?;
    retries(edge).await
}

async fn istio_does_its_job(edge: &Edge) -> Result<()> {
    does_its_job(edge, &[]).await?;
    // The filter runs for every path.
    let elsewhere = edge.ask(post(EVENT).replace(PATH, "/elsewhere")).await?;
    assert!(elsewhere.status == 404 && elsewhere.body.contains("not_found"), "{elsewhere:?}");
    assert!(elsewhere.head.contains("content-type: application/json"), "{elsewhere:?}");
    let stranger = edge.ask(post(EVENT).replace(PATH, "/elsewhere").replace(SECRET, "wrong")).await?;
    assert!(stranger.status == 401 && stranger.body.contains("unauthorized"), "{stranger:?}");
    Ok(())
}

#[tokio::test]
async fn the_envoy_that_istio_configures_does_its_job() -> Result<()> {
    istio_does_its_job(&on_istio().await?).await
}

#[tokio::test]
async fn the_envoy_that_istio_configures_from_the_variants_does_its_job() -> Result<()> {
    let secret = SECRETS.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    istio_does_its_job(&on_istio_with_variants(&secret).await?.0).await
}

/// Istio's Envoy leaves both to who is upstream, which gets nothing before the event is mapped.
#[tokio::test]
async fn the_filter_answers_what_nobody_else_would_under_istio() -> Result<()> {
    let edge = on_istio().await?;
    for (headers, status, code) in [
        ("expect: 100-continue\r\ncontent-length: 10\r\n", 417, "expectation_failed"),
        ("connection: Upgrade\r\nupgrade: websocket\r\n", 400, "upgrade_not_supported"),
    ] {
        let reply = edge.ask(request("POST", headers, "")).await?;
        assert!(reply.status == status && reply.body.contains(code), "{reply:?}");
    }
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

/// Istio's agent puts another filter in the place of one whose image it cannot fetch.
#[tokio::test]
async fn without_the_filters_image_istios_gateway_rejects_everything() -> Result<()> {
    let mut translated = Translated::by_istio()?;
    translated.0["plugins"] = translated.0["plugins_without_images"].take();
    let segment = Segment::start().await?;
    let config = translated.config(Shell::Wasm, &segment)?;
    let edge = Edge { envoy: Envoy::start(config, Options::default()).await?, segment };
    let (mark, value) = MARK;
    for webhook in [Webhook::new(EVENT), Webhook::new(EVENT).header(mark, value)] {
        let reply = edge.send(webhook.secret(SECRET)).await?;
        assert_eq!((reply.status, reply.text()), (403, "RBAC: access denied".into()));
    }
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn a_slow_sender_is_bounded_under_istio() -> Result<()> {
    bounds_a_slow_sender(&on_istio().await?).await
}

/// On Istio's own Envoy, its filters add headers. They say that they add none for a host outside the mesh.
#[test]
fn istios_filters_send_segment_nothing_about_the_mesh() -> Result<()> {
    let mut translated = Translated::by_istio()?;
    let cluster = &translated.cluster()?["metadata"]["filter_metadata"]["istio"];
    assert_eq!(cluster["external"], true);
    let manager = translated.connection_manager()?;
    let own: Vec<_> = each(&manager["http_filters"])
        .filter(|filter| filter["name"].as_str().is_some_and(|name| name.starts_with("istio.")))
        .collect();
    let names: Vec<_> = own.iter().map(|filter| filter["name"].as_str()).collect();
    assert_eq!(names, [Some("istio.metadata_exchange"), Some("istio.alpn")]); // the latter chooses a protocol
    let propagation = &own[0]["typed_config"]["value"]["upstream_propagation"];
    assert_eq!(*propagation, json!([{ "istio_headers": { "skip_external_clusters": true } }]));
    Ok(())
}

/// The rows of "What differs" that say what the gateways make of the manifests.
#[test]
fn the_page_says_what_the_gateways_make() -> Result<()> {
    let page = tests::pages::read("docs/deployment.md")?;
    let row = |name: &str| {
        let line =
            page.lines().find(|line| line.starts_with(&format!("| {name} |"))).with_context(|| name.to_owned())?;
        anyhow::Ok(line.split(" | ").map(|cell| cell.trim_matches(['|', ' ']).to_owned()).collect::<Vec<_>>())
    };
    let kilobytes = |limit: &Value| match limit.as_u64() {
        Some(limit) if limit < 1 << 20 => format!("{} KiB", limit >> 10),
        Some(limit) => format!("{} MiB", limit >> 20),
        None => "1 MiB".to_owned(), // Envoy's default
    };
    let codes = |made: &Translated| {
        let codes = every(&made.0, "retriable_status_codes");
        codes.into_iter().flat_map(each).map(Value::to_string).collect::<Vec<_>>().join(", ")
    };
    let retries = |made: &Translated| match every(made.cluster()?, "max_retries")[0].as_u64() {
        Some(4_294_967_295) => anyhow::Ok("any number".to_owned()),
        Some(1024) => Ok("1,024".to_owned()),
        other => anyhow::bail!("{other:?}"),
    };
    let protocol = |made: &Translated| match every(made.cluster()?, "auto_config").is_empty() {
        true => anyhow::Ok("HTTP/1.1"),
        false => Ok("HTTP/2 if Segment offers it"),
    };
    let (mut istio, mut gateway) = (Translated::by_istio()?, Translated::by_envoy_gateway(Shell::Wasm)?);
    let mut native = Translated::by_envoy_gateway(Shell::Native)?;
    assert_eq!(row("a call is sent again after")?[2..], [codes(&istio), codes(&gateway)]);
    assert_eq!(row("retries that may run at once")?[2..], [retries(&istio)?, retries(&gateway)?]);
    assert_eq!(row("protocol to Segment")?[2..], [protocol(&istio)?, protocol(&gateway)?]);
    let limits = [&mut istio, &mut gateway, &mut native].map(|made| made.buffer_limit().map(|limit| kilobytes(&limit)));
    let [of_istio, of_gateway, of_native] = limits;
    let both = format!("{}; with the dynamic module {}", of_gateway?, of_native?);
    assert_eq!(row("a connection may buffer")?[2..], [of_istio?, both]);
    assert_eq!(row("if the gateway cannot use the filter, such as without its image")?[2], "403 `RBAC: access denied`");
    assert_eq!(row("headers of a request take at most")?[2], "5 s");
    assert_eq!(istio.connection_manager()?["request_headers_timeout"], "5s");
    assert_eq!(gateway.connection_manager()?["request_headers_timeout"], Value::Null);
    for made in [&istio, &gateway, &native] {
        for absent in ["rate_limited_retry_back_off", "local_reply_config", "token_bucket"] {
            assert!(every(&made.0, absent).is_empty(), "{absent}");
        }
    }
    assert!(every(&istio.0, "vm_id").is_empty() && every(&gateway.0, "vm_id").len() == 1);
    Ok(())
}

/// With the Gateway API, Istio makes the same of the manifest, but for names, and for how it rewrites the path.
#[test]
fn the_variants_for_istio_have_the_same_routes() -> Result<()> {
    let routes = |made: &Translated| {
        let mut routes = every(&made.0["routes"], "routes")[0].clone();
        for route in routes.as_array_mut().into_iter().flatten() {
            for other in ["name", "decorator", "metadata"] {
                route[other] = Value::Null;
            }
            route["match"]["case_sensitive"] = Value::Null;
            if route["route"].is_object() {
                for other in ["prefix_rewrite", "regex_rewrite", "cluster_not_found_response_code"] {
                    route["route"][other] = Value::Null;
                }
            }
        }
        routes
    };
    let (istio, variants) = (Translated::by_istio()?, Translated::by_istio_with_variants()?);
    assert_eq!(routes(&istio), routes(&variants));
    assert_eq!(istio.0["clusters"], variants.0["clusters"]);
    Ok(())
}

async fn envoy_gateway_does_its_job(shell: Shell) -> Result<()> {
    if is_too_old((1, 39), "the objects of Envoy Gateway 1.9").await? {
        return Ok(());
    }
    let manifests = Manifests::read_for(shell, "envoy-gateway.yaml")?;
    let proxy = &manifests.the("EnvoyProxy")?["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"];
    let segment = Segment::start().await?;
    let config = Translated::by_envoy_gateway(shell)?.config(shell, &segment)?;
    let edge = Edge { envoy: Envoy::start(config, environment(proxy)?).await?, segment };
    does_its_job(&edge, &["x-forwarded-host"]).await?;
    // The filter does not run for other paths.
    assert_eq!(edge.ask(post(EVENT).replace(PATH, "/elsewhere")).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn the_envoy_that_envoy_gateway_configures_does_its_job() -> Result<()> {
    envoy_gateway_does_its_job(Shell::Wasm).await
}

#[tokio::test]
async fn the_envoy_that_envoy_gateway_configures_with_the_dynamic_module_does_its_job() -> Result<()> {
    envoy_gateway_does_its_job(Shell::Native).await
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
    image::write_modules(&wasm, &[processor], &crate::image::ORIGIN, layout.path())?;
    tests::layout::unpack(layout.path(), folder.path())?;
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
    let image = modules()?;
    let container = Container::of_deployment(&Manifests::chart(&[])?, &secret(WRITE_KEY, SECRET)?, image.path())?;
    let segment = Segment::start().await?;
    let edge = Edge { envoy: container.start(&segment).await?, segment };
    rotates_secrets(edge, |write_key, valid| {
        let secret = secret(write_key, &valid.join("\n"))?;
        let files = [("SEGMENT_WRITE_KEY", "segment"), ("STIGG_WEBHOOK_SECRET", "stigg")];
        let files = files.map(|(key, path)| (path.to_owned(), secret[key].clone()));
        project(&container.folder().join("etc/envoy/secrets"), &files.into())
    })
    .await
}

#[tokio::test]
async fn a_change_of_the_secret_reaches_istios_gateway_without_a_failed_request() -> Result<()> {
    let secret = |write_key: &str, valid: &[&str]| {
        // As the page says: both are the same, except during a rotation.
        let [current, .., previous] = [valid, valid].concat()[..] else { anyhow::bail!("no secret") };
        let secret = [
            ("SEGMENT_WRITE_KEY", write_key),
            ("STIGG_WEBHOOK_SECRET", current),
            ("STIGG_WEBHOOK_SECRET_PREVIOUS", previous),
        ];
        Ok(BTreeMap::from(secret.map(|(key, value)| (key.to_owned(), value.to_owned()))))
    };
    let (edge, container) = on_istio_with_variants(&secret(WRITE_KEY, &[SECRET])?).await?;
    let secrets = container.folder().join("etc/stigg-segment/secrets");
    rotates_secrets(edge, |write_key, valid| project(&secrets, &secret(write_key, valid)?)).await
}

/// So the page says never to remove it.
#[tokio::test]
async fn without_the_key_for_the_previous_secret_istios_gateway_keeps_it_or_rejects_every_webhook() -> Result<()> {
    let secret = Secret::from(SECRETS.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let (edge, container) = on_istio_with_variants(&secret).await?;
    let with_previous = async |edge: &Edge| edge.ask(post(EVENT).replace(SECRET, PREVIOUS_SECRET)).await;
    assert_eq!(with_previous(&edge).await?.status, 200);
    let mut less = secret.clone();
    less.remove("STIGG_WEBHOOK_SECRET_PREVIOUS");
    project(&container.folder().join("etc/stigg-segment/secrets"), &less)?;
    edge.envoy.wait_for_line(|line| line.contains("Failed to reload"), PATIENCE).await?;
    assert_eq!(with_previous(&edge).await?.status, 200);

    let empty = Secret::from_iter([("STIGG_WEBHOOK_SECRET_PREVIOUS".to_owned(), String::new())]);
    for secret in [less.clone(), less.into_iter().chain(empty).collect()] {
        let (edge, _container) = on_istio_with_variants(&secret).await?;
        let reply = edge.send_event(EVENT).await?;
        assert_eq!((reply.status, reply.text()), (401, "Failed to inject credential.".into()));
        assert_eq!(edge.segment.connections(), 0);
    }
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
    let note = format!("the ids of calls start with stigg-{}-", container::SOURCE);
    edge.envoy.wait_for_line(|line| line.contains(&note), PATIENCE).await?;
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

#[tokio::test]
async fn a_change_of_the_files_reaches_the_container_of_docker_compose_without_a_failed_request() -> Result<()> {
    let service = &Manifests::read("compose.yaml")?.the_only()?["services"]["envoy"];
    if reads_no_secrets_from_files().await? {
        return Ok(());
    }
    let container = Container::of_compose(service, &[("segment", WRITE_KEY), ("stigg", SECRET)])?;
    container.validate()?; // writes its configuration
    let segment = Segment::start().await?;
    let edge = Edge { envoy: container.start(&segment).await?, segment };
    let secrets = container.folder().join("etc/envoy/secrets");
    rotates_secrets(edge, |write_key, valid| {
        for (file, text) in [("segment", write_key), ("stigg", &valid.join("\n"))] {
            std::fs::write(secrets.join(".new"), text)?;
            std::fs::rename(secrets.join(".new"), secrets.join(file))?;
        }
        Ok(())
    })
    .await
}
