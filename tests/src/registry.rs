//! A real registry on loopback.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::tools::{run, tool};

/// A running registry. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: String,
    _folder: TempDir,
}

impl Registry {
    /// Starts an empty one.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.yml");
        let settings = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: 127.0.0.1:0 }}\nlog: {{ accesslog: {{ disabled: true }} }}\n",
            folder.path().join("images").display()
        );
        std::fs::write(&config, settings)?;
        let mut command = tool("docker-registry")?;
        command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().context("there is no docker-registry: run `make tools`")?;
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
        // Nobody reads its output any more, and it must not block.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Ok(registry)
    }

    /// Copies the image of a layout to it.
    pub fn push(&self, layout: &Path, name: &str) -> Result<()> {
        let from = format!("oci:{}", layout.display());
        run("skopeo", ["copy", "--dest-tls-verify=false", &from, &format!("docker://{}/{name}", self.address)])?;
        Ok(())
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
