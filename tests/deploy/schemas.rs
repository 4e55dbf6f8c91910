//! What the API servers and docker compose hold manifests against.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use boon::{Compiler, SchemaIndex, Schemas};
use sandbox::envoy::workspace_root;
use sandbox::pypi;
use serde_json::{Map, Value, json};
use tests::manifests::each;

/// The version of Kubernetes whose own kinds are meant.
const KUBERNETES: &str = "1.37.0";

/// The schemas of all that can be in a manifest.
pub struct Published {
    schemas: Schemas,
    compiler: Compiler,
    kubernetes: Value,
    /// The schema of compose files.
    pub compose: SchemaIndex,
}

/// Where the custom resource definitions of Istio, Envoy Gateway and the Gateway API are; none where they are not.
pub fn definitions() -> Option<PathBuf> {
    Some(workspace_root().parent()?.join("shared/crds")).filter(|folder| folder.is_dir())
}

impl Published {
    /// Reads them, after they were installed.
    pub fn read() -> Result<Self> {
        let kubernetes = "kubernetes.json";
        let compose = "check_jsonschema/builtin_schemas/vendor/compose-spec.json";
        let requirements = [&format!("kubernetes-validate=={KUBERNETES}"), "check-jsonschema==0.39.0"];
        let home = pypi::install("schemas", &requirements, kubernetes, |wheel| {
            // One version of many, which are large.
            let all = wheel.join("kubernetes_validate");
            let strict = format!("kubernetes-json-schema/v{KUBERNETES}-local-strict/_definitions.json");
            std::fs::rename(all.join(strict), wheel.join(kubernetes))?;
            Ok(std::fs::remove_dir_all(all)?)
        })?;
        let read = |file: &str| -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(home.join(file))?)?) };
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("http://published/compose.json", read(compose)?).map_err(failed)?;
        let compose = compiler.compile("http://published/compose.json", &mut schemas).map_err(failed)?;
        let kubernetes = read(kubernetes)?;
        compiler.add_resource("http://published/kubernetes.json", kubernetes.clone()).map_err(failed)?;
        Ok(Self { schemas, compiler, kubernetes, compose })
    }

    /// What is wrong with a manifest; nothing if all is well.
    pub fn wrong(&self, manifest: &Value, schema: SchemaIndex) -> Option<String> {
        self.schemas.validate(manifest, schema).err().map(|error| format!("{error:#}"))
    }

    /// The schema of a manifest: of one of Kubernetes' own kinds, or of one that is defined in this folder. An error if
    /// there is none.
    pub fn schema(&mut self, manifest: &Value, definitions: Option<&Path>) -> Result<SchemaIndex> {
        let text = |key: &str| manifest[key].as_str().with_context(|| format!("without {key}: {manifest}"));
        let (group, version) = text("apiVersion")?.rsplit_once('/').unwrap_or(("", text("apiVersion")?));
        let kind = text("kind")?;
        let own = self.kubernetes["$defs"].as_object().context("no definitions")?.iter().find(|(_, schema)| {
            schema["x-kubernetes-group-version-kind"] == json!([{ "group": group, "kind": kind, "version": version }])
        });
        let location = match own {
            Some((name, _)) => format!("http://published/kubernetes.json#/$defs/{name}"),
            None => {
                let location = format!("http://published/{group}/{version}/{kind}.json");
                let definitions = definitions.with_context(|| format!("{kind}: there is no ../shared/crds"))?;
                let schema = definition(definitions, group, version, kind)?
                    .with_context(|| format!("{kind}: there is no definition of it in ../shared/crds"))?;
                self.compiler.add_resource(&location, schema).map_err(failed)?;
                location
            }
        };
        self.compiler.compile(&location, &mut self.schemas).map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

/// The schema of a custom kind, which says what is refused besides what is accepted.
fn definition(folder: &Path, group: &str, version: &str, kind: &str) -> Result<Option<Value>> {
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.path();
        if !file.to_string_lossy().ends_with(&format!(".{group}.yaml")) {
            continue;
        }
        let definition: Value = serde_yaml_ng::from_slice(&std::fs::read(&file)?)?;
        let spec = &definition["spec"];
        if spec["names"]["kind"] != kind {
            continue;
        }
        let Some(served) = each(&spec["versions"]).find(|served| served["name"] == version) else {
            bail!("{kind} has no version {version} in {}", file.display());
        };
        let mut schema = served["schema"]["openAPIV3Schema"].clone();
        for implied in ["apiVersion", "kind", "metadata"] {
            schema["properties"].as_object_mut().context("no properties")?.entry(implied).or_insert(json!({}));
        }
        close(&mut schema);
        return Ok(Some(schema));
    }
    Ok(None)
}

/// Refuses the fields that a schema does not name, as the API server does when kubectl applies a manifest.
fn close(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    let closed = object.contains_key("properties")
        && !object.contains_key("additionalProperties")
        && object.get("x-kubernetes-preserve-unknown-fields") != Some(&json!(true));
    if closed {
        object.insert("additionalProperties".to_owned(), json!(false));
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(close);
    }
    for within in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(within) {
            close(inner);
        }
    }
}

/// Every manifest that differs from this one by a field that nobody knows, where one can be said to be unknown.
pub fn misspelt(manifest: &Value) -> Vec<Value> {
    /// What may hold anything.
    const OPAQUE: [&str; 4] = ["metadata", "pluginConfig", "config", "value"];
    /// What has keys of one's own.
    const MAPS: [&str; 10] = [
        "services",
        "environment",
        "labels",
        "annotations",
        "matchLabels",
        "data",
        "binaryData",
        "requests",
        "limits",
        "set",
    ];
    fn objects(value: &Value, path: String, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                for (key, inner) in object.iter().filter(|(key, _)| !OPAQUE.contains(&key.as_str())) {
                    objects(inner, format!("{path}/{}", key.replace('/', "~1")), found);
                }
                found.push(path);
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(n, inner)| objects(inner, format!("{path}/{n}"), found));
            }
            _ => {}
        }
    }
    let mut paths = Vec::new();
    objects(manifest, String::new(), &mut paths);
    paths.retain(|path| !path.rsplit('/').next().is_some_and(|last| MAPS.contains(&last)));
    let with = |path: String| {
        let mut misspelt = manifest.clone();
        let object: &mut Map<String, Value> = misspelt.pointer_mut(&path)?.as_object_mut()?;
        object.insert("misspelt".to_owned(), json!({}));
        Some(misspelt)
    };
    paths.into_iter().filter_map(with).collect()
}
