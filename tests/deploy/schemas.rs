//! What the API servers and docker compose hold manifests against; `make schemas` takes it from them.

use anyhow::{Context, Result};
use boon::{Compiler, SchemaIndex, Schemas};
use sandbox::envoy::workspace_root;
use serde_json::{Map, Value, json};

/// The schemas of all that can be in a manifest.
pub struct Published {
    schemas: Schemas,
    compiler: Compiler,
}

impl Published {
    /// None is read yet.
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

    /// What is wrong with a manifest; nothing if all is well.
    pub fn wrong(&self, manifest: &Value, schema: SchemaIndex) -> Option<String> {
        self.schemas.validate(manifest, schema).err().map(|error| format!("{error:#}"))
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
