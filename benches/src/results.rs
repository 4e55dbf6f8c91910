//! All measured values, in a form for programs. The report is made only from them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use benches::events::Event;
use benches::yardstick::Variant;
use sandbox::workspace_root;
use serde::{Deserialize, Serialize};

use crate::figure::Spread;

/// All results. A part that a run leaves out is empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Results {
    /// Where and when, except for the soak.
    pub machine: Machine,
    /// How long a turn is, in seconds.
    pub seconds: u64,
    /// Number of connections.
    pub connections: usize,
    /// The measurements of each variant with each event.
    pub cells: Vec<Cell>,
    /// The measurements with several workers.
    pub workers: Vec<Workers>,
    /// The footprint of each variant.
    pub footprints: Vec<Footprint>,
    /// The mapping alone, built for this machine.
    pub mapping: Vec<Mapping>,
    /// The instructions that the module executes, as a table.
    #[serde(default)]
    pub instructions: String,
    /// A long run.
    pub soak: Option<Soak>,
}

/// Where and when something was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// How many processors there are.
    pub processors: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Envoy's version.
    pub envoy: String,
    /// The day, in UTC.
    pub date: String,
    /// The commit, and whether it was changed.
    pub commit: String,
}

/// The measurements of this many workers with events of 2 KiB.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Workers {
    /// The variant.
    pub variant: Variant,
    /// Worker threads.
    pub workers: u32,
    /// Each round.
    pub rounds: Vec<Round>,
}

/// The footprint of a variant with two workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Footprint {
    /// The variant.
    pub variant: Variant,
    /// From the start of the process until it accepts connections, in milliseconds, for several starts.
    pub start_ms: Vec<f64>,
    /// Resident memory after some events, in bytes.
    pub resident: u64,
    /// Size of the Wasm module, if it is one.
    pub module: Option<u64>,
}

/// The mapping of one event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mapping {
    /// Size of the event, in bytes.
    pub bytes: usize,
    /// Median time, in nanoseconds.
    pub nanoseconds: f64,
}

/// A long run of the filter as shipped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Soak {
    /// Where and when.
    pub machine: Machine,
    /// Requests so far, with Envoy's resident memory at that time, in bytes.
    pub samples: Vec<(usize, u64)>,
}

impl Soak {
    /// The growth in bytes from a tenth of the run to its end.
    pub fn growth(&self) -> Option<i64> {
        let (requests, end) = *self.samples.last()?;
        let (_, start) = *self.samples.iter().find(|(so_far, _)| so_far * 10 >= requests)?;
        Some(end as i64 - start as i64)
    }
}

/// The measurements of one variant with one event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The variant.
    pub variant: Variant,
    /// The event.
    pub event: Event,
    /// Each round.
    pub rounds: Vec<Round>,
}

/// One variant's turn in a round.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Round {
    /// Requests answered.
    pub requests: usize,
    /// Processor time for each request, in microseconds: Envoy's and the function's, if there is one.
    pub cpu_us: f64,
    /// Requests answered each second.
    pub per_second: f64,
    /// Median time to the answer, in microseconds.
    pub p50_us: f64,
    /// The time that 1 of 100 answers takes longer than, in microseconds.
    pub p99_us: f64,
    /// The part of the time that Envoy's processor was busy with it.
    pub busy: f64,
    /// The part of the time that Envoy's processor was busy with something else.
    pub disturbed: f64,
}

/// The results, for programs.
const FILE: &str = "benchmarks/results.json";

/// Where the project keeps its results.
pub fn own_docs() -> PathBuf {
    workspace_root().join("docs")
}

impl Results {
    /// The results that were written into this folder, if any.
    pub fn read(docs: &Path) -> Result<Option<Self>> {
        let file = docs.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let results = serde_json::from_slice(&fs::read(&file)?);
        results.map(Some).with_context(|| format!("{}: run `make bench` anew", file.display()))
    }

    /// Writes the results into this folder.
    pub fn write(&self, docs: &Path) -> Result<()> {
        fs::create_dir_all(docs.join("benchmarks"))?;
        Ok(fs::write(docs.join(FILE), serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// A figure of a variant for an event.
    pub fn spread(&self, variant: Variant, event: Event, figure: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds(variant, event)?.iter().map(figure))
    }

    /// Processor time of one variant as a multiple of another's, round by round.
    pub fn ratio(&self, variant: Variant, to: Variant, event: Event) -> Option<Spread> {
        let (of, to) = (self.rounds(variant, event)?, self.rounds(to, event)?);
        Spread::of(of.iter().zip(to).map(|(of, to)| of.cpu_us / to.cpu_us))
    }

    /// How much other programs disturbed the measurement.
    pub fn disturbance(&self) -> Option<Spread> {
        Spread::of(self.cells.iter().flat_map(|cell| &cell.rounds).map(|round| round.disturbed))
    }

    /// The events that a variant got, from small to large.
    pub fn events(&self, variant: Variant) -> Vec<Event> {
        let cells = self.cells.iter().filter(|cell| cell.variant == variant);
        let mut events: Vec<_> = cells.map(|cell| cell.event).collect();
        events.sort_by_key(|event| (!event.customer, event.bytes));
        events
    }

    /// The footprint of a variant.
    pub fn footprint(&self, variant: Variant) -> Option<&Footprint> {
        self.footprints.iter().find(|footprint| footprint.variant == variant)
    }

    /// The measurements of a variant with an event, round by round.
    pub fn rounds(&self, variant: Variant, event: Event) -> Option<&[Round]> {
        let cell = self.cells.iter().find(|cell| cell.variant == variant && cell.event == event);
        cell.map(|cell| cell.rounds.as_slice())
    }
}
