//! The module's mistakes.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::gateway::Kind;

/// Listens to the host, which reports every call that it did not answer with `OK`.
#[derive(Debug, Clone)]
pub struct Complaints {
    kind: Kind,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Complaints {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, lines: Arc::default() }
    }

    pub(crate) fn add(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    /// Fails if there were any since the last check.
    pub(crate) fn check(&self, during: &str) -> Result<()> {
        let lines = std::mem::take(&mut *self.lines.lock().unwrap());
        ensure!(lines.is_empty(), "{during}: {}", lines.join("; "));
        Ok(())
    }

    /// Whether a module must expect this answer, because not every host has the function or the property.
    fn is_to_be_expected(&self, function: &str, status: &str) -> bool {
        match (function, status) {
            ("proxy_get_property" | "proxy_call_foreign_function", "NotFound") => true,
            ("proxy_set_property", "NotFound") | ("proxy_define_metric", "Unimplemented") => !self.kind.has_extras,
            _ => false,
        }
    }
}

impl Subscriber for Complaints {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("proxy_wasm_host")
    }

    fn event(&self, event: &Event<'_>) {
        let (mut function, mut status, mut line) = (String::new(), String::new(), String::new());
        event.record(&mut |field: &Field, value: &dyn Debug| match field.name() {
            "function" => function = format!("{value:?}").replace('"', ""),
            "status" => status = format!("{value:?}"),
            name => line += &format!("{name}: {value:?} "),
        });
        if function.is_empty() {
            self.add(line);
        } else if !self.is_to_be_expected(&function, &status) {
            self.add(format!("{function} was answered {status}"));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
