//! The commands on the pages.

use std::process::Command;

use anyhow::{Result, ensure};
use sandbox::envoy::{locate, workspace_root};
use tests::pages::{Block, blocks, pages};
use tests::tools::path;

/// Runs a block in the repository's root, or in a temporary copy of the folder that its comment names. Targets of make are
/// only looked up, because one of them runs this test.
fn run(block: &Block) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stands_in = block.comment.starts_with("in: ");
    for (file, text) in [("new.key", "a key"), ("new.crt", "a certificate")] {
        std::fs::write(folder.path().join(file), text)?;
    }
    let envoy = locate()?.parent().unwrap().to_owned();
    let path = std::env::join_paths([envoy].into_iter().chain(std::env::split_paths(&path()?)))?;
    let script = ["make() { command make --dry-run \"$@\" > /dev/null; }", &block.text].join("\n");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(if stands_in { folder.path() } else { workspace_root() })
        .env("PATH", path)
        .envs([("SEGMENT_WRITE_KEY", "wk0123456789abcdefghijklmnopqrst"), ("STIGG_WEBHOOK_SECRET", "old")])
        .envs([("NEW_SECRET", "new"), ("OLD_SECRET", "old"), ("NEW_KEY", "new.key"), ("NEW_CERTIFICATE", "new.crt")])
        .output()?;
    ensure!(output.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&output.stderr));
    if stands_in {
        let is = |file: &str, text: &str| std::fs::read_to_string(folder.path().join(file)).is_ok_and(|is| is == text);
        ensure!(
            is("stigg", "new\nold\n")
                || is("segment", "wk0123456789abcdefghijklmnopqrst\n")
                || is("tls.key", "a key") && is("tls.crt", "a certificate"),
            "{}: nothing was replaced",
            block.place
        );
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
    let block = |text: &str, comment: &str| Block {
        place: "here".to_owned(),
        kind: "sh".to_owned(),
        text: text.to_owned(),
        comment: comment.to_owned(),
    };
    assert!(run(&block("true", "")).is_ok());
    for (text, comment) in [("false\ntrue", ""), ("make no-such-target", ""), ("true", "in: /etc/envoy/secrets")] {
        assert!(run(&block(text, comment)).is_err(), "{text}");
    }
}
