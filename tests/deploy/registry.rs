//! A real registry on loopback, and the tool that copies images; both from Debian.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::workspace_root;
use tempfile::TempDir;

/// A running registry. Dropping it ends it.
pub struct Registry {
    process: Child,
    address: String,
    _folder: TempDir,
}

impl Registry {
    /// Starts an empty one. An error if it, or skopeo, is neither there nor can be had.
    pub fn start() -> Result<Self> {
        install_skopeo()?;
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.yml");
        let settings = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: 127.0.0.1:0 }}\nlog: {{ accesslog: {{ disabled: true }} }}\n",
            folder.path().join("images").display()
        );
        std::fs::write(&config, settings)?;
        let mut process = Command::new(docker_registry()?)
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(process.stderr.take().context("no log")?);
        let mut registry = Self { process, address: String::new(), _folder: folder };
        let mut said = String::new();
        while registry.address.is_empty() {
            let mut line = String::new();
            ensure!(log.read_line(&mut line)? > 0, "the registry ended: {said}");
            if let Some((_, address)) = line.split_once("listening on ") {
                registry.address = address.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
            }
            said += &line;
        }
        // Nobody reads it any more, and it must not block.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Ok(registry)
    }

    /// Its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs skopeo and returns what it prints.
pub fn skopeo<const N: usize>(arguments: [&str; N]) -> Result<String> {
    output(Command::new("skopeo").args(arguments))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn runs(program: &str) -> bool {
    output(Command::new(program).arg("--version")).is_ok()
}

fn apt_get<const N: usize>(arguments: [&str; N]) -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

fn install_skopeo() -> Result<()> {
    if runs("skopeo") {
        return Ok(());
    }
    eprintln!("Installing skopeo");
    output(&mut apt_get(["update"]))
        .and_then(|_| output(&mut apt_get(["install", "--yes", "--no-install-recommends", "skopeo"])))
        .context("there is no skopeo: apt-get install skopeo")?;
    Ok(())
}

/// The one on the path, or one below target/: its Debian package would start it for good.
fn docker_registry() -> Result<PathBuf> {
    let home = workspace_root().join("target/docker-registry");
    let binary = home.join("usr/bin/docker-registry");
    if runs("docker-registry") {
        return Ok("docker-registry".into());
    }
    if !binary.exists() {
        eprintln!("Unpacking docker-registry below {}", home.display());
        let staging = tempfile::tempdir_in(workspace_root().join("target"))?;
        let download = || output(apt_get(["download", "docker-registry"]).current_dir(staging.path()));
        download()
            .or_else(|_| output(&mut apt_get(["update"])).and_then(|_| download()))
            .context("there is no docker-registry: apt-get install docker-registry")?;
        let package = std::fs::read_dir(staging.path())?.next().context("no package")??.path();
        output(Command::new("dpkg").arg("--extract").arg(package).arg(&home))?;
    }
    Ok(binary)
}
