//! `make bench`, `make soak` and `make report`, run as briefly as possible: the tests do not check the measured values.
//! The filter and the yardsticks must have been built, and wrk and Node.js must be installed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use benches::yardstick::{Gateway, Variant};
use sandbox::envoy::Options;
use sandbox::segment::Segment;
use sandbox::stigg::{PATH, Webhook};
use sandbox::{synthetic, workspace_root};
use serde_json::Value;

/// Allows one load at a time, so that loads do not slow each other down.
fn turn() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the program with these arguments and this folder for the results. Returns what it prints.
fn run(arguments: &[&str], into: &Path) -> Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_benches"));
    let output = command.args(arguments).arg("--into").arg(into).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn results(docs: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(docs.join("benchmarks/results.json"))?)?)
}

#[test]
fn each_alternative_is_measured() -> Result<()> {
    let _turn = turn();
    let docs = tempfile::tempdir()?;
    let arguments = ["bench", "--comparison", "--rounds", "1", "--seconds", "1", "--sizes", "512"];
    run(&arguments, docs.path())?;
    let results = results(docs.path())?;

    let cells = results["cells"].as_array().context("no cells")?;
    let measured: Vec<_> = cells.iter().filter_map(|cell| cell["variant"].as_str()).collect();
    assert_eq!(measured, Variant::ALL.map(Variant::name));
    for cell in cells {
        let [round] = cell["rounds"].as_array().context("no rounds")?.as_slice() else { panic!("{cell}") };
        for figure in ["requests", "cpu_us", "per_second", "p50_us", "p99_us", "busy"] {
            assert!(round[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure} in {cell}");
        }
        let (p50, p99) = (round["p50_us"].as_f64(), round["p99_us"].as_f64());
        assert!(p50 <= p99, "{cell}");
    }
    let page = fs::read_to_string(docs.path().join("benchmarks.md"))?;
    assert!(page.contains("### 0.5 KiB") && !page.contains("### 2 KiB"), "{page}");
    Ok(())
}

#[test]
fn the_soak_measures_the_memory_after_each_turn() -> Result<()> {
    let _turn = turn();
    let docs = tempfile::tempdir()?;
    run(&["soak", "--requests", "1"], docs.path())?;
    let results = results(docs.path())?;
    let samples = results["soak"]["samples"].as_array().context("no samples")?;
    assert!(samples.len() > 1, "{samples:?}");
    for samples in samples.windows(2) {
        assert!(samples[0][0].as_u64() < samples[1][0].as_u64(), "{samples:?}");
        assert!(samples[1][1].as_u64() > Some(1 << 20), "{samples:?}");
    }
    Ok(())
}

#[test]
fn the_page_its_plots_and_the_readme_say_what_the_results_say() -> Result<()> {
    let docs = workspace_root().join("docs");
    let anew = tempfile::tempdir()?;
    fs::create_dir(anew.path().join("benchmarks"))?;
    fs::copy(docs.join("benchmarks/results.json"), anew.path().join("benchmarks/results.json"))?;
    let headline = run(&["report"], anew.path())?;
    let readme = fs::read_to_string(workspace_root().join("README.md"))?;
    assert!(readme.contains(&headline), "README.md does not say what the results say:\n{headline}");
    let mut files = vec!["benchmarks.md".into()];
    for plot in fs::read_dir(anew.path().join("benchmarks"))? {
        let file = Path::new("benchmarks").join(plot?.file_name());
        if file.extension().is_some_and(|extension| extension == "svg") {
            files.push(file);
        }
    }
    for file in files {
        let (made, kept) = (fs::read_to_string(anew.path().join(&file))?, fs::read_to_string(docs.join(&file))?);
        assert!(made == kept, "{} is not what the results say: run `make report`", file.display());
    }
    Ok(())
}

/// So that reading is the only difference between the two.
#[tokio::test]
async fn reading_nothing_sends_the_same_bytes() -> Result<()> {
    let mut sent = Vec::new();
    for variant in [Variant::Shipped, Variant::Edits] {
        let segment = Segment::start().await?;
        let secret = "whsec-0123456789";
        let options = Options::default().env("SEGMENT_WRITE_KEY", "wk0123456789").env("STIGG_WEBHOOK_SECRET", secret);
        let gateway = Gateway::start(variant, &segment, Ok, options, &[]).await?;
        for size in [512, 31 * 1024] {
            let webhook = Webhook::new(synthetic::event(size, Some("acme"))).secret(secret);
            assert_eq!(webhook.send(&gateway.envoy.url(PATH)).await?.status, 200);
        }
        let calls = segment.calls().into_iter().map(|mut call| {
            call.headers.remove("x-request-id");
            (call.headers, call.body)
        });
        sent.push(calls.collect::<Vec<_>>());
    }
    assert_eq!(sent[0].len(), 2);
    assert_eq!(sent[0], sent[1]);
    Ok(())
}
