//! What if one thing in deploy/istio.yaml is missing? Istio rejects it, or the gateway works, or it fails closed. Envoy
//! Gateway's manifests are in `changes.rs`: there, the running gateway follows each change.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, Options, Shell, VALIDATION_CONTEXT};
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tests::edge::*;
use tests::manifests::{Manifests, each, file_of};
use tests::openings::{Doors, ELSEWHERE, IMPOSTOR, INCOMPLETE, UNENCRYPTED, doors, impostors};
use tests::translated::Translated;

use crate::changes::{parts, without};
use crate::data::istio;
use crate::istio::{shipped, with_gateway_api};

/// Every request has an answer before Stigg gives up.
pub const BOUND: Duration = Duration::from_secs(30);

/// What can be open without a part, or one around it, as the page on deployment says.
const KNOWN: [(&str, &str, &str); 6] = [
    ("EnvoyFilter", "/spec/configPatches/0", INCOMPLETE), // the buffer
    ("VirtualService", "/spec/http/0/match/0/uri/exact", ELSEWHERE),
    ("VirtualService", "/spec/http/0/rewrite", ELSEWHERE),
    ("HTTPRoute", "/spec/rules/0/filters/0/urlRewrite", ELSEWHERE),
    ("DestinationRule", "/spec/trafficPolicy/tls", UNENCRYPTED),
    ("DestinationRule", "/spec/trafficPolicy/tls/subjectAltNames", IMPOSTOR),
];

/// Whether the page says that something is open without a part of a document.
pub fn is_known(kind: &str, path: &str, opening: &str) -> bool {
    let around = |part: &str| path.starts_with(part) || part.starts_with(path);
    KNOWN.iter().any(|(of, part, known)| *of == kind && around(part) && opening.starts_with(known))
}

/// What Envoy finds in its environment.
fn environment(deployment: Option<&Value>) -> Options {
    let secrets = [
        ("SEGMENT_WRITE_KEY", WRITE_KEY),
        ("STIGG_WEBHOOK_SECRET", SECRET),
        ("STIGG_WEBHOOK_SECRET_PREVIOUS", PREVIOUS_SECRET),
    ];
    let variables = deployment.into_iter().flat_map(|it| each(&it["spec"]["template"]["spec"]["containers"][0]["env"]));
    variables.fold(Options::default(), |options, variable| {
        let key = &variable["valueFrom"]["secretKeyRef"]["key"];
        match (variable["name"].as_str(), secrets.iter().find(|(name, _)| key == name)) {
            (Some(name), Some((_, secret))) => options.env(name, secret),
            _ => options,
        }
    })
}

/// An Envoy on what Istio makes; `None` if there is no way through the gateway.
fn config(made: &Value, segment: &Segment) -> Result<Option<Config>> {
    let made = Translated(made.clone());
    if made.clone().connection_manager().is_err() || made.cluster().is_err() {
        return Ok(None);
    }
    made.config(Shell::Wasm, segment).map(Some)
}

/// What the gateway does that Istio makes of a manifest. `proven` is a cluster that no impostor gets calls from.
async fn doors_of(documents: &[Value], made: &Value, proven: Option<&Value>) -> Result<Doors> {
    let segment = Segment::start().await?;
    let Some(own) = config(made, &segment)? else { return Ok(Doors::default()) };
    let deployment = documents.iter().find(|document| document["kind"] == "Deployment");
    let options = Options { log_level: "off".to_owned(), patience: PATIENCE, ..environment(deployment) };
    let Ok(envoy) = Envoy::start(own, options.clone()).await else { return Ok(Doors::default()) };
    let edge = Edge { envoy, segment };
    let mut found = doors(&edge, BOUND).await?;
    if found.works && proven != Some(Translated(made.clone()).cluster()?) {
        let config = |impostor: &Segment, authority: Option<&Path>| {
            let other = config(made, impostor)?.context("it worked")?;
            let trusted = format!("{VALIDATION_CONTEXT}/trusted_ca");
            match authority {
                Some(authority) if other.get(&trusted).is_ok() => other.set(&trusted, json!({ "filename": authority })),
                _ => Ok(other),
            }
        };
        found.open.extend(impostors(&options, config).await?);
    }
    Ok(found)
}

/// Leaves out each part of these documents of a manifest in turn. Returns how many parts there are, and how many gateways
/// work without one.
async fn it_fails_closed_without_any_one_part(
    manifest: &[Value],
    is_one: impl Fn(&Value) -> bool,
) -> Result<(usize, usize)> {
    let made_of_all = istio(&file_of(manifest))?;
    assert_eq!(doors_of(manifest, &made_of_all, None).await?, Doors { works: true, open: vec![] }, "all of it");
    let of_all = Translated(made_of_all.clone());
    let (mut left_out, mut same, mut works, mut open) = (0, 0, 0, Vec::new());
    for (n, document) in manifest.iter().enumerate().filter(|(_, document)| is_one(document)) {
        let kind = document["kind"].as_str().context("a kind")?;
        if ["ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget"].contains(&kind) {
            continue; // Istio does not translate them
        }
        let mut paths = vec![String::new()];
        parts(&document["spec"], "/spec", &mut paths);
        for path in paths {
            let mut less = manifest.to_vec();
            if path.is_empty() {
                less.remove(n);
            } else {
                less[n] = without(document, &path)?;
            }
            left_out += 1;
            let Ok(made) = istio(&file_of(&less)) else { continue };
            if kind != "Deployment" && made == made_of_all {
                same += 1;
                continue;
            }
            let what = format!("without {path} of {kind}");
            let found = doors_of(&less, &made, Some(of_all.cluster()?)).await.with_context(|| what.clone())?;
            works += usize::from(found.works);
            for opening in found.open {
                let is_known = is_known(kind, &path, &opening);
                eprintln!("{}: {what}: {opening}", if is_known { "known" } else { "OPEN" });
                if !is_known {
                    open.push(format!("{what}: {opening}"));
                }
            }
        }
    }
    eprintln!("{left_out} parts left out; {same} change nothing, {works} work");
    assert!(open.is_empty(), "{}", open.join("\n"));
    Ok((left_out, works))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_left_out_of_istios_manifest_the_gateway_fails_closed() -> Result<()> {
    let shipped = Manifests::parse(&shipped()?)?.0;
    let (left_out, works) = it_fails_closed_without_any_one_part(&shipped, |_| true).await?;
    assert!(left_out > 150 && works > 10, "{left_out} {works}");
    Ok(())
}

/// Only the documents that differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_left_out_of_the_variant_with_the_gateway_api_the_gateway_fails_closed() -> Result<()> {
    let shipped = Manifests::parse(&shipped()?)?.0;
    let variant = Manifests::parse(&with_gateway_api()?)?.0;
    let (left_out, works) =
        it_fails_closed_without_any_one_part(&variant, |document| !shipped.contains(document)).await?;
    assert!(left_out > 100 && works > 10, "{left_out} {works}");
    Ok(())
}
