//! The manifests of deploy/, as kubectl and docker compose read them.

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Shell, variant, workspace_root};
use serde::Deserialize;
use serde_json::Value;

use crate::tools;

/// The documents of a file.
#[derive(Debug)]
pub struct Manifests(pub Vec<Value>);

impl Manifests {
    /// Reads a file of deploy/.
    pub fn read(file: &str) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(workspace_root().join("deploy").join(file))?).context(file.to_owned())
    }

    /// The variant of a file of deploy/ for a shell.
    pub fn read_for(shell: Shell, file: &str) -> Result<Self> {
        let text = std::fs::read_to_string(workspace_root().join("deploy").join(file))?;
        Self::parse(&variant(shell, &text)).context(file.to_owned())
    }

    /// deploy/kubernetes, as kubectl renders it.
    pub fn kubernetes() -> Result<Self> {
        Self::rendered("deploy/kubernetes")
    }

    /// What kubectl makes of a folder.
    fn rendered(folder: &str) -> Result<Self> {
        Self::parse(&tools::run("kubectl", ["kustomize", "--load-restrictor", "LoadRestrictionsNone", folder])?)
            .context(folder.to_owned())
    }

    /// All manifests for a cluster in deploy/. Other YAML files have documents without `apiVersion` and `kind`.
    pub fn for_clusters() -> Result<Self> {
        let (mut manifests, mut folders) = (Vec::new(), vec![workspace_root().join("deploy")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                let name = path.to_str().context("a path in UTF-8")?;
                let found = if path.join("kustomization.yaml").exists() {
                    Self::rendered(name)?
                } else if path.is_dir() {
                    folders.push(path);
                    continue;
                } else if name.ends_with(".yaml") {
                    Self::parse(&std::fs::read_to_string(&path)?).context(name.to_owned())?
                } else {
                    continue;
                };
                let is_manifest = |document: &Value| ["apiVersion", "kind"].iter().any(|key| document[key].is_string());
                if found.0.iter().any(is_manifest) {
                    manifests.extend(found.0);
                }
            }
        }
        Ok(Self(manifests))
    }

    fn parse(yaml: &str) -> Result<Self> {
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
