//! A container with Envoy: its command, its environment and its files.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Config, Envoy, Options, locate, workspace_root};
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::manifests::{Manifests, each, texts};
use tests::volume::project;

/// The differences of a container from its image.
pub struct Container {
    command: Vec<String>,
    /// The folder that takes the place of its root.
    folder: TempDir,
    /// Where its volumes are.
    mounted: Vec<String>,
    /// Its working folder.
    working: &'static str,
    /// Where it has its configuration once it has started.
    config: &'static str,
}

/// The variable of that name for docker compose.
pub const SOURCE: &str = "of-compose";

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
        let here = |given: &str| below(folder.path(), &paths, given);
        for (mount, path) in mounts.into_iter().zip(&paths) {
            ensure!(mount["readOnly"] == true, "{mount}");
            let volume = each(&pod["volumes"]).find(|volume| volume["name"] == mount["name"]).context("no volume")?;
            let at = folder.path().join(&path[1..]);
            std::fs::create_dir_all(&at)?;
            let items = |source: &Value, data: &Secret| {
                let files = each(&source["items"]).map(|item| {
                    let (key, path) = (text(&item["key"])?, text(&item["path"])?);
                    Ok((path.to_owned(), data.get(key).with_context(|| format!("no {key}"))?.clone()))
                });
                if source["items"].is_array() { files.collect::<Result<_>>() } else { Ok(data.clone()) }
            };
            let (config, from_secret) = (&volume["configMap"], &volume["secret"]);
            if config.is_object() {
                let map = manifests.the("ConfigMap")?;
                assert_eq!(config["name"], map["metadata"]["name"]);
                let data = map["data"].as_object().context("no data")?.iter();
                let data = data.map(|(key, value)| Ok((key.clone(), here(text(value)?))));
                let data = data.collect::<Result<_>>()?;
                project(&at, &items(config, &data)?)?;
            } else if from_secret.is_object() {
                project(&at, &items(from_secret, secret)?)?;
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
        let mounted = paths.into_iter().map(str::to_owned).collect();
        Ok(Self { command, folder, mounted, working: "", config: "etc/envoy/config/envoy.yaml" })
    }

    /// The folder that takes the place of its root.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A text with its volumes' paths in that folder.
    pub fn here(&self, text: &str) -> String {
        below(self.folder(), &self.mounted.iter().map(String::as_str).collect::<Vec<_>>(), text)
    }

    /// The container of deploy/compose.yaml.
    pub fn of_compose(service: &Value, secrets: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = |path: &str| folder.path().join(path.trim_start_matches('/'));
        assert_eq!((&service["working_dir"], &service["tmpfs"]), (&json!("/etc/stigg-segment"), &json!(["/run"])));
        std::fs::create_dir(root("/run"))?;
        let here =
            |given: &str| below(folder.path(), &["/etc/envoy/sds", "/etc/envoy/secrets", "/run/envoy.yaml"], given);
        for volume in each(&service["volumes"]) {
            if volume["target"] == "/etc/envoy/secrets" {
                assert!(volume["read_only"] == true && text(&volume["source"])?.starts_with("${SECRETS:?"));
                for (file, secret) in secrets {
                    put(&root("/etc/envoy/secrets").join(file), secret.as_bytes())?;
                }
                continue;
            }
            let parts: Vec<_> = text(volume)?.split(':').collect();
            let [from, to, "ro"] = parts[..] else { anyhow::bail!("not mounted to be read: {volume}") };
            let from = workspace_root().join("deploy").join(from);
            match std::fs::read_dir(&from) {
                Ok(files) => {
                    for file in files {
                        let file = file?;
                        put(&root(to).join(file.file_name()), here(&std::fs::read_to_string(file.path())?).as_bytes())?;
                    }
                }
                Err(_) if from.ends_with("envoy.yaml") => {
                    put(&root(to), here(&std::fs::read_to_string(from)?).as_bytes())?;
                }
                Err(_) => put(&root(to), &std::fs::read(from)?)?,
            }
        }
        // Compose puts in the variable, without which it does not start, and reads `$$` as `$`.
        let with_source = |part: &str| match (part.split_once("${SOURCE:?"), part.rsplit_once('}')) {
            (Some((before, _)), Some((_, after))) => [before, SOURCE, after].concat(),
            _ => part.to_owned(),
        };
        let entrypoint = texts(&service["entrypoint"]).into_iter();
        let command = entrypoint.map(|part| here(&with_source(part).replace("$$", "$"))).collect();
        Ok(Self { command, folder, mounted: vec![], working: "etc/stigg-segment", config: "run/envoy.yaml" })
    }

    /// Runs its command, except that Envoy only validates its configuration.
    pub fn validate(&self) -> Result<Output> {
        let [program, arguments @ ..] = &self.command[..] else { anyhow::bail!("it runs nothing") };
        let bin = tempfile::tempdir()?;
        symlink(locate()?, bin.path().join("envoy"))?;
        let path = std::env::var_os("PATH").context("no PATH")?;
        let path = std::env::join_paths([bin.path().to_owned()].into_iter().chain(std::env::split_paths(&path)))?;
        let mut command = Command::new(program);
        command.args(arguments).args(["--mode", "validate"]).current_dir(self.folder.path().join(self.working));
        command.env_clear().env("PATH", path);
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
        if let Ok(relative) = config.module_file()?.strip_prefix(workspace_root()) {
            config = config.module(&self.folder.path().join(self.working).join(relative))?;
        }
        if let Some(at) = self.command.iter().position(|argument| argument == "--config-yaml") {
            let added: Value = serde_yaml_ng::from_str(self.command.get(at + 1).context("nothing is added")?)?;
            config = config.edit(|whole| merge(whole, added));
        }
        Envoy::start(change(config.on_loopback()?.upstream(segment)?)?, Options::default()).await
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

/// A text with these paths below another root.
fn below(root: &Path, paths: &[&str], text: &str) -> String {
    let root = root.to_str().unwrap_or_default();
    paths.iter().fold(text.to_owned(), |text, path| text.replace(path, &[root, path].concat()))
}

fn put(file: &PathBuf, content: &[u8]) -> Result<()> {
    std::fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
    Ok(std::fs::write(file, content)?)
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is not a text"))
}
