//! The manifests of deploy/, as kubectl, helm and docker compose read them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Shell, workspace_root};
use serde::Deserialize;
use serde_json::Value;

use crate::tools;

/// The value without which the chart is not rendered.
pub const SOURCE: &str = "source=main";

/// The values that the tests render the chart with.
pub const RENDERINGS: [&[&str]; 5] = [
    &[],
    &["shell=native", "image.volume=true", "replicas=3"],
    &[
        "tls.secretName=certificate",
        "service.type=LoadBalancer",
        "service.port=443",
        "imagePullSecrets[0].name=pull",
        "ipv6=true",
    ],
    &["autoscaling.enabled=true", "rateLimit.service=ratelimit.stigg-segment.svc:8081"],
    &["serviceMonitor.enabled=true", "prometheusRule.enabled=true", "prometheusRule.labels.release=prometheus"],
];

/// The variants of deploy/istio.yaml.
pub const ISTIO_VARIANTS: [&str; 3] = ["extension", "gateway-api", "sds"];

/// The variants of manifests, alone and together.
const VARIANTS: [(&str, &[&str]); 7] = [
    ("envoy-gateway.yaml", &["native"]),
    ("envoy-gateway.yaml", &["sds"]),
    ("envoy-gateway.yaml", &["native", "sds"]),
    ("istio.yaml", &["extension"]),
    ("istio.yaml", &["gateway-api"]),
    ("istio.yaml", &["sds"]),
    ("istio.yaml", &ISTIO_VARIANTS),
];

/// The text of a file of deploy/ with some of its variants, made by the commands in its comment.
pub fn text(file: &str, variants: &[&str]) -> Result<String> {
    let path = workspace_root().join("deploy").join(file);
    let whole = std::fs::read_to_string(&path)?;
    let mut sed = Command::new("sed");
    for variant in variants {
        let command = format!("#   sed -e 's/#{variant} //'");
        let line = whole.lines().find(|line| line.starts_with(&command)).with_context(|| command.clone())?;
        for expression in line.split('\'').skip(1).step_by(2) {
            sed.args(["-e", expression]);
        }
    }
    let output = sed.args(["-e", ""]).arg(path).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A file with these documents.
pub fn file_of<'a>(documents: impl IntoIterator<Item = &'a Value>) -> String {
    documents.into_iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

/// The documents of a file.
#[derive(Debug)]
pub struct Manifests(pub Vec<Value>);

impl Manifests {
    /// Reads a file of deploy/.
    pub fn read(file: &str) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(workspace_root().join("deploy").join(file))?).context(file.to_owned())
    }

    /// A file of deploy/ with some of its variants.
    pub fn variant(file: &str, variants: &[&str]) -> Result<Self> {
        Self::parse(&text(file, variants)?).with_context(|| format!("{file} {variants:?}"))
    }

    /// The variant of a file of deploy/ for a shell.
    pub fn read_for(shell: Shell, file: &str) -> Result<Self> {
        Self::variant(file, if shell == Shell::Native { &["native"] } else { &[] })
    }

    /// The chart, as helm renders it with these values: `tls.secretName=certificate`. They can replace the [`SOURCE`].
    pub fn chart(values: &[&str]) -> Result<Self> {
        let values = [&[SOURCE], values].concat().join(",");
        let chart = ["template", "stigg-segment", "deploy/chart", "--namespace", "stigg-segment", "--set", &values];
        Self::parse(&tools::run("helm", chart)?).with_context(|| format!("with {values}"))
    }

    /// All manifests for a cluster in deploy/, with their variants, and the chart in each of [`RENDERINGS`]. Other YAML
    /// files have documents without `apiVersion` and `kind`.
    pub fn for_clusters() -> Result<Self> {
        let mut manifests = Vec::new();
        for entry in std::fs::read_dir(workspace_root().join("deploy"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let found = Self::parse(&std::fs::read_to_string(&path)?).context(path.display().to_string())?;
                let is_manifest = |document: &Value| ["apiVersion", "kind"].iter().any(|key| document[key].is_string());
                if found.0.iter().any(is_manifest) {
                    manifests.extend(found.0);
                }
            }
        }
        let variants = VARIANTS.iter().map(|(file, variants)| Self::variant(file, variants));
        for rendered in variants.chain(RENDERINGS.map(Self::chart)) {
            let rendered = rendered?.0;
            let new: Vec<_> = rendered.into_iter().filter(|manifest| !manifests.contains(manifest)).collect();
            manifests.extend(new);
        }
        Ok(Self(manifests))
    }

    /// Reads the documents of a text.
    pub fn parse(yaml: &str) -> Result<Self> {
        serde_yaml_ng::Deserializer::from_str(yaml)
            .map(|document| Ok(Value::deserialize(document)?))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The only document.
    pub fn the_only(mut self) -> Result<Value> {
        ensure!(self.0.len() == 1, "there are {} documents", self.0.len());
        Ok(self.0.remove(0))
    }

    /// All but the documents of a kind.
    pub fn without(mut self, kind: &str) -> Self {
        self.0.retain(|document| document["kind"] != kind);
        self
    }

    /// Whether there is a document of a kind.
    pub fn has(&self, kind: &str) -> bool {
        self.0.iter().any(|document| document["kind"] == kind)
    }

    /// The only document of a kind.
    pub fn the(&self, kind: &str) -> Result<&Value> {
        let mut found = self.0.iter().filter(|document| document["kind"] == kind);
        let one = found.next().with_context(|| format!("there is no {kind}"))?;
        ensure!(found.next().is_none(), "there is more than one {kind}");
        Ok(one)
    }
}

/// The elements of a list; none if there is no list.
pub fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// All values of this key, at any depth.
pub fn every<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(object) => {
            let own = object.get(name);
            own.into_iter().chain(object.values().flat_map(|inner| every(inner, name))).collect()
        }
        Value::Array(list) => list.iter().flat_map(|inner| every(inner, name)).collect(),
        _ => Vec::new(),
    }
}

/// The texts of a list.
pub fn texts(list: &Value) -> Vec<&str> {
    each(list).filter_map(Value::as_str).collect()
}

/// A quantity in the notation of Kubernetes, in bytes.
pub fn bytes(quantity: &Value) -> Result<u64> {
    let text = quantity.as_str().context("a quantity is a text")?;
    let units = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)];
    let (number, unit) =
        units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).unwrap_or((text, 1));
    Ok(number.parse::<u64>()? * unit)
}

/// The name of the schema in `tests/schemas` that a manifest must satisfy: `apps.v1.Deployment`.
pub fn schema_of(manifest: &Value) -> Result<String> {
    let text = |key: &str| manifest[key].as_str().with_context(|| format!("without {key}: {manifest}"));
    Ok(format!("{}.{}", text("apiVersion")?.replace('/', "."), text("kind")?))
}
