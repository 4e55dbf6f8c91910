//! Istio on deploy/istio.yaml: its own translation, on a stock Envoy.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, Options, Shell};
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::attacks::cannot_be_smuggled_past;
use tests::case_runner::hold_to;
use tests::cases::cases;
use tests::deployed::*;
use tests::edge::*;
use tests::manifests::{Manifests, each, every, file_of, text};
use tests::openings::{MARK, doors};
use tests::translated::Translated;

use crate::changes::{parts, without as leave_out};
use crate::data::istio;
use crate::omissions::{BOUND, is_known};

const FILE: &str = "istio.yaml";

/// The manifest as it is.
pub fn shipped() -> Result<String> {
    text(FILE, &[])
}

/// The variant with Gateway and HTTPRoute of the Gateway API.
pub fn with_gateway_api() -> Result<String> {
    text(FILE, &["gateway-api"])
}

/// The documents of a manifest, but for those of a kind.
pub fn without(manifest: &str, kind: &str) -> String {
    let of_kind =
        |document: &&str| document.lines().any(|line| line.trim_end_matches(" #plugin") == format!("kind: {kind}"));
    manifest.split("\n---\n").filter(|document| !of_kind(document)).collect::<Vec<_>>().join("\n---\n")
}

/// A stock Envoy on what Istio makes of a manifest.
pub async fn edge(manifest: &str) -> Result<Edge> {
    edge_on(istio(manifest)?).await
}

/// A stock Envoy on what a gateway makes for the Wasm module.
pub async fn edge_on(made: Value) -> Result<Edge> {
    let segment = Segment::start().await?;
    let config = Translated(made).config(Shell::Wasm, &segment)?;
    Ok(Edge { envoy: Envoy::start(config, options()).await?, segment })
}

#[test]
fn a_traffic_extension_is_the_same_as_a_wasm_plugin_and_no_variant_has_both() -> Result<()> {
    let made = |manifest: &str| anyhow::Ok(istio(manifest)?.to_string().replace("~istio-translated-wasmplugin", ""));
    for others in [&[][..], &["gateway-api"], &["sds"], &["gateway-api", "sds"]] {
        let (plugin, extension) = (text(FILE, others)?, text(FILE, &[others, &["extension"]].concat())?);
        for (manifest, one, other) in
            [(&plugin, "WasmPlugin", "TrafficExtension"), (&extension, "TrafficExtension", "WasmPlugin")]
        {
            let manifests = Manifests::parse(manifest)?;
            assert!(manifests.has(one) && !manifests.has(other), "{one} {others:?}");
        }
        assert_eq!(made(&plugin)?, made(&extension)?, "{others:?}");
    }
    // Istio would run both.
    let (plugin, extension) = (shipped()?, text(FILE, &["extension"])?);
    let lines: String =
        extension.split("\n---\n").find(|part| part.contains("kind: TrafficExtension")).context("none")?.into();
    let both = istio(&format!("{plugin}\n---\n{lines}"))?;
    assert_eq!(every(&both, "plugins")[0].as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test]
async fn nothing_is_smuggled_and_every_event_is_delivered_or_stigg_is_told() -> Result<()> {
    for manifest in [shipped()?, with_gateway_api()?] {
        let edge = edge(&manifest).await?;
        cannot_be_smuggled_past(&edge).await?;
        delivers_or_says_so_in_time(&edge).await?;
    }
    Ok(())
}

#[tokio::test]
async fn with_the_gateway_api_every_case_has_the_same_outcome() -> Result<()> {
    let edge = edge(&with_gateway_api()?).await?;
    forwards_ignores_and_rejects(&edge, &[]).await?;
    hold_to(cases()?, &edge, |_, _| Ok(())).await?;
    takes_large_bodies(&edge).await?;
    retries(&edge).await?;
    bounds_a_slow_sender(&edge).await
}

#[tokio::test]
async fn without_the_wasm_plugin_nothing_reaches_segment() -> Result<()> {
    let forged = "stigg_segment_filter: admitted\r\nstigg_mapped: true\r\nwasm.stigg_mapped: true\r\n";
    for (whole, answer) in [(shipped()?, (503, "filter_missing")), (with_gateway_api()?, (500, ""))] {
        let without_plugin = without(&whole, "WasmPlugin");
        // Without the EnvoyFilter, a header decides. Stigg does not send it. The Gateway API then knows no other answer.
        let bare = without(&without_plugin, "EnvoyFilter");
        for (manifest, forged, (status, code)) in
            [(without_plugin, forged, (503, "filter_missing")), (bare, "", answer)]
        {
            let edge = edge(&manifest).await?;
            let length = format!("content-length: {}\r\n", EVENT.len());
            for request in [
                post(EVENT),
                post(CATALOG_EVENT),
                post("{"),
                post_chunked(EVENT, 7),
                request("POST", &(forged.to_owned() + &length), EVENT),
            ] {
                let reply = edge.ask(request).await?;
                assert!(reply.status == status && reply.body.contains(code), "{reply:?}");
                assert!(code.is_empty() || reply.head.contains("content-type: application/json"), "{reply:?}");
            }
            assert_eq!(edge.segment.connections(), 0);
        }
    }
    Ok(())
}

/// Without it, Istio's answers, and what it sends about the mesh, are as bad as the page on deployment says.
#[tokio::test]
async fn the_manifest_is_what_keeps_the_mesh_from_segment() -> Result<()> {
    let about = ["x-envoy-decorator-operation", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id"];
    // In place of Istio's own filter, which only its Envoy has.
    let added = about[1..].iter().map(|name| json!({ "append": { "header": { "key": name, "value": "mesh" } } }));
    let kind = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    let filter = json!({ "@type": kind, "mutations": { "request_mutations": added.collect::<Vec<_>>() } });
    let seen = async |manifest: &str| {
        let mut made = Translated(istio(manifest)?);
        let filters = made.connection_manager()?["http_filters"].as_array_mut().context("no filters")?;
        filters.insert(filters.len() - 1, json!({ "name": "mesh", "typed_config": filter }));
        let segment = Segment::start().await?;
        let edge = Edge { envoy: Envoy::start(made.config(Shell::Wasm, &segment)?, options()).await?, segment };
        assert_eq!(edge.ask(post(EVENT)).await?.status, 200);
        let call = &edge.segment.calls()[0];
        anyhow::Ok(about.map(|name| call.header(name).map(str::to_owned)))
    };
    for manifest in [shipped()?, with_gateway_api()?] {
        assert_eq!(seen(&manifest).await?, [None, None, None]);
        let less = manifest.replace(&format!(", {}", about.join(", ")), "");
        let kept = seen(&less).await?;
        assert_eq!(kept.map(|it| it.is_some()), [true; 3]);
    }
    Ok(())
}

#[test]
fn without_the_annotation_istio_tells_segment_about_the_mesh() -> Result<()> {
    let skips = |made: &Value| every(made, "skip_external_clusters").contains(&&Value::Bool(true));
    assert!(skips(&istio(&shipped()?)?));
    assert!(!skips(&istio(&shipped()?.replace("IN_MESH", "UNDEFINED"))?));
    Ok(())
}

/// Istio's agent ends a gateway after this time, and Kubernetes the pod.
#[test]
fn a_pod_that_stops_has_time_for_its_requests() -> Result<()> {
    let seconds = |text: &Value| -> Result<u64> {
        Ok(text.as_str().and_then(|text| text.strip_suffix('s')).context("no seconds")?.parse()?)
    };
    let manifests = Manifests::read(FILE)?;
    let template = &manifests.the("Deployment")?["spec"]["template"];
    let annotation = &template["metadata"]["annotations"]["proxy.istio.io/config"];
    let config: Value = serde_json::from_str(annotation.as_str().context("no annotation")?)?;
    let drain = seconds(&config["terminationDrainDuration"])?;
    assert!(drain > seconds(every(&istio(&shipped()?)?, "max_stream_duration")[0])?, "{drain}");
    assert!(template["spec"]["terminationGracePeriodSeconds"].as_u64().is_some_and(|grace| grace > drain + 10));
    let page = tests::pages::read("docs/deployment.md")?;
    assert!(page.contains(&format!("waits {drain} s (`terminationDrainDuration`;")));
    // Istio reads this field.
    assert!(istio(&shipped()?.replace(&format!("\"{drain}s\""), "\"soon\"")).is_err());
    Ok(())
}

/// With the Gateway of either kind, Istio makes filter chains for the same host, which Envoy rejects. So the page says to
/// delete the first one.
#[tokio::test]
async fn two_gateways_for_one_host_are_one_too_many() -> Result<()> {
    let of_the_variant = Manifests::parse(&with_gateway_api()?)?;
    let added = ["Gateway", "HTTPRoute"].map(|kind| of_the_variant.the(kind));
    let added = added.into_iter().collect::<Result<Vec<_>>>()?;
    let both = istio(&[shipped()?, file_of(added)].join("\n---\n"))?;
    let chains = every(&both, "filter_chains").into_iter().find(|chains| each(chains).count() > 1);
    let chains: Vec<_> = each(chains.context("one chain")?).map(|chain| chain["filter_chain_match"].clone()).collect();
    assert_eq!(chains, [json!({ "server_names": ["webhooks.example.com"] }), chains[0].clone()]);

    let segment = Segment::start().await?;
    let config = Translated(istio(&shipped()?)?).config(Shell::Wasm, &segment)?;
    let chain = config.get("/static_resources/listeners/webhooks/filter_chains/0")?.clone();
    let with = |chains: &[Value]| {
        let chains = chains.iter().map(|matched| {
            let mut chain = chain.clone();
            chain["filter_chain_match"] = matched.clone();
            chain
        });
        config.clone().set("/static_resources/listeners/webhooks/filter_chains", chains.collect())
    };
    Envoy::start(with(&chains[..1])?, options()).await?;
    let rejected = Envoy::start(with(&chains)?, options()).await.err().context("it starts")?;
    assert!(format!("{rejected:#}").contains("has the same matching rules"), "{rejected:#}");
    Ok(())
}

/// The folder with the files that the variant with files reads.
fn files(manifests: &Manifests) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let files = manifests.the("ConfigMap")?["data"].as_object().context("no data")?.iter();
    let files = files.map(|(name, text)| (format!("sds/{name}"), below(&folder, text.as_str().unwrap_or_default())));
    let secrets =
        [("SEGMENT_WRITE_KEY", WRITE_KEY), ("STIGG_WEBHOOK_SECRET", SECRET), ("STIGG_WEBHOOK_SECRET_PREVIOUS", SECRET)];
    let secrets = secrets.into_iter().map(|(name, text)| (format!("secrets/{name}"), text.to_owned()));
    for (file, text) in files.chain(secrets) {
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().context("a folder")?)?;
        std::fs::write(file, text)?;
    }
    Ok(folder)
}

/// A text with the paths of such a folder.
fn below(folder: &TempDir, text: &str) -> String {
    text.replace("/etc/stigg-segment", folder.path().to_str().unwrap_or_default())
}

/// Also not Segment, if the filter is missing and Istio does not know which route to guard.
#[tokio::test]
async fn only_the_filters_that_need_the_secrets_see_their_headers() -> Result<()> {
    let whole = text(FILE, &["sds"])?;
    let mut made = Translated(istio(&whole)?);
    let filters = &made.connection_manager()?["http_filters"];
    let names: Vec<_> = each(filters).filter_map(|filter| filter["name"].as_str()).take(5).collect();
    let needed = ["segment", "previous", "stigg", "envoy.filters.http.set_filter_state"];
    assert_eq!(names, [&needed[..], &["envoy.filters.http.header_mutation"]].concat());

    let folder = files(&Manifests::parse(&whole)?)?;
    let open = without(&whole, "WasmPlugin").replace("route: { name: stigg_to_segment }", "route: { name: other }");
    let segment = Segment::start().await?;
    let config = Translated(istio(&open)?).config(Shell::Wasm, &segment)?.to_string();
    let envoy = Envoy::start(Config::from_yaml(&below(&folder, &config))?, options()).await?;
    let (edge, (mark, value)) = (Edge { envoy, segment }, MARK);
    let marked = format!("{mark}: {value}\r\ncontent-length: {}\r\n", EVENT.len());
    edge.ask(request("POST", &marked, EVENT).replace(SECRET, "wrong")).await?;
    let calls = edge.segment.calls();
    assert_eq!(calls.len(), 1);
    let headers = format!("{:?}", calls[0].headers);
    assert!(!headers.contains(SECRET) && !headers.contains(WRITE_KEY), "{headers}");
    Ok(())
}

/// In the variant with files, Envoy puts the secrets into headers. A sender who knows these headers gains nothing, also if
/// any one part of the EnvoyFilter or the WasmPlugin is missing.
#[tokio::test]
async fn nobody_brings_a_secret_along() -> Result<()> {
    let manifests = Manifests::variant(FILE, &["sds"])?;
    let folder = files(&manifests)?;
    let here = |text: &str| below(&folder, text);
    let mut left_out = vec![None];
    for (n, object) in manifests.0.iter().enumerate() {
        if let Some(kind @ ("EnvoyFilter" | "WasmPlugin")) = object["kind"].as_str() {
            let mut paths = vec![];
            parts(&object["spec"], "/spec", &mut paths);
            left_out.extend(paths.into_iter().map(|path| Some((n, kind, path))));
        }
    }
    let (mut seen, mut works) = (BTreeSet::new(), 0);
    for part in left_out {
        let mut objects = manifests.0.clone();
        if let Some((n, _, path)) = &part {
            objects[*n] = leave_out(&objects[*n], path)?;
        }
        // Istio or Envoy rejects some of them.
        let Ok(made) = istio(&file_of(&objects)) else { continue };
        if !seen.insert(made.to_string()) {
            continue;
        }
        let segment = Segment::start().await?;
        let config = Translated(made).config(Shell::Wasm, &segment)?.to_string();
        let Ok(envoy) = Envoy::start(Config::from_yaml(&here(&config))?, Options::default()).await else { continue };
        let edge = Edge { envoy, segment };
        let headers = ["x-stigg-secret", "x-stigg-secret-previous", "x-segment-write-key"];
        let forged: String = headers.iter().map(|name| format!("{name}: forged\r\n")).collect();
        let forged = request("POST", &format!("{forged}content-length: {}\r\n", EVENT.len()), EVENT);
        let reply = edge.ask(forged.replace(SECRET, "forged")).await?;
        assert!(reply.status >= 400, "without {part:?}: {reply:?}");
        assert_eq!(edge.segment.connections(), 0, "without {part:?}");
        let is_known = |opening: &String| part.as_ref().is_some_and(|(_, kind, path)| is_known(kind, path, opening));
        let mut open = doors(&edge, BOUND).await?.open;
        open.retain(|opening| !is_known(opening));
        assert_eq!(open, Vec::<String>::new(), "without {part:?}");
        edge.segment.clear();
        let _ = edge.ask(forged).await;
        let calls = edge.segment.calls();
        assert!(calls.iter().all(|call| call.write_key.as_deref() == Some(WRITE_KEY)), "without {part:?}: {calls:?}");
        works += usize::from(!calls.is_empty());
    }
    assert!(seen.len() > 50 && works > 10, "{} {works}", seen.len());
    Ok(())
}
