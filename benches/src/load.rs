//! The load: wrk, with several connections. Each sends the next event when the last one is answered.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

/// Number of connections.
pub const CONNECTIONS: usize = 16;

/// The request to send.
pub struct Load {
    dir: TempDir,
}

/// The result.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Served {
    /// Requests answered.
    pub requests: usize,
    /// How long it took.
    pub seconds: f64,
    /// Median time to the answer, in microseconds.
    pub p50_us: f64,
    /// The time that 1 of 100 answers takes longer than, in microseconds.
    pub p99_us: f64,
    /// Answers with a status of 400 or above, and requests without an answer.
    failures: usize,
}

impl Load {
    /// POSTs of this body, with these headers.
    pub fn new(headers: &[(&str, &str)], body: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("body");
        fs::write(&file, body)?;
        let mut script = format!("wrk.method = 'POST'\nwrk.body = io.open({file:?}, 'rb'):read('*a')\n");
        for (name, value) in headers {
            script += &format!("wrk.headers[{name:?}] = {value:?}\n");
        }
        script += r#"
function done(summary, latency)
  local e = summary.errors
  print(string.format('{"requests":%d,"seconds":%f,"p50_us":%f,"p99_us":%f,"failures":%d}', summary.requests,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;
        fs::write(dir.path().join("script.lua"), script)?;
        Ok(Self { dir })
    }

    /// Sends for this many seconds. Every request must be answered successfully.
    pub async fn run(&self, url: &str, seconds: u64) -> Result<Served> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--connections", &CONNECTIONS.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--timeout", "10s", "--script"])
            .arg(self.dir.path().join("script.lua"))
            .arg(url);
        let output = tokio::task::spawn_blocking(move || wrk.output()).await?;
        let output = output.context("wrk, the load generator, is needed: apt-get install wrk")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let served = said.lines().last().and_then(|line| serde_json::from_str::<Served>(line).ok());
        let served = served.with_context(|| format!("wrk: {said}{}", String::from_utf8_lossy(&output.stderr)))?;
        ensure!(served.failures == 0, "{} of {} requests failed: {said}", served.failures, served.requests);
        ensure!(served.requests > 0, "nothing was answered: {said}");
        Ok(served)
    }
}
