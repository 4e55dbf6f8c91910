//! `make release` changes the version in every file that states it.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::workspace_root;

const NOW: &str = env!("CARGO_PKG_VERSION");
const NEXT: &str = "98.76.54";

/// Copies a folder, except build output and git's files, and returns its text files by their paths.
fn copy(from: &Path, to: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        std::fs::create_dir_all(to.join(&folder))?;
        for entry in std::fs::read_dir(from.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() && !["target", "corpus", ".git"].contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file() && name != ".git" {
                std::fs::copy(entry.path(), to.join(&path))?;
                if let Ok(text) = std::fs::read_to_string(entry.path()) {
                    files.insert(path, text);
                }
            }
        }
    }
    Ok(files)
}

/// Whether a line states this version, and not a longer one.
fn states(line: &str, version: &str) -> bool {
    let mut parts = line.split(|c: char| !c.is_ascii_digit() && c != '.').map(|part| part.trim_matches('.'));
    parts.any(|part| part == version)
}

/// Whether a line states another version: of a package that Cargo or Go fetches, of proxy-wasm, or of Envoy's interface.
fn is_of_another(path: &str, line: &str, next_line: Option<&&str>) -> bool {
    let is_of_go = ["/go.mod", "/go.sum"].iter().any(|name| path.ends_with(name));
    let is_of_envoy = path == "native/src/abi.rs";
    next_line.is_some_and(|next| next.starts_with("source = "))
        || is_of_go
        || is_of_envoy
        || line.contains("proxy-wasm")
}

/// Runs `make release` with an `awk` and a `sed` that know no more than those of other systems.
fn release(folder: &Path, version: &str) -> Result<bool> {
    let tools = tempfile::tempdir()?;
    for (name, tool) in [("awk", "original-awk"), ("sed", "busybox")] {
        let tool = tests::tools::run("sh", ["-c", &format!("command -v {tool}")]);
        symlink(tool.context("run `make awk`")?.trim(), tools.path().join(name))?;
    }
    let path = std::env::join_paths(
        [tools.path().to_owned()].into_iter().chain(std::env::split_paths(&tests::tools::path()?)),
    )?;
    let output = Command::new("make")
        .env("PATH", path)
        .args(["--no-print-directory", "release", &format!("VERSION={version}")]) // another make may run this test
        .current_dir(folder)
        .output()?;
    ensure!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(output.status.success())
}

#[test]
fn a_release_changes_the_version_in_every_file() -> Result<()> {
    let copied = tempfile::tempdir()?;
    let folder = copied.path();
    let before = copy(workspace_root(), folder)?;
    // After a release, nothing is new yet.
    let changelog = before["CHANGELOG.md"].replace("## [Unreleased]\n", "## [Unreleased]\n\n- Something.\n");
    std::fs::write(folder.join("CHANGELOG.md"), changelog)?;
    assert!(release(folder, NEXT)?);
    let mut changed = 0;
    for (path, before) in &before {
        let after = std::fs::read_to_string(folder.join(path))?;
        if path == "CHANGELOG.md" {
            assert!(after.contains(&format!("\n## [Unreleased]\n\n## [{NEXT}] - 20")), "{after}");
            continue;
        }
        let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
        assert_eq!(old.len(), new.len(), "{path}");
        for (number, (line, new)) in old.iter().zip(new).enumerate() {
            let place = format!("{path}:{}: {new}", number + 1);
            if *line != new {
                assert_eq!(line.replace(NOW, NEXT), new, "{place}");
                changed += 1;
            } else if states(line, NOW) {
                assert!(is_of_another(path, line, old.get(number + 1)), "make release forgets {place}");
            }
        }
    }
    assert!(changed > 15, "{changed} lines");

    // The changelog has nothing new for another one.
    let changelog = std::fs::read(folder.join("CHANGELOG.md"))?;
    assert!(!release(folder, "98.76.55")?);
    assert_eq!(std::fs::read(folder.join("CHANGELOG.md"))?, changelog);
    assert!(std::fs::read_to_string(folder.join("Cargo.toml"))?.contains(&format!("\nversion = \"{NEXT}\"")));
    Ok(())
}

#[test]
fn a_release_needs_a_version() -> Result<()> {
    let copied = tempfile::tempdir()?;
    std::fs::copy(workspace_root().join("Makefile"), copied.path().join("Makefile"))?;
    for version in ["", "1.2", "v1.2.3", "1.2.3-"] {
        assert!(!release(copied.path(), version)?, "{version}");
    }
    Ok(())
}

#[test]
fn the_notes_of_a_release_are_its_part_of_the_changelog_and_their_links_work_on_github() -> Result<()> {
    let copied = tempfile::tempdir()?;
    std::fs::copy(workspace_root().join("Makefile"), copied.path().join("Makefile"))?;
    let changelog = "# Changelog\n\n## [Unreleased]\n\n- New\n\n## [1.2.3] - 2000-01-01\n\n- [A page](docs/a.md), [below](#b)\n\n## [1.2.2]\n\n- Old\n";
    std::fs::write(copied.path().join("CHANGELOG.md"), changelog)?;
    let make = |target: &str, version: &str| {
        let mut make = Command::new("make");
        make.args(["--no-print-directory", target, &format!("VERSION={version}"), "REPOSITORY=https://example.com/it"]);
        make.current_dir(copied.path()).output()
    };
    for version in ["1.2.3", "v1.2.3"] {
        let written = String::from_utf8(make("notes", version)?.stdout)?;
        assert_eq!(
            written,
            "- [A page](https://example.com/it/blob/v1.2.3/docs/a.md), [below](https://example.com/it/blob/v1.2.3/CHANGELOG.md#b)\n\n"
        );
    }
    // Without notes nothing is published.
    for target in ["notes", "publish"] {
        let output = make(target, "1.2.4")?;
        let said = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && said.starts_with("CHANGELOG.md has nothing about"), "{target}: {said}");
    }
    Ok(())
}

#[test]
fn the_makefile_needs_no_gnu_tools() -> Result<()> {
    let makefile = std::fs::read_to_string(workspace_root().join("Makefile"))?;
    for (number, line) in makefile.lines().enumerate() {
        for only_gnu in
            ["sed -i", "\\b", "cp --", "mktemp --", "readlink -f", "grep -P", "sort -V", "xargs -r", "date -d"]
        {
            assert!(!line.contains(only_gnu), "Makefile:{}: `{only_gnu}` is not on a Mac: {line}", number + 1);
        }
    }
    Ok(())
}
