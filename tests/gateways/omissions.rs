//! What if one thing in deploy/istio.yaml is missing? Istio rejects it, or the gateway works, or it fails closed. Envoy
//! Gateway's manifests are in `changes.rs`: there, the running gateway follows each change.

use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, Options, Shell, VALIDATION_CONTEXT};
use sandbox::segment::{self, Segment, Transport};
use serde_json::Value;
use tests::edge::*;
use tests::manifests::{Manifests, each};
use tests::openings::{Doors, ELSEWHERE, doors};
use tests::translated::Translated;

use crate::changes::{parts, without};
use crate::data::istio;
use crate::istio::shipped;

/// Every request has an answer before Stigg gives up.
const BOUND: Duration = Duration::from_secs(30);

/// What is open without a part, or one around it, and what the page on deployment says about it.
const KNOWN: [(&str, &str, &str); 3] = [
    ("VirtualService", "/spec/http/0/match/0/uri/exact", ELSEWHERE),
    ("VirtualService", "/spec/http/0/rewrite", ELSEWHERE),
    ("DestinationRule", "/spec/trafficPolicy/tls/subjectAltNames", IMPOSTOR),
];

/// How an opening begins if a server gets calls that cannot prove to be Segment.
const IMPOSTOR: &str = "an impostor gets calls";

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

/// The documents of a manifest, as Istio reads them.
fn text(documents: &[Value]) -> String {
    documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

/// An Envoy on what Istio makes; `None` if there is no way through the gateway.
fn config(made: &Value, segment: &Segment) -> Result<Option<Config>> {
    let made = Translated(made.clone());
    if made.clone().connection_manager().is_err() || made.cluster().is_err() {
        return Ok(None);
    }
    made.config(Shell::Wasm, segment).map(Some)
}

/// What the gateway does that Istio makes of a manifest.
async fn doors_of(documents: &[Value], made: &Value) -> Result<Doors> {
    let segment = Segment::start().await?;
    let Some(own) = config(made, &segment)? else { return Ok(Doors::default()) };
    let deployment = documents.iter().find(|document| document["kind"] == "Deployment");
    let options = Options { log_level: "off".to_owned(), patience: PATIENCE, ..environment(deployment) };
    let trusted = own.get(&format!("{VALIDATION_CONTEXT}/trusted_ca")).ok().cloned();
    let Ok(envoy) = Envoy::start(own, options.clone()).await else { return Ok(Doors::default()) };
    let edge = Edge { envoy, segment };
    let mut found = doors(&edge, BOUND).await?;
    if found.works {
        // Servers that cannot prove to be Segment: by an unknown authority, and under another name.
        let named = |name: &str| segment::Options { transport: Transport::tls_for([name]), ..Default::default() };
        for (name, trusted) in [("api.segment.io", trusted), ("example.com", None)] {
            let impostor = Segment::start_with(named(name)).await?;
            let mut other = config(made, &impostor)?.context("it worked")?;
            if let Some(trusted) = trusted {
                other = other.set(&format!("{VALIDATION_CONTEXT}/trusted_ca"), trusted)?;
            }
            let other = Edge { envoy: Envoy::start(other, options.clone()).await?, segment: impostor };
            other.ask(post(EVENT)).await?;
            if other.segment.requests_begun() > 0 {
                found.open.push(format!("{IMPOSTOR}: {name}"));
            }
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_left_out_of_istios_manifest_the_gateway_fails_closed() -> Result<()> {
    let shipped = Manifests::parse(&shipped()?)?.0;
    let made_of_shipped = istio(&text(&shipped))?;
    assert_eq!(doors_of(&shipped, &made_of_shipped).await?, Doors { works: true, open: vec![] }, "as shipped");
    let (mut left_out, mut same, mut works, mut open) = (0, 0, 0, Vec::new());
    for (n, document) in shipped.iter().enumerate() {
        let kind = document["kind"].as_str().context("a kind")?;
        if ["ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget"].contains(&kind) {
            continue; // Istio does not translate them
        }
        let mut paths = vec![String::new()];
        parts(&document["spec"], "/spec", &mut paths);
        for path in paths {
            let mut less = shipped.clone();
            if path.is_empty() {
                less.remove(n);
            } else {
                less[n] = without(document, &path)?;
            }
            left_out += 1;
            let Ok(made) = istio(&text(&less)) else { continue };
            if kind != "Deployment" && made == made_of_shipped {
                same += 1;
                continue;
            }
            let what = format!("without {path} of {kind}");
            let found = doors_of(&less, &made).await.with_context(|| what.clone())?;
            works += usize::from(found.works);
            let is_known = |opening: &String| {
                let around = |known: &str| path.starts_with(known) || known.starts_with(&path);
                KNOWN.iter().any(|(of, part, known)| *of == kind && around(part) && opening.starts_with(known))
            };
            for opening in found.open {
                eprintln!("{}: {what}: {opening}", if is_known(&opening) { "known" } else { "OPEN" });
                if !is_known(&opening) {
                    open.push(format!("{what}: {opening}"));
                }
            }
        }
    }
    eprintln!("{left_out} parts left out; {same} change nothing, {works} work");
    assert!(left_out > 150 && works > 10, "{left_out} {works}");
    assert!(open.is_empty(), "{}", open.join("\n"));
    Ok(())
}
