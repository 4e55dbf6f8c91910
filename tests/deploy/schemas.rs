//! The schemas that API servers and docker compose check manifests with; `make schemas` fetches them.

use anyhow::{Context, Result};
use boon::{Compiler, SchemaIndex, Schemas};
use sandbox::envoy::workspace_root;
use serde_json::{Map, Value, json};

/// The schemas of all kinds of manifest.
pub struct Published {
    schemas: Schemas,
    compiler: Compiler,
}

impl Published {
    /// Starts without any; each is read when it is needed.
    pub fn new() -> Self {
        Self { schemas: Schemas::new(), compiler: Compiler::new() }
    }

    /// Reads the one with this name.
    pub fn schema(&mut self, name: &str) -> Result<SchemaIndex> {
        let file = workspace_root().join(format!("tests/schemas/{name}.json"));
        let file = file.to_str().context("a path in UTF-8")?;
        let compiled = self.compiler.compile(file, &mut self.schemas);
        compiled.map_err(|error| anyhow::anyhow!("no schema of {name}, which `make schemas` gets: {error:#}"))
    }

    /// The errors in a manifest; none if it is valid.
    pub fn wrong(&self, manifest: &Value, schema: SchemaIndex) -> Option<String> {
        self.schemas.validate(manifest, schema).err().map(|error| format!("{error:#}"))
    }
}

/// Copies of this manifest, each with one unknown field, in every place where the schema can know that.
pub fn misspelt(manifest: &Value) -> Vec<Value> {
    /// Places that may hold anything.
    const OPAQUE: [&str; 4] = ["metadata", "pluginConfig", "config", "value"];
    /// Places whose keys the user chooses.
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
    let is_map = |path: &str| {
        path.ends_with("/match/0/headers") || path.rsplit('/').next().is_some_and(|last| MAPS.contains(&last))
    };
    paths.retain(|path| !is_map(path));
    let with = |path: String| {
        let mut misspelt = manifest.clone();
        let object: &mut Map<String, Value> = misspelt.pointer_mut(&path)?.as_object_mut()?;
        object.insert("misspelt".to_owned(), json!({}));
        Some(misspelt)
    };
    paths.into_iter().filter_map(with).collect()
}
