//! The commands on the pages.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Result, ensure};
use sandbox::envoy::{is_older_than, locate, workspace_root};
use tests::pages::{Block, blocks, pages, with_a_path};
use tests::skip::skip;
use tests::tools::path;

/// The folder of Envoy's files on the pages.
const ETC: &str = "/etc/envoy";

/// What the commands may put there.
const FILES: [(&str, &[&str]); 4] = [
    ("secrets/stigg", &["old\n", "new\nold\n"]),
    ("secrets/segment", &["wk0123456789abcdefghijklmnopqrst\n"]),
    ("certs/tls.key", &["a key"]),
    ("certs/tls.crt", &["a certificate"]),
];

/// Runs a block in the repository's root, with a temporary folder in place of /etc/envoy. Targets of make are only looked up,
/// because one of them runs this test.
fn run(block: &Block) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let etc = folder.path().join("etc");
    for inside in ["sds", "secrets", "certs"] {
        std::fs::create_dir_all(etc.join(inside))?;
    }
    let [new_key, new_certificate] = ["new.key", "new.crt"].map(|file| folder.path().join(file));
    std::fs::write(&new_key, "a key")?;
    std::fs::write(&new_certificate, "a certificate")?;
    let envoy = locate()?;
    let path =
        std::env::join_paths([envoy.parent().unwrap().to_owned()].into_iter().chain(std::env::split_paths(&path()?)))?;
    let here = |text: &str| text.replace(ETC, etc.to_str().unwrap());
    let script = ["make() { command make --dry-run \"$@\" > /dev/null; }", &here(&with_a_path(&block.text))].join("\n");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(workspace_root())
        .env("PATH", path)
        .envs([("SEGMENT_WRITE_KEY", "wk0123456789abcdefghijklmnopqrst"), ("STIGG_WEBHOOK_SECRET", "old")])
        .envs([("NEW_SECRET", "new"), ("OLD_SECRET", "old")])
        .envs([("NEW_KEY", new_key), ("NEW_CERTIFICATE", new_certificate)])
        .output()?;
    ensure!(output.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&output.stderr));
    if block.text.contains(ETC) {
        let mut put = 0;
        for (file, contents) in FILES {
            let file = etc.join(file);
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            ensure!(contents.contains(&text.as_str()), "{}: {} is {text:?}", block.place, file.display());
            let mode = std::fs::metadata(&file)?.permissions().mode();
            ensure!(mode & 0o077 == 0, "{}: others can read {}", block.place, file.display());
            put += 1;
        }
        ensure!(put > 0, "{}: nothing is there", block.place);
    }
    let configuration = etc.join("envoy.yaml");
    if configuration.exists() && block.text.contains("#sds") && is_older_than((1, 39))? {
        skip("secrets from files need Envoy 1.39");
    } else if configuration.exists() {
        for entry in std::fs::read_dir(etc.join("sds"))? {
            let file = entry?.path();
            std::fs::write(&file, here(&std::fs::read_to_string(&file)?))?;
        }
        std::fs::write(&configuration, here(&std::fs::read_to_string(&configuration)?))?;
        let mut validate = Command::new(envoy);
        validate.args(["--mode", "validate", "-l", "error", "-c"]).arg(&configuration).current_dir(workspace_root());
        if !block.text.contains("SEGMENT_WRITE_KEY") {
            validate.env("SEGMENT_WRITE_KEY", "wk0123456789abcdefghijklmnopqrst").env("STIGG_WEBHOOK_SECRET", "old");
        }
        let output = validate.output()?;
        ensure!(output.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[test]
fn every_command_runs_or_is_valid_shell_if_it_needs_more_than_this_machine() -> Result<()> {
    let mut ran = 0;
    for page in pages()? {
        for block in blocks(&page)?.iter().filter(|block| block.kind == "sh") {
            if block.comment.starts_with("needs: ") {
                let parsed = Command::new("bash").args(["-n", "-c", &block.text]).output()?;
                ensure!(parsed.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&parsed.stderr));
                continue;
            }
            run(block)?;
            ran += 1;
        }
    }
    assert!(ran > 4, "the commands are gone");
    Ok(())
}

#[test]
fn a_command_that_fails_is_noticed() {
    let block = |text: &str| Block {
        place: "here".to_owned(),
        kind: "sh".to_owned(),
        text: text.to_owned(),
        comment: String::new(),
        section: String::new(),
    };
    assert!(run(&block("true")).is_ok());
    let readable = "printf '%s\\n' old > /etc/envoy/secrets/stigg";
    assert!(run(&block(&format!("umask 077; {readable}"))).is_ok());
    for text in ["false\ntrue", "make no-such-target", "cd /etc/envoy", readable, "echo > /etc/envoy/envoy.yaml"] {
        assert!(run(&block(text)).is_err(), "{text}");
    }
}
