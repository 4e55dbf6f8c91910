//! How the debugger and the other commands reach the Envoy of `sandbox run`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sandbox::stigg::{Reply, Webhook};
use sandbox::workspace_root;
use serde::{Deserialize, Serialize};

/// Where webhooks are sent, and with which secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// The webhook's endpoint URL.
    pub url: String,
    /// The webhook's secret.
    pub secret: String,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The file with the endpoint. Dropping this value removes the file.
#[derive(Debug)]
pub struct Published {
    file: PathBuf,
    text: String,
}

/// The default path of the file.
pub fn default_file() -> PathBuf {
    workspace_root().join("target/sandbox.json")
}

impl Endpoint {
    /// Sends a webhook to it.
    pub async fn send(&self, event: Vec<u8>) -> Result<Reply> {
        Webhook::new(event).secret(&self.secret).send(&self.url).await
    }

    /// Writes it to a file that only its owner may read.
    pub fn publish(&self, file: &Path) -> Result<Published> {
        let text = serde_json::to_string(self)?;
        // A new file each time: the mode applies to new files only.
        if let Err(error) = fs::remove_file(file)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot replace {}", file.display()));
        }
        let mut opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        opened.write_all(text.as_bytes())?;
        Ok(Published { file: file.to_owned(), text })
    }

    /// Reads it from the file; `None` if there is no file, because no sandbox is running.
    pub fn find(file: &Path) -> Result<Option<Self>> {
        match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("in {}", file.display())).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // A sandbox that started later has replaced the file.
        if fs::read_to_string(&self.file).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(&self.file);
        }
    }
}
