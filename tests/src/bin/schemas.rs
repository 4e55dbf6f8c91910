//! `make schemas`: writes `tests/schemas` anew from the published definitions of the kinds in deploy/. It needs Go, whose
//! module proxy has the definitions, Python and helm; the tests need only the files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::workspace_root;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tests::manifests::{Manifests, each, every, schema_of};

/// Modules of Go, and the folders in them with custom resource definitions.
const MODULES: [(&str, &[&str]); 3] = [
    // It also contains the Gateway API.
    (
        "github.com/envoyproxy/gateway@v1.9.0",
        &["charts/gateway-helm/charts/crds/crds", "charts/gateway-helm/charts/crds/crds/generated"],
    ),
    ("istio.io/api@v1.31.0", &["kubernetes"]),
    ("github.com/prometheus-operator/prometheus-operator@v0.85.0", &["example/prometheus-operator-crd"]),
];
/// The Python package with the schemas of Kubernetes' kinds, and its version, which is that of Kubernetes.
const KUBERNETES: (&str, &str) = ("kubernetes-validate", "1.37.0");
/// The Python package with the schema of compose files, and its version.
const COMPOSE: (&str, &str) = ("check-jsonschema", "0.39.0");

fn main() -> Result<()> {
    let folder = workspace_root().join("tests/schemas");
    let write = |name: &str, source: &str, mut schema: Value| -> Result<()> {
        trim(&mut schema);
        schema["$comment"] = format!("{source}, under the Apache License 2.0, trimmed by `make schemas`").into();
        Ok(fs::write(folder.join(name), format!("{schema}\n"))?)
    };
    let needed = Manifests::for_clusters()?.0.iter().map(schema_of).collect::<Result<Vec<_>>>()?;

    let compose = wheel(COMPOSE)?;
    let file = compose.path().join("check_jsonschema/builtin_schemas/vendor/compose-spec.json");
    write("compose.json", &[COMPOSE.0, " ", COMPOSE.1].concat(), read(&file)?)?;

    let kubernetes = wheel(KUBERNETES)?;
    let strict = format!("kubernetes_validate/kubernetes-json-schema/v{}-local-strict/_definitions.json", KUBERNETES.1);
    let definitions = read(&kubernetes.path().join(strict))?["$defs"].take();
    for (name, definition) in definitions.as_object().context("no definitions")? {
        for kind in each(&definition["x-kubernetes-group-version-kind"]) {
            let text = |key: &str| kind[key].as_str().unwrap_or_default();
            let name_of_kind = [text("group"), text("version"), text("kind")].join(".");
            let name_of_kind = name_of_kind.trim_start_matches('.');
            if needed.iter().any(|needed| needed == name_of_kind) {
                let mut schema = json!({ "$ref": format!("#/$defs/{name}"), "$defs": {} });
                add_definition(name, &definitions, schema["$defs"].as_object_mut().context("an object")?);
                write(&format!("{name_of_kind}.json"), &[KUBERNETES.0, " ", KUBERNETES.1].concat(), schema)?;
            }
        }
    }

    for (module, folders) in MODULES {
        let downloaded = output(Command::new("go").args(["mod", "download", "-json", module]))?;
        let downloaded: Value = serde_json::from_slice(&downloaded)?;
        let home = Path::new(downloaded["Dir"].as_str().context("no folder")?);
        for definition in
            folders.iter().map(|folder| definitions_in(&home.join(folder))).collect::<Result<Vec<_>>>()?.concat()
        {
            let spec = &definition["spec"];
            for served in each(&spec["versions"]) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let name = [text(&spec["group"]), text(&served["name"]), text(&spec["names"]["kind"])].join(".");
                if needed.contains(&name) {
                    let mut schema = served["schema"]["openAPIV3Schema"].clone();
                    let properties = schema["properties"].as_object_mut().context("no properties")?;
                    properties.remove("status");
                    for implied in ["apiVersion", "kind", "metadata"] {
                        properties.insert(implied.to_owned(), json!({}));
                    }
                    close(&mut schema);
                    write(&format!("{name}.json"), module, schema)?;
                }
            }
        }
    }
    for name in needed {
        ensure!(folder.join(format!("{name}.json")).exists(), "no package has {name}");
    }
    Ok(())
}

/// The wheel of a Python package, unpacked.
fn wheel((name, version): (&str, &str)) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let requirement = format!("{name}=={version}");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", &requirement]);
    output(pip.current_dir(&folder))?;
    output(Command::new("sh").args(["-c", "python3 -m zipfile -e *.whl ."]).current_dir(&folder))?;
    Ok(folder)
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn read(file: &Path) -> Result<Value> {
    let json = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(serde_json::from_slice(&json)?)
}

/// The custom resource definitions in the files of a folder.
fn definitions_in(folder: &Path) -> Result<Vec<Value>> {
    let mut definitions = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            for document in serde_yaml_ng::Deserializer::from_str(&fs::read_to_string(&file)?) {
                definitions.push(Value::deserialize(document).with_context(|| file.display().to_string())?);
            }
        }
    }
    Ok(definitions)
}

/// Adds a definition of Kubernetes, and the definitions that it refers to.
fn add_definition(name: &str, all: &Value, to: &mut Map<String, Value>) {
    if to.contains_key(name) {
        return;
    }
    to.insert(name.to_owned(), all[name].clone());
    for reference in every(&all[name], "$ref").into_iter().filter_map(Value::as_str) {
        add_definition(reference.rsplit('/').next().unwrap_or_default(), all, to);
    }
}

/// Rejects the fields that a custom kind does not name, as the API server does when kubectl applies a manifest.
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

/// Removes the parts that do not affect validation.
fn trim(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(trim),
        Value::Object(object) => {
            object.retain(|key, _| {
                !["description", "default", "deprecated"].contains(&key.as_str()) && !key.starts_with("x-kubernetes-")
            });
            for (key, inner) in object.iter_mut() {
                match (key.as_str(), inner) {
                    ("properties" | "patternProperties" | "definitions" | "$defs", Value::Object(named)) => {
                        named.values_mut().for_each(trim);
                    }
                    (_, inner) => trim(inner),
                }
            }
        }
        _ => {}
    }
}
