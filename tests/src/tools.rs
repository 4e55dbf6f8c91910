//! The programs that `make tools` installs.

use std::env;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sandbox::envoy::workspace_root;

/// Their `PATH`: the programs installed for this project come first.
pub fn path() -> Result<OsString> {
    let others = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths([workspace_root().join("target/tools")].into_iter().chain(env::split_paths(&others)))?)
}

/// A command for one of them, in the folder of the repository.
pub fn tool(name: &str) -> Result<Command> {
    let mut command = Command::new(name);
    command.env("PATH", path()?).current_dir(workspace_root()).stdin(Stdio::null());
    Ok(command)
}

/// Runs one of them, and returns what it prints.
pub fn run<const N: usize>(name: &str, arguments: [&str; N]) -> Result<String> {
    let output = match tool(name)?.args(arguments).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no {name}: run `make tools`"),
        output => output.with_context(|| format!("cannot run {name}"))?,
    };
    ensure!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
