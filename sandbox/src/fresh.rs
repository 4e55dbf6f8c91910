//! Whether a module of the filter is built from the sources as they are.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

/// The modules that make builds: each with the list of its sources, which cargo writes, and its target.
const MODULES: [(&str, &str, &str); 3] = [
    ("target/wasm32-wasip1/release/stigg_segment.wasm", "target/wasm32-wasip1/release/stigg_segment.d", "build"),
    ("target/native/libstigg_segment.so", "target/native/libstigg_segment_native.d", "native"),
    (
        "target/panicking/debug/libstigg_segment_native.so",
        "target/panicking/debug/libstigg_segment_native.d",
        "panicking",
    ),
];

/// Checks that a module that make builds is newer than its sources.
///
/// # Errors
/// One line, with the command that builds it.
pub fn fresh(root: &Path, module: &Path) -> Result<()> {
    match MODULES.iter().find(|(built, ..)| root.join(built) == module) {
        Some((built, sources, target)) => {
            newer(root, built, sources).map_err(|error| anyhow!("{error}: run `make {target}`"))
        }
        None => Ok(()),
    }
}

/// Checks that the file `built` is newer than all that `sources` lists, in the form that make reads.
fn newer(root: &Path, built: &str, sources: &str) -> Result<()> {
    let Ok(time) = root.join(built).metadata().and_then(|built| built.modified()) else { bail!("there is no {built}") };
    let sources = std::fs::read_to_string(root.join(sources)).with_context(|| format!("there is no {sources}"))?;
    let (_, sources) = sources.split_once(": ").context("no list of sources")?;
    for source in sources.replace("\\ ", "\0").split_whitespace() {
        let source = source.replace('\0', " ");
        // The folder with all that was built may be a copy.
        let Ok(name) = Path::new(&source).strip_prefix(root) else { bail!("{built} was built in another folder") };
        match Path::new(&source).metadata().and_then(|source| source.modified()) {
            Ok(changed) if changed <= time => {}
            _ => bail!("{built} is older than {}", name.display()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_module_must_be_newer_than_its_sources() -> Result<()> {
        // Another package, which does not depend on this one, compiles this file too.
        let root = &std::env::temp_dir().join(format!("fresh-{}", std::process::id()));
        std::fs::create_dir_all(root)?;
        let write = |name: &str, text: &str, seconds: u64| -> Result<()> {
            std::fs::write(root.join(name), text)?;
            let file = std::fs::File::options().write(true).open(root.join(name))?;
            Ok(file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))?)
        };
        let outcome = || newer(root, "m", "m.d").map_or_else(|error| error.to_string(), |()| "fresh".to_owned());
        assert_eq!(outcome(), "there is no m");
        write("m", "", 2)?;
        assert_eq!(outcome(), "there is no m.d");
        let shown = root.display().to_string().replace(' ', "\\ ");
        write("m.d", &format!("{shown}/m: {shown}/a.rs {shown}/b\\ c.rs\n"), 1)?;
        assert_eq!(outcome(), "m is older than a.rs"); // it is gone
        write("a.rs", "", 1)?;
        write("b c.rs", "", 2)?;
        assert_eq!(outcome(), "fresh");
        write("b c.rs", "", 3)?;
        assert_eq!(outcome(), "m is older than b c.rs");
        write("m.d", "/elsewhere/m: /elsewhere/a.rs\n", 1)?;
        assert_eq!(outcome(), "m was built in another folder");
        Ok(std::fs::remove_dir_all(root)?)
    }
}
