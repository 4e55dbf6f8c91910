//! How the debugger and the other commands reach the Envoy of `sandbox run`.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sandbox::stigg::{Reply, Webhook};
use sandbox::workspace_root;
use serde::{Deserialize, Serialize};

/// Where the webhooks of an environment are sent, and with which secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// The URL's path, which names the environment.
    pub path: String,
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

impl Endpoint {
    /// Sends a webhook to it.
    pub async fn send(&self, event: Vec<u8>) -> Result<Reply> {
        Webhook::new(event).secret(&self.secret).send(&self.url).await
    }
}

/// A running sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// One for each environment.
    pub endpoints: Vec<Endpoint>,
    /// The filter's configuration, without secrets.
    pub configuration: String,
}

/// The file with the running sandbox. Dropping this value removes the file.
#[derive(Debug)]
pub struct Published {
    file: PathBuf,
    _lock: File,
}

/// The default path of the file.
pub fn default_file() -> PathBuf {
    workspace_root().join("target/sandbox.json")
}

impl Running {
    /// Writes it to a file that only its owner may read. `None` if the file is another running sandbox's, which keeps the
    /// file locked; the system releases the lock of a killed one.
    pub fn publish(&self, file: &Path) -> Result<Option<Published>> {
        let cannot = || format!("cannot write {}", file.display());
        loop {
            let mut opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(file)
                .with_context(cannot)?;
            match opened.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                locked => locked.with_context(cannot)?,
            }
            // The one that had the lock may have removed the file meanwhile.
            if fs::metadata(file).is_ok_and(|now| opened.metadata().is_ok_and(|own| own.ino() == now.ino())) {
                opened.set_permissions(Permissions::from_mode(0o600))?;
                opened.set_len(0)?;
                opened.write_all(serde_json::to_string(self)?.as_bytes()).with_context(cannot)?;
                return Ok(Some(Published { file: file.to_owned(), _lock: opened }));
            }
        }
    }

    /// Reads it from the file; `None` if there is no file, because no sandbox is running.
    pub fn find(file: &Path) -> Result<Option<Self>> {
        match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("in {}", file.display())).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// The endpoint of an environment.
    ///
    /// # Errors
    /// There is no such environment, or several and none is named; the error names them.
    pub fn choose(&self, path: Option<&str>) -> Result<&Endpoint> {
        let chosen = match (path, self.endpoints.as_slice()) {
            (None, [only]) => Some(only),
            (path, all) => all.iter().find(|endpoint| path == Some(&endpoint.path)),
        };
        chosen.with_context(|| {
            let paths: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.path.as_str()).collect();
            let paths = paths.join(", ");
            match path {
                Some(path) => format!("the running sandbox has no environment {path}; it has {paths}"),
                None => format!(
                    "the running sandbox has several environments; choose one with `make send ENVIRONMENT=`, or \
                     --path: {paths}"
                ),
            }
        })
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(path: &str) -> Running {
        let endpoint = |path: &str| Endpoint { path: path.to_owned(), url: String::new(), secret: String::new() };
        Running { endpoints: path.split(' ').map(endpoint).collect(), configuration: String::new() }
    }

    #[test]
    fn the_file_is_the_first_ones_until_it_ends() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("sandbox.json");
        let found = || -> Result<_> { Ok(Running::find(&file)?.map(|running| running.endpoints[0].path.clone())) };
        fs::write(&file, "left by one that was killed")?;
        let first = running("/first").publish(&file)?.context("nobody else has it")?;
        assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o600);
        assert!(running("/second").publish(&file)?.is_none());
        assert_eq!(found()?.as_deref(), Some("/first"));
        drop(first);
        assert_eq!(found()?, None);
        let _third = running("/third").publish(&file)?.context("nobody else has it")?;
        assert_eq!(found()?.as_deref(), Some("/third"));
        Ok(())
    }

    #[test]
    fn the_only_environment_needs_no_choice() {
        let chosen = |environments: &str, path: Option<&str>| match running(environments).choose(path) {
            Ok(endpoint) => endpoint.path.clone(),
            Err(error) => error.to_string(),
        };
        assert_eq!(chosen("/a", None), "/a");
        assert_eq!(chosen("/a /b", Some("/b")), "/b");
        assert!(chosen("/a /b", None).ends_with("`make send ENVIRONMENT=`, or --path: /a, /b"));
        assert!(chosen("/a", Some("/b")).contains("no environment /b; it has /a"));
    }
}
