//! The workflows in .github: they contain no logic, and pin what they use.

use anyhow::{Context, Result};
use sandbox::envoy::workspace_root;
use serde_json::{Value, json};
use tests::manifests::every;
use tests::pages::read;

/// Each workflow with its text.
fn workflows() -> Result<Vec<(Value, String)>> {
    let mut workflows = Vec::new();
    for entry in std::fs::read_dir(workspace_root().join(".github/workflows"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        workflows.push((serde_yaml_ng::from_str(&text)?, text));
    }
    assert!(workflows.len() > 3, "the workflows are gone");
    Ok(workflows)
}

/// The targets of make, except files.
fn targets() -> Result<Vec<String>> {
    let makefile = read("Makefile")?;
    let rules = makefile.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let rules = rules.filter_map(|line| line.split_once(':')).filter(|(_, rest)| !rest.starts_with('='));
    Ok(rules.flat_map(|(names, _)| names.split_whitespace()).map(str::to_owned).collect())
}

#[test]
fn they_only_call_make() -> Result<()> {
    let targets = targets()?;
    assert!(targets.iter().any(|target| target == "test"), "{targets:?}");
    for (workflow, _) in workflows()? {
        let called = every(&workflow, "run").into_iter().filter_map(Value::as_str);
        let from_matrix = every(&workflow, "target").into_iter().flat_map(tests::manifests::each);
        for command in called.filter(|command| !["bash", ".ci/run", "make \"$TARGET\""].contains(command)) {
            let target =
                command.strip_prefix("make ").and_then(|rest| rest.split(' ').next()).context(command.to_owned())?;
            assert!(targets.iter().any(|known| known == target), "{command}");
        }
        for target in from_matrix.filter_map(Value::as_str) {
            assert!(targets.iter().any(|known| known == target), "{target}");
        }
    }
    Ok(())
}

#[test]
fn every_long_test_is_run_by_one() -> Result<()> {
    let all: String = workflows()?.into_iter().map(|(_, text)| text).collect();
    for target in targets()?.iter().filter(|target| target.starts_with("test-")) {
        assert!(all.contains(target.as_str()), "add {target} to .github/workflows/ci.yml");
    }
    Ok(())
}

#[test]
fn nothing_is_published_that_was_not_run_by_the_gateways_code() -> Result<()> {
    let release: Value = serde_yaml_ng::from_str(&read(".github/workflows/release.yml")?)?;
    for (job, runs) in [("test", ".ci/run"), ("test-gateways", "make test-gateways")] {
        assert!(every(&release["jobs"][job], "run").contains(&&json!(runs)), "{job}");
        assert!(tests::manifests::each(&release["jobs"]["publish"]["needs"]).any(|needed| needed == job), "{job}");
    }
    Ok(())
}

#[test]
fn they_pin_what_they_use_and_have_no_rights_but_those_a_job_names() -> Result<()> {
    let mut containers = Vec::new();
    for (workflow, text) in workflows()? {
        assert_eq!(workflow["permissions"], json!({}));
        for line in text.lines().filter_map(|line| line.split_once("uses: ")) {
            let (pin, version) = line.1.split_once(" # v").context("no version beside the commit")?;
            let commit = pin.split_once('@').context("no commit")?.1;
            assert!(commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{pin}");
            assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
        }
        for (name, job) in workflow["jobs"].as_object().context("no jobs")? {
            assert!(job["permissions"].is_object() && job["timeout-minutes"].is_u64(), "{name}");
        }
        let image = |container: &Value| container.get("image").unwrap_or(container).clone();
        containers.extend(every(&workflow, "container").into_iter().map(image));
    }
    containers.dedup();
    assert_eq!(containers.len(), 1, "the workflows run in different images: {containers:?}");
    Ok(())
}
