//! A headless Chromium, controlled by the [DevTools protocol](https://chromedevtools.github.io/devtools-protocol/) over a
//! pipe. It ends when the pipe does, so also when the test crashes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64ct::{Base64, Encoding};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ends of the protocol's pipe are the descriptors 3 and 4.
const ON_A_PIPE: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

const ARGUMENTS: &[&str] = &[
    "--remote-debugging-pipe",
    "--headless=new",
    "--no-sandbox", // with its sandbox it does not run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
];

/// A page in a browser. Dropping it closes the browser.
pub struct Page {
    child: Child,
    commands: Option<ChildStdin>,
    messages: Receiver<Value>,
    last_id: u64,
    session: Value,
    complaints: Vec<String>,
    _profile: TempDir,
}

/// A key to press.
#[derive(Debug, Clone, Copy)]
pub enum Key {
    Tab,
    Enter,
    Up,
    Down,
    Home,
    End,
}

impl Page {
    /// Opens a page, `width` pixels wide.
    pub fn open(url: &str, width: u32) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut child = Command::new("sh")
            .args(["-c", ON_A_PIPE])
            .arg(chromium()?)
            .args(ARGUMENTS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take();
        let output = child.stdout.take().context("its output is piped")?;
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                let _ = sender.send(message);
            }
        });
        let mut page = Self {
            child,
            commands,
            messages,
            last_id: 0,
            session: Value::Null,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = page.command("Target.createTarget", json!({ "url": "about:blank" }))?["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        page.session = page.command("Target.attachToTarget", attach)?["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            page.command(&format!("{domain}.enable"), json!({}))?;
        }
        page.resize(width)?;
        page.command("Page.navigate", json!({ "url": url }))?;
        page.until("document.readyState === 'complete'")?;
        Ok(page)
    }

    /// Sets its width in pixels.
    pub fn resize(&mut self, width: u32) -> Result<()> {
        let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", metrics).map(drop)
    }

    /// Sets the preferred colour scheme: `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// The value of a JavaScript expression; a promise is awaited.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let evaluate = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.command("Runtime.evaluate", evaluate)?;
        match &answer["exceptionDetails"] {
            Value::Null => Ok(answer["result"]["value"].clone()),
            exception => bail!("{expression}: {exception:#}"),
        }
    }

    /// The text of the first element that a selector finds.
    pub fn text(&mut self, selector: &str) -> Result<String> {
        let text = self.value(&format!("document.querySelector({})?.textContent", json!(selector)))?;
        Ok(text.as_str().with_context(|| format!("there is no {selector}"))?.to_owned())
    }

    /// Waits until a JavaScript expression is true.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        let became_true = self.value(&format!(
            "new Promise((resolve) => {{
                const deadline = Date.now() + {};
                const look = () => ({expression}) ? resolve(true) : Date.now() > deadline ? resolve(false) : setTimeout(look, 10);
                look();
            }})",
            PATIENCE.as_millis() / 2
        ))?;
        if became_true == true {
            return Ok(());
        }
        bail!("not in time: {expression} in:\n{}", self.text("body")?)
    }

    /// Clicks the middle of the first element that a selector finds.
    pub fn click(&mut self, selector: &str) -> Result<()> {
        let middle = self.value(&format!(
            "(() => {{
                const element = document.querySelector({});
                element.scrollIntoView({{ block: 'nearest' }});
                const {{ x, y, width, height }} = element.getBoundingClientRect();
                return {{ x: x + width / 2, y: y + height / 2 }};
            }})()",
            json!(selector)
        ))?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": middle["x"], "y": middle["y"], "button": "left", "clickCount": 1 });
            self.command("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Presses a key.
    pub fn press(&mut self, key: Key) -> Result<()> {
        let (name, code, text) = match key {
            Key::Tab => ("Tab", 9, None),
            Key::Enter => ("Enter", 13, Some("\r")),
            Key::Up => ("ArrowUp", 38, None),
            Key::Down => ("ArrowDown", 40, None),
            Key::Home => ("Home", 36, None),
            Key::End => ("End", 35, None),
        };
        for kind in [if text.is_some() { "keyDown" } else { "rawKeyDown" }, "keyUp"] {
            let mut event = json!({ "type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code });
            if let Some(text) = text.filter(|_| kind == "keyDown") {
                event["text"] = text.into();
            }
            self.command("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Writes a screenshot to a PNG file.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let png = self.command("Page.captureScreenshot", json!({ "format": "png" }))?;
        let png = Base64::decode_vec(png["data"].as_str().unwrap_or_default()).map_err(anyhow::Error::msg)?;
        std::fs::write(file, png).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Errors and warnings in its console, and uncaught exceptions.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        self.value("null")?; // its answer comes after all earlier messages
        Ok(self.complaints.clone())
    }

    fn command(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": params });
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        let commands = self.commands.as_mut().context("the browser is closed")?;
        commands.write_all(format!("{command}\0").as_bytes())?;
        loop {
            let message = self.messages.recv_timeout(PATIENCE).with_context(|| format!("no answer to {command}"))?;
            self.listen(&message);
            if message["id"] == self.last_id {
                return match &message["error"] {
                    Value::Null => Ok(message["result"].clone()),
                    error => bail!("{command}: {error}"),
                };
            }
        }
    }

    fn listen(&mut self, message: &Value) {
        let params = &message["params"];
        let is_complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning", "assert"].iter().any(|kind| params["type"] == *kind)
            }
            Some("Log.entryAdded") => ["error", "warning"].iter().any(|level| params["entry"]["level"] == *level),
            _ => false,
        };
        if is_complaint {
            self.complaints.push(params.to_string());
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.child.wait();
    }
}

fn chromium() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Ok(named.into());
    }
    let found = ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| which::which(name).ok());
    found.context("there is no Chromium: run `make tools`, or set CHROMIUM to its path")
}
