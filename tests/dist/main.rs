//! What `make dist` writes. `make test-dist` calls it first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{locate, workspace_root};
use serde_json::Value;
use tests::edge::{SECRET, WRITE_KEY};
use tests::manifests::each;
use tests::pages::read;
use tests::registry::Registry;
use tests::tools::run;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn dist() -> PathBuf {
    workspace_root().join("target/dist")
}

fn file(name: &str) -> Result<String> {
    std::fs::read_to_string(dist().join(name)).with_context(|| name.to_owned())
}

/// The content of each file below a folder.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder)?.to_owned(), std::fs::read(path)?);
            }
        }
    }
    Ok(files)
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Lets a command run with another home, where Cargo unpacks the sources again that it has fetched. Rust stays where it is.
fn move_home(command: &mut Command, home: &Path) -> Result<()> {
    let old = |variable: &str, default: &str| -> Result<PathBuf> {
        let in_home = || std::env::home_dir().map(|home| home.join(default));
        std::env::var_os(variable).map(PathBuf::from).or_else(in_home).context("no home")
    };
    let registry = home.join("a cargo/registry");
    std::fs::create_dir_all(&registry)?;
    for fetched in ["cache", "index"] {
        std::os::unix::fs::symlink(
            old("CARGO_HOME", ".cargo")?.join("registry").join(fetched),
            registry.join(fetched),
        )?;
    }
    command.env("RUSTUP_HOME", old("RUSTUP_HOME", ".rustup")?);
    command.env("HOME", home).env("CARGO_HOME", home.join("a cargo"));
    Ok(())
}

#[test]
fn two_clones_in_different_folders_and_homes_give_the_same_bytes() -> Result<()> {
    let temporary = tempfile::tempdir_in(workspace_root().join("target"))?;
    let mut releases = Vec::new();
    for (name, home) in [("a", None), ("in/another folder", Some("home"))] {
        let clone = temporary.path().join(name);
        // In a workflow's container, the repository belongs to somebody else.
        let mut git = Command::new("git");
        git.args(["clone", "--quiet", "--upload-pack", "git -c 'safe.directory=*' upload-pack"]);
        done(git.arg(workspace_root()).arg(&clone))?;
        // Tools are no part of what is built.
        std::fs::create_dir(clone.join("target"))?;
        std::os::unix::fs::symlink(workspace_root().join("target/tools"), clone.join("target/tools"))?;
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "dist"]).current_dir(&clone).env_remove("CARGO_TARGET_DIR");
        if let Some(home) = home {
            move_home(&mut make, &temporary.path().join(home))?;
        }
        done(&mut make)?;
        releases.push(files(&clone.join("target/dist"))?);
        // No file that the build made is left where git would find it.
        let status = Command::new("git").args(["status", "--porcelain"]).current_dir(&clone).output()?;
        assert_eq!(String::from_utf8(status.stdout)?, "");
    }
    let [one, another] = &releases[..] else { panic!("two clones") };
    assert!(one.len() > 20, "{:?}", one.keys());
    assert_eq!(one.keys().collect::<Vec<_>>(), another.keys().collect::<Vec<_>>());
    let differ: Vec<_> =
        one.iter().filter(|(name, content)| another[*name] != **content).map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "{differ:?} differ");
    // Both clones have Rust from the same folder.
    let rust = tests::tools::run("rustc", ["--print", "sysroot"])?;
    for (name, content) in one {
        assert!(
            !content.windows(rust.trim().len()).any(|part| part == rust.trim().as_bytes()),
            "{name:?} names {rust}"
        );
    }
    Ok(())
}

#[test]
fn the_checksums_hold_and_the_page_explains_every_file() -> Result<()> {
    done(Command::new("sha256sum").args(["--quiet", "--check", "SHA256SUMS"]).current_dir(dist()))?;
    let (sums, page) = (file("SHA256SUMS")?, read("docs/releasing.md")?);
    for entry in std::fs::read_dir(dist())? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_file() {
            assert!(name == "SHA256SUMS" || sums.contains(&format!("  {name}\n")), "{name} has no checksum");
            let shown = name.replace(VERSION, "<version>");
            assert!(page.contains(&format!("`{shown}`")), "docs/releasing.md does not explain {name}");
        }
    }
    for line in file("IMAGES")?.lines() {
        let (digest, name) = line.split_once("  registry.example.com/").context("no registry")?;
        let index: Value = serde_json::from_str(&file(&format!("images/{name}/index.json"))?)?;
        assert_eq!(index["manifests"][0]["digest"], format!("sha256:{digest}"), "{name}");
        assert!(page.contains(&format!("image `{name}`")), "docs/releasing.md does not explain {name}");
    }
    Ok(())
}

#[test]
fn each_configuration_is_valid_beside_its_module_and_each_variant_what_sed_makes() -> Result<()> {
    let yaml = file("envoy.yaml")?;
    let commands: Vec<_> =
        yaml.lines().filter_map(|line| line.strip_prefix("#   ")?.split_once(" envoy.yaml")).collect();
    let mut variants = BTreeSet::new();
    for (command, _) in commands {
        let marker = command.split_once('#').and_then(|(_, rest)| rest.split(' ').next()).context("no marker")?;
        let made = Command::new("sh").args(["-c", &format!("{command} envoy.yaml")]).current_dir(dist()).output()?;
        let parse = |yaml: &str| serde_yaml_ng::from_str::<Value>(yaml);
        let written = parse(&file(&format!("envoy-{marker}.yaml"))?)?;
        assert!(written == parse(&String::from_utf8(made.stdout)?)? && written != parse(&yaml)?, "{marker}");
        variants.insert(format!("envoy-{marker}.yaml"));
    }
    let written: BTreeSet<_> =
        files(&dist())?.into_keys().filter_map(|path| path.into_os_string().into_string().ok()).collect();
    let written = written.into_iter().filter(|name| name.starts_with("envoy-") && !name.contains("gateway"));
    assert_eq!(written.collect::<BTreeSet<_>>(), variants);
    // The others need certificates and secrets in /etc.
    for name in ["envoy.yaml", "envoy-native.yaml", "envoy-otlp.yaml"] {
        let mut envoy = Command::new(locate()?);
        envoy.args(["--mode", "validate", "--log-level", "error", "--config-path", name]).current_dir(dist());
        done(envoy.env_clear().env("SEGMENT_WRITE_KEY", WRITE_KEY).env("STIGG_WEBHOOK_SECRET", SECRET))?;
    }
    Ok(())
}

#[test]
fn the_sboms_name_what_is_compiled_in_and_no_time_or_place() -> Result<()> {
    for (name, has, has_not) in [
        ("stigg_segment.wasm.cdx.json", "proxy-wasm", "stigg-segment-native"),
        ("libstigg_segment.so.cdx.json", "stigg-segment-filter", "proxy-wasm"),
    ] {
        let text = file(name)?;
        let bom: Value = serde_json::from_str(&text)?;
        assert_eq!(
            (&bom["bomFormat"], &bom["metadata"]["component"]["version"]),
            (&"CycloneDX".into(), &VERSION.into())
        );
        assert!(bom["serialNumber"].is_null() && bom["metadata"]["timestamp"].is_null(), "{name}");
        assert!(!text.contains("/home") && !text.contains(&*workspace_root().to_string_lossy()), "{name}");
        let components: BTreeSet<_> =
            each(&bom["components"]).filter_map(|component| component["name"].as_str()).collect();
        assert!(components.contains("serde_json") && components.contains(has), "{components:?}");
        assert!(!components.contains("tokio") && !components.contains(has_not), "{components:?}");
    }
    Ok(())
}

#[test]
fn the_images_are_pushed_with_the_digests_that_the_release_lists() -> Result<()> {
    let registry = Registry::start()?;
    let folder = tempfile::tempdir()?;
    let there = folder.path().join("target/dist");
    for (name, content) in files(&dist())? {
        std::fs::create_dir_all(there.join(&name).parent().unwrap())?;
        std::fs::write(there.join(name), content)?;
    }
    std::fs::copy(workspace_root().join("Makefile"), folder.path().join("Makefile"))?;
    let images = file("IMAGES")?.replace("registry.example.com", registry.address());
    std::fs::write(there.join("IMAGES"), &images)?;
    let insecure = folder.path().join(".config/containers/registries.conf");
    std::fs::create_dir_all(insecure.parent().unwrap())?;
    std::fs::write(&insecure, format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.address()))?;
    let push = || {
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "push", &format!("VERSION=v{VERSION}")]);
        make.arg(format!("REGISTRY={}", registry.address())).current_dir(folder.path());
        done(make.env("HOME", folder.path()))
    };
    // IMAGES is not what the checksums say.
    assert!(push().is_err());
    done(
        Command::new("sh")
            .args(["-c", "sha256sum $(find . -maxdepth 1 -type f ! -name SHA256SUMS) > sums; mv sums SHA256SUMS"])
            .current_dir(&there),
    )?;
    push()?;
    for line in images.lines() {
        let (digest, name) = line.split_once("  ").context("no name")?;
        let found = run("skopeo", ["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}:{VERSION}")])?;
        assert_eq!(sandbox::image::sha256(found.as_bytes()), digest, "{name}");
    }

    // Helm takes the chart from there. It is the one of the release, and names the release's image.
    let chart = format!("oci://{}/charts/stigg-segment-filter", registry.address());
    let to = folder.path().to_str().context("no UTF-8")?;
    run("helm", ["pull", &chart, "--version", VERSION, "--plain-http", "--destination", to])?;
    let package = format!("stigg-segment-filter-{VERSION}.tgz");
    let pulled = folder.path().join(&package);
    assert!(std::fs::read(&pulled)? == std::fs::read(there.join(&package))?, "not the chart of the release");
    let pulled = pulled.to_str().context("no UTF-8")?;
    assert!(run("helm", ["show", "chart", pulled])?.contains("home: https://example.com/stigg-segment-filter\n"));
    assert!(
        run("helm", ["show", "readme", pulled])?.contains(" oci://registry.example.com/charts/stigg-segment-filter ")
    );
    let values = "source=production,prometheusRule.enabled=true";
    let rendered = run("helm", ["template", "release", pulled, "--set", values])?;
    assert!(
        rendered.contains(&format!("image: registry.example.com/stigg-segment-filter-modules:{VERSION}")),
        "{rendered}"
    );
    // Somebody who is woken by an alert finds what to do.
    let runbook = format!("runbook: https://example.com/stigg-segment-filter/blob/v{VERSION}/docs/operations.md#");
    for alerts in [rendered, file("alerts.yaml")?] {
        assert_eq!(alerts.matches(&runbook).count(), alerts.matches("runbook: ").count(), "{alerts}");
        assert!(alerts.contains(&runbook), "{alerts}");
    }
    Ok(())
}
