//! A container with Envoy: its command, its environment and its files.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Config, Envoy, Options, PLUGIN, locate, workspace_root};
use sandbox::segment::Segment;
use serde_json::Value;
use tempfile::TempDir;
use tests::manifests::{Manifests, each, texts};

/// The differences of a container from its image.
pub struct Container {
    command: Vec<String>,
    options: Options,
    /// The folder that takes the place of its working folder, or of the root.
    folder: TempDir,
    /// Where its folder has `envoy.yaml`.
    config: &'static str,
}

/// The values of a Secret, by their keys.
pub type Secret = BTreeMap<String, String>;

impl Container {
    /// The container of the Deployment in a rendering of the chart, with its volumes as the kubelet fills them. `image` is
    /// the image of the modules, unpacked.
    pub fn of_deployment(manifests: &Manifests, secret: &Secret, image: &Path) -> Result<Self> {
        let pod = &manifests.the("Deployment")?["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let folder = tempfile::tempdir()?;
        let mounts: Vec<_> = each(&container["volumeMounts"]).collect();
        let paths = mounts.iter().map(|mount| text(&mount["mountPath"])).collect::<Result<Vec<_>>>()?;
        for path in &paths {
            let inside = paths.iter().find(|other| *other != path && path.starts_with(*other));
            ensure!(inside.is_none(), "{path} is mounted inside {inside:?}, which cannot be written to");
        }
        let here = |given: &str| {
            let mut given = given.to_owned();
            for path in &paths {
                given = given.replace(path, folder.path().join(&path[1..]).to_str().unwrap_or_default());
            }
            given
        };
        for (mount, path) in mounts.into_iter().zip(&paths) {
            ensure!(mount["readOnly"] == true, "{mount}");
            let volume = each(&pod["volumes"]).find(|volume| volume["name"] == mount["name"]).context("no volume")?;
            let at = folder.path().join(&path[1..]);
            std::fs::create_dir_all(&at)?;
            let items = |source: &Value, data: &dyn Fn(&str) -> Option<String>| {
                let files = each(&source["items"]).map(|item| {
                    let (key, path) = (text(&item["key"])?, text(&item["path"])?);
                    Ok((path.to_owned(), data(key).with_context(|| format!("no {key}"))?))
                });
                files.collect::<Result<BTreeMap<_, _>>>()
            };
            let (config, from_secret) = (&volume["configMap"], &volume["secret"]);
            if config.is_object() {
                let map = manifests.the("ConfigMap")?;
                assert_eq!(config["name"], map["metadata"]["name"]);
                project(&at, &items(config, &|key| map["data"][key].as_str().map(here))?)?;
            } else if from_secret.is_object() {
                project(&at, &items(from_secret, &|key| secret.get(key).cloned())?)?;
            } else if volume["image"].is_object() {
                std::fs::remove_dir(&at)?;
                symlink(image, &at)?;
            } else {
                ensure!(volume["emptyDir"].is_object(), "{volume}");
            }
        }
        for init in each(&pod["initContainers"]) {
            // Its own command is the image's.
            assert_eq!(init["command"], Value::Null);
            let argument = |given: &str| match here(given) {
                other if other != given => other,
                of_the_image => [image.to_str().unwrap_or_default(), &of_the_image].concat(),
            };
            let mut command = Command::new(image.join("copy"));
            command.args(texts(&init["args"]).into_iter().map(argument)).env_clear().current_dir("/");
            ensure!(command.status()?.success(), "{command:?}");
        }
        let command = [texts(&container["command"]), texts(&container["args"])].concat();
        let command = command.into_iter().map(here).collect();
        Ok(Self { command, options: Options::default(), folder, config: "etc/envoy/config/envoy.yaml" })
    }

    /// Its Secret changes.
    pub fn change(folder: &Path, secret: &Secret) -> Result<()> {
        let files = [("SEGMENT_WRITE_KEY", "segment"), ("STIGG_WEBHOOK_SECRET", "stigg")];
        let files = files.map(|(key, path)| (path.to_owned(), secret[key].clone()));
        project(&folder.join("etc/envoy/secrets"), &files.into())
    }

    /// The folder that takes the place of its root.
    pub fn folder(&self) -> &Path {
        self.folder.path()
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
        Ok(Self { command: owned(texts(&service["entrypoint"])), options, folder, config: "envoy.yaml" })
    }

    /// Runs its command, except that Envoy only validates its configuration.
    pub fn validate(&self) -> Result<Output> {
        let [program, arguments @ ..] = &self.command[..] else { anyhow::bail!("it runs nothing") };
        let bin = tempfile::tempdir()?;
        symlink(locate()?, bin.path().join("envoy"))?;
        let path = std::env::var_os("PATH").context("no PATH")?;
        let path = std::env::join_paths([bin.path().to_owned()].into_iter().chain(std::env::split_paths(&path)))?;
        let mut command = Command::new(program);
        command.args(arguments).args(["--mode", "validate"]).current_dir(self.folder.path());
        command.env_clear().env("PATH", path).envs(self.options.env.iter().map(|(name, value)| (name, value)));
        Ok(command.output()?)
    }

    /// Its Envoy, on loopback and with the stand-in for Segment.
    pub async fn start(&self, segment: &Segment) -> Result<Envoy> {
        self.start_with(segment, Ok).await
    }

    /// The same, but for one change.
    pub async fn start_with(&self, segment: &Segment, change: impl FnOnce(Config) -> Result<Config>) -> Result<Envoy> {
        let yaml = std::fs::read_to_string(self.folder.path().join(self.config))?;
        let mut config = Config::from_yaml(&yaml)?;
        if self.config == "envoy.yaml" {
            let module = text(config.get(&format!("{PLUGIN}/vm_config/code/local/filename"))?)?;
            let module = self.folder.path().join(module);
            config = config.module(&module)?;
        }
        if let Some(at) = self.command.iter().position(|argument| argument == "--config-yaml") {
            let added: Value = serde_yaml_ng::from_str(self.command.get(at + 1).context("nothing is added")?)?;
            config = config.edit(|whole| merge(whole, added));
        }
        Envoy::start(change(config.on_loopback()?.upstream(segment)?)?, self.options.clone()).await
    }
}

/// Writes the files of a volume as the kubelet does: each is a link into a folder that a link names, which a change replaces.
fn project(at: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    let earlier = std::fs::read_link(at.join("..data")).ok();
    let folder = tempfile::Builder::new().prefix("..").tempdir_in(at)?.keep();
    for (name, content) in files {
        std::fs::write(folder.join(name), content)?;
        if earlier.is_none() {
            symlink(Path::new("..data").join(name), at.join(name))?;
        }
    }
    symlink(folder.file_name().context("a name")?, at.join("..data_tmp"))?;
    std::fs::rename(at.join("..data_tmp"), at.join("..data"))?;
    earlier.map_or(Ok(()), |earlier| Ok(std::fs::remove_dir_all(at.join(earlier))?))
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
