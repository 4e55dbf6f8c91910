//! A container with Envoy: its command, its environment and its files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use base64ct::{Base64, Encoding};
use sandbox::envoy::{Config, Envoy, Options, PLUGIN, locate, workspace_root};
use sandbox::segment::Segment;
use serde_json::Value;
use tempfile::TempDir;
use tests::manifests::{Manifests, each, texts};

/// The differences of a container from its image.
pub struct Container {
    command: Vec<String>,
    options: Options,
    /// The folder that takes the place of its working folder.
    folder: TempDir,
}

impl Container {
    /// The container of the Deployment in deploy/kubernetes.
    pub fn of_deployment(manifests: &Manifests, options: Options) -> Result<Self> {
        let pod = &manifests.the("Deployment")?["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let generated = manifests.the("ConfigMap")?;
        let mounted = &pod["volumes"][0];
        assert_eq!(mounted["configMap"]["name"], generated["metadata"]["name"]);
        let mount = &container["volumeMounts"][0];
        assert_eq!((&mount["name"], &mount["mountPath"]), (&mounted["name"], &container["workingDir"]));

        let folder = tempfile::tempdir()?;
        for item in each(&mounted["configMap"]["items"]) {
            let (key, path) = (text(&item["key"])?, text(&item["path"])?);
            let content = match (&generated["data"][key], &generated["binaryData"][key]) {
                (Value::String(content), _) => content.clone().into_bytes(),
                (_, Value::String(base64)) => Base64::decode_vec(&base64.replace(char::is_whitespace, ""))?,
                _ => anyhow::bail!("the ConfigMap has no {key}"),
            };
            put(&folder.path().join(path), &content)?;
        }
        Ok(Self { command: owned([texts(&container["command"]), texts(&container["args"])].concat()), options, folder })
    }

    /// The container of deploy/compose.yaml.
    pub fn of_compose(service: &Value, options: Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for volume in texts(&service["volumes"]) {
            let parts: Vec<_> = volume.split(':').collect();
            let [from, to, "ro"] = parts[..] else { anyhow::bail!("not mounted to be read: {volume}") };
            let to = Path::new(to).strip_prefix(text(&service["working_dir"])?)?;
            put(&folder.path().join(to), &std::fs::read(workspace_root().join("deploy").join(from))?)?;
        }
        Ok(Self { command: owned(texts(&service["entrypoint"])), options, folder })
    }

    /// Runs its command, except that Envoy only validates its configuration.
    pub fn validate(&self) -> Result<Output> {
        let [program, arguments @ ..] = &self.command[..] else { anyhow::bail!("it runs nothing") };
        let bin = tempfile::tempdir()?;
        std::os::unix::fs::symlink(locate()?, bin.path().join("envoy"))?;
        let path = std::env::var_os("PATH").context("no PATH")?;
        let path = std::env::join_paths([bin.path().to_owned()].into_iter().chain(std::env::split_paths(&path)))?;
        let mut command = Command::new(program);
        command.args(arguments).args(["--mode", "validate"]).current_dir(self.folder.path());
        command.env_clear().env("PATH", path).envs(self.options.env.iter().map(|(name, value)| (name, value)));
        Ok(command.output()?)
    }

    /// Its Envoy, on loopback and with the stand-in for Segment.
    pub async fn start(self, segment: &Segment) -> Result<Envoy> {
        self.start_with(segment, Ok).await
    }

    /// The same, but for one change.
    pub async fn start_with(self, segment: &Segment, change: impl FnOnce(Config) -> Result<Config>) -> Result<Envoy> {
        let yaml = std::fs::read_to_string(self.folder.path().join("envoy.yaml"))?;
        let mut config = Config::from_yaml(&yaml)?;
        let module = text(config.get(&format!("{PLUGIN}/vm_config/code/local/filename"))?)?;
        let module = self.folder.path().join(module);
        config = config.module(&module)?;
        if let Some(at) = self.command.iter().position(|argument| argument == "--config-yaml") {
            let added: Value = serde_yaml_ng::from_str(self.command.get(at + 1).context("nothing is added")?)?;
            config = config.edit(|whole| merge(whole, added));
        }
        Envoy::start(change(config.on_loopback()?.upstream(segment)?)?, self.options).await
    }
}

/// Adds to a configuration as Envoy's `--config-yaml` does.
fn merge(whole: &mut Value, added: Value) {
    match (whole, added) {
        (Value::Object(whole), Value::Object(added)) => {
            added.into_iter().for_each(|(key, value)| merge(whole.entry(key).or_insert(Value::Null), value));
        }
        (Value::Array(whole), Value::Array(added)) => whole.extend(added),
        (whole, added) => *whole = added,
    }
}

/// The port on which envoy.yaml takes webhooks.
pub fn port() -> Result<Value> {
    let config = Config::shipped()?;
    Ok(config.get("/static_resources/listeners/webhooks/address/socket_address/port_value")?.clone())
}

/// The largest heap that envoy.yaml lets Envoy have, in bytes.
pub fn largest_heap() -> Result<u64> {
    let monitor = "/overload_manager/resource_monitors/envoy.resource_monitors.fixed_heap";
    let config = Config::shipped()?;
    config.get(&format!("{monitor}/typed_config/max_heap_size_bytes"))?.as_u64().context("no number")
}

/// How long run-envoy takes at most to stop: the wait for the requests under way, and then for Envoy.
pub fn stop_seconds() -> Result<u64> {
    let script = std::fs::read_to_string(workspace_root().join("deploy/run-envoy"))?;
    let number_after = |text| {
        let (_, rest) = script.split_once(text).with_context(|| format!("no {text}"))?;
        anyhow::Ok(rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>()?)
    };
    Ok(number_after("${DRAIN_SECONDS:=")? + number_after("Envoy has ")?)
}

/// The variables that a compose file takes from the environment.
pub fn from_environment(service: &Value, environment: &[(&str, &str)]) -> Result<Options> {
    let mut options = Options::default();
    for (name, value) in service["environment"].as_object().context("no environment")? {
        let (_, value_of) = environment.iter().find(|(known, _)| known == name).context(name.clone())?;
        ensure!(text(value)?.starts_with(&format!("${{{name}:")), "{name} is {value}");
        options = options.env(name, value_of);
    }
    Ok(options)
}

fn put(file: &PathBuf, content: &[u8]) -> Result<()> {
    std::fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
    Ok(std::fs::write(file, content)?)
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is not a text"))
}

fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}
