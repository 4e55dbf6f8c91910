//! Log and metrics.

use std::sync::{Arc, Mutex};

use proxy_wasm_host::abi::v0_2_1::types::{LogLevel, MetricType, Status};
use proxy_wasm_host::abi::v0_2_1::{Callback, Invocation, LogContext, LogSink, MetricId, SharedServices};

use crate::complaints::Complaints;
use crate::gateway::Kind;

/// Keeps the module's log. An error in it is a complaint: the module has found a mistake of its own or of the host.
pub(crate) struct Log {
    pub(crate) complaints: Complaints,
    pub(crate) lines: Arc<Mutex<Vec<String>>>,
}

impl LogSink for Log {
    fn log(&self, _: LogContext<'_>, level: LogLevel, message: &[u8]) {
        let line = format!("{level:?}: {}", String::from_utf8_lossy(message));
        if level >= LogLevel::Error {
            self.complaints.add(line.clone());
        }
        self.lines.lock().unwrap().push(line);
    }
}

/// The module's metrics, on hosts that have metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    kind: Kind,
    metrics: Mutex<Vec<Metric>>,
}

#[derive(Debug)]
struct Metric {
    kind: MetricType,
    name: Vec<u8>,
    /// For a histogram, the number of values.
    value: u64,
}

impl Metrics {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, metrics: Mutex::default() }
    }

    pub(crate) fn value(&self, name: &str) -> Option<u64> {
        let metrics = self.metrics.lock().unwrap();
        metrics.iter().find(|metric| metric.name == name.as_bytes()).map(|metric| metric.value)
    }

    fn change(&self, id: MetricId, change: impl FnOnce(&mut Metric) -> Option<()>) -> Result<(), Status> {
        let mut metrics = self.metrics.lock().unwrap();
        let metric = metrics.get_mut(id.get() as usize - 1).ok_or(Status::NotFound)?;
        change(metric).ok_or(Status::BadArgument)
    }
}

impl SharedServices for Metrics {
    fn define_metric(&self, call: Invocation, _: &[u8], kind: MetricType, name: &[u8]) -> Result<MetricId, Status> {
        if !self.kind.has_extras {
            return Err(Status::Unimplemented);
        }
        if !matches!(call.callback, Some(Callback::VmStart | Callback::Configure)) {
            return Err(Status::BadArgument);
        }
        let mut metrics = self.metrics.lock().unwrap();
        let index = metrics.iter().position(|metric| metric.name == name).unwrap_or_else(|| {
            metrics.push(Metric { kind, name: name.to_vec(), value: 0 });
            metrics.len() - 1
        });
        if metrics[index].kind != kind {
            return Err(Status::BadArgument);
        }
        MetricId::try_from(index as u32 + 1).map_err(|_| Status::InternalFailure)
    }

    fn increment_metric(&self, _: Invocation, id: MetricId, delta: i64) -> Result<(), Status> {
        self.change(id, |metric| {
            let takes_it = match metric.kind {
                MetricType::Counter => delta > 0,
                MetricType::Gauge => delta != 0,
                MetricType::Histogram => false,
            };
            metric.value = metric.value.checked_add_signed(delta).filter(|_| takes_it)?;
            Some(())
        })
    }

    fn record_metric(&self, _: Invocation, id: MetricId, value: u64) -> Result<(), Status> {
        self.change(id, |metric| {
            metric.value = match metric.kind {
                MetricType::Counter => return None,
                MetricType::Gauge => value,
                MetricType::Histogram => metric.value + 1,
            };
            Some(())
        })
    }
}
