//! The results for people: `docs/benchmarks.md`, its plots, and the lines in the README. All of it is computed.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use benches::events::{EVENTS, Event, KIB};
use benches::yardstick::Variant;
use sandbox::marked::write_between;
use sandbox::say;
use sandbox::workspace_root;

use crate::plot::{Plot, Series};
use crate::results::{Machine, Results, Round, Spread};

/// What the README has between its marks.
pub const README_MARK: &str = "make bench";
/// The results, for programs.
const RESULTS: &str = "benchmarks/results.json";

/// Something that was to be reached.
struct Goal {
    what: String,
    bound: Bound,
    unit: &'static str,
    measured: Option<f64>,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Results {
    /// The results that were written into this folder, if any were.
    pub fn read(docs: &Path) -> Result<Option<Self>> {
        let file = docs.join(RESULTS);
        if !file.exists() {
            return Ok(None);
        }
        let results = serde_json::from_slice(&fs::read(&file)?);
        results.map(Some).with_context(|| format!("{}: run `make bench` anew", file.display()))
    }

    /// Writes results, report and plots into this folder, and into the README if the folder is the project's own.
    pub fn write(&self, docs: &Path) -> Result<()> {
        fs::create_dir_all(docs.join("benchmarks"))?;
        fs::write(docs.join(RESULTS), serde_json::to_string_pretty(self)? + "\n")?;
        for (name, svg) in self.plots() {
            fs::write(docs.join("benchmarks").join(name).with_extension("svg"), svg)?;
        }
        fs::write(docs.join("benchmarks.md"), self.report()?)?;
        if docs == own_docs() {
            write_between(&workspace_root().join("README.md"), README_MARK, &self.headline()?)?;
        }
        Ok(())
    }

    /// What it comes down to, for the README.
    pub fn headline(&self) -> Result<String> {
        let mut text = String::new();
        for bytes in [2 * KIB, 16 * KIB] {
            let event = Event { bytes, customer: true };
            let Some(cpu) = self.spread(Variant::Shipped, event, |round| round.cpu_us) else { continue };
            let ratio = |to| self.ratio(Variant::Shipped, to, event).map_or("?".to_owned(), |it| up(it.median));
            writeln!(
                text,
                "- An event of {} takes {} µs of one processor: {} times the same Envoy without the filter, {} times the\n  \
                 same job in Lua, {} times a function in Node.js behind Envoy.",
                size(bytes),
                up(cpu.median),
                ratio(Variant::Bare),
                ratio(Variant::Lua),
                ratio(Variant::Node),
            )?;
        }
        writeln!(text, "\nMeasured on {}; [how, and all the rest](docs/benchmarks.md).", self.machine.cpu)?;
        Ok(text)
    }

    fn report(&self) -> Result<String> {
        let mut text = INTRODUCTION.to_owned();
        machine(&mut text, &self.machine)?;
        if let Some(it) = self.disturbance() {
            let [median, max] = [it.median, it.max].map(|part| up(part * 100.0));
            writeln!(text, "Something else took {median} % of Envoy's processor meanwhile, and {max} % at worst.")?;
        }
        self.goals_table(&mut text)?;
        self.comparison(&mut text)?;
        self.parts(&mut text)?;
        self.growth(&mut text)?;
        self.footprint_table(&mut text)?;
        self.soak_section(&mut text)?;
        text += METHOD;
        Ok(text)
    }

    fn goals(&self) -> Vec<Goal> {
        let ratio = |to: Variant, kib: usize, bound: f64| Goal {
            what: format!("processor time as a multiple of {}, {kib} KiB", described(to)),
            bound: Bound::AtMost(bound),
            unit: "",
            measured: self.ratio(Variant::Shipped, to, Event { bytes: kib * KIB, customer: true }).map(|it| it.median),
        };
        let mapping = self.mapping.iter().find(|mapping| mapping.bytes == 16 * KIB);
        let shipped = self.footprint(Variant::Shipped);
        let memory = shipped.zip(self.footprint(Variant::Bare));
        vec![
            ratio(Variant::Bare, 2, 1.20),
            ratio(Variant::Bare, 16, 1.20),
            ratio(Variant::Edits, 2, 1.05),
            ratio(Variant::Edits, 31, 1.12),
            ratio(Variant::Lua, 2, 0.80),
            ratio(Variant::Lua, 16, 0.35),
            Goal {
                what: "the mapping alone, built for this machine, 16 KiB".to_owned(),
                bound: Bound::AtLeast(1.0),
                unit: " GB/s",
                measured: mapping.map(|mapping| mapping.bytes as f64 / mapping.nanoseconds),
            },
            Goal {
                what: "size of the module".to_owned(),
                bound: Bound::AtMost(120.0),
                unit: " kB",
                measured: shipped.and_then(|it| it.module).map(|bytes| bytes as f64 / 1e3),
            },
            Goal {
                what: "memory more than without the filter, two workers".to_owned(),
                bound: Bound::AtMost(30.0),
                unit: " MB",
                measured: memory.map(|(with, without)| (with.resident as f64 - without.resident as f64) / 1e6),
            },
        ]
    }

    fn goals_table(&self, text: &mut String) -> Result<()> {
        *text += "\n## Goals\n\nFigures are rounded away from the goal's good side.\n\n\
                  | goal | bound | measured | |\n| --- | --- | --- | --- |\n";
        for Goal { what, bound, unit, measured } in self.goals() {
            let (bound, measured, met) = match (bound, measured) {
                (Bound::AtMost(bound), Some(it)) => (format!("at most {bound:.2}"), up(it), Some(it <= bound)),
                (Bound::AtLeast(bound), Some(it)) => (format!("at least {bound:.2}"), down(it), Some(it >= bound)),
                (Bound::AtMost(bound), None) => (format!("at most {bound:.2}"), String::new(), None),
                (Bound::AtLeast(bound), None) => (format!("at least {bound:.2}"), String::new(), None),
            };
            let unit = unit.to_owned();
            let measured = if met.is_some() { measured + &unit } else { measured };
            let met = met.map_or("not measured", |met| if met { "met" } else { "**not met**" });
            writeln!(text, "| {what} | {bound}{unit} | {measured} | {met} |")?;
        }
        Ok(())
    }

    fn comparison(&self, text: &mut String) -> Result<()> {
        *text += "\n## Side by side\n\n![Processor time for each request](benchmarks/cpu.svg)\n";
        for event in self.compared() {
            let kind = if event.customer { "" } else { ", answered 204" };
            write!(
                text,
                "\n### {}{kind}\n\n| | µs of processor time | times no filter | requests/s | p50, µs | p99, µs | Envoy busy |\n\
                 | --- | --- | --- | --- | --- | --- | --- |\n",
                size(event.bytes)
            )?;
            for variant in Variant::ALL {
                let get = |figure: fn(&Round) -> f64| self.spread(variant, event, figure);
                let Some(cpu) = get(|round| round.cpu_us) else { continue };
                let ratio = self.ratio(variant, Variant::Bare, event).map(|it| spread(it, 2));
                let whole = |figure| get(figure).map_or(String::new(), |it| format!("{:.0}", it.median));
                writeln!(
                    text,
                    "| {} | {} | {} | {} | {} | {} | {:.0} % |",
                    described(variant),
                    spread(cpu, 1),
                    ratio.unwrap_or_default(),
                    whole(|round| round.per_second),
                    whole(|round| round.p50_us),
                    whole(|round| round.p99_us),
                    get(|round| round.busy * 100.0).map_or(0.0, |it| it.median),
                )?;
            }
        }
        Ok(())
    }

    fn parts(&self, text: &mut String) -> Result<()> {
        *text += "\n## Where the time goes\n\nWhat each step adds, in µs for each request; the steps are the variants above.\n\n\
                  | event | Envoy itself | entering a Wasm filter | getting and setting headers and body | reading the event |\n\
                  | --- | --- | --- | --- | --- |\n";
        for event in self.events(Variant::Edits) {
            let step = |from: Option<Variant>, to| {
                let to = self.rounds(to, event)?;
                let differences = to.iter().enumerate().map(|(round, to)| {
                    let from = from.and_then(|from| self.rounds(from, event)?.get(round));
                    to.cpu_us - from.map_or(0.0, |from| from.cpu_us)
                });
                Some(spread(Spread::of(differences)?, 1))
            };
            let steps = [
                step(None, Variant::Bare),
                step(Some(Variant::Bare), Variant::Noop),
                step(Some(Variant::Noop), Variant::Edits),
                step(Some(Variant::Edits), Variant::Shipped),
            ];
            let Some(steps) = steps.into_iter().collect::<Option<Vec<_>>>() else { continue };
            writeln!(text, "| {} | {} |", size(event.bytes), steps.join(" | "))?;
        }
        if !self.mapping.is_empty() {
            *text += "\nThe mapping alone, built for this machine, by `cargo bench`:\n\n| event | µs | GB/s |\n| --- | --- | --- |\n";
            for mapping in &self.mapping {
                let rate = down(mapping.bytes as f64 / mapping.nanoseconds);
                writeln!(text, "| {} | {} | {rate} |", size(mapping.bytes), up(mapping.nanoseconds / 1e3))?;
            }
        }
        if !self.instructions.is_empty() {
            *text += "\nThe WebAssembly instructions of a request, and the calls between Envoy and the filter, in both directions, by `make \
                      instructions`; `edits` is the filter that reads nothing. It is the calls that cost, and not what is done in them:\n\n";
            *text += &self.instructions;
        }
        Ok(())
    }

    fn growth(&self, text: &mut String) -> Result<()> {
        *text += "\n## Growth\n\n![Processor time against the size of the event](benchmarks/size.svg)\n\n";
        if let Some(line) = Line::through(&self.cost_by_size(Variant::Shipped)) {
            writeln!(
                text,
                "A line through the points of the filter: {:.1} µs, and {:.2} µs for each KiB. No point is further from it \
                 than {} %.\n",
                line.offset,
                line.slope,
                up(line.furthest * 100.0)
            )?;
        }
        if self.workers.is_empty() {
            return Ok(());
        }
        *text += "![Requests a second against the number of workers](benchmarks/workers.svg)\n\n\
                  The load and the stand-in for Segment run on the same processors here, so that more workers have less of\n\
                  them left; the processor time for each request tells what a worker more costs.\n\n\
                  | workers | | requests/s | µs of processor time |\n| --- | --- | --- | --- |\n";
        for it in &self.workers {
            let get = |figure: fn(&Round) -> f64| Spread::of(it.rounds.iter().map(figure)).context("no round");
            let (rate, cpu) = (get(|round| round.per_second)?, get(|round| round.cpu_us)?);
            writeln!(
                text,
                "| {} | {} | {} | {} |",
                it.workers,
                described(it.variant),
                spread(rate, 0),
                spread(cpu, 1)
            )?;
        }
        Ok(())
    }

    fn footprint_table(&self, text: &mut String) -> Result<()> {
        if self.footprints.is_empty() {
            return Ok(());
        }
        *text += "\n## Start-up, memory, size\n\nWith two workers; the memory after some events of 2 KiB.\n\n\
                  | | ms until it takes connections | MB resident | module, kB |\n| --- | --- | --- | --- |\n";
        for it in &self.footprints {
            let start = Spread::of(it.start_ms.iter().copied()).context("no start")?;
            let module = it.module.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / 1e3));
            writeln!(
                text,
                "| {} | {} | {:.1} | {module} |",
                described(it.variant),
                spread(start, 0),
                it.resident as f64 / 1e6
            )?;
        }
        Ok(())
    }

    fn soak_section(&self, text: &mut String) -> Result<()> {
        let Some(soak) = &self.soak else { return Ok(()) };
        let (requests, _) = soak.samples.last().context("no sample")?;
        write!(
            text,
            "\n## Soak\n\n![Memory over a long run](benchmarks/soak.svg)\n\nOver {requests} requests, events of all sizes in \
             turn, Envoy's memory grew by {:.2} MB from a tenth of the run to its end (`make soak`).\n",
            soak.growth().context("no growth")? as f64 / 1e6,
        )?;
        if soak.machine != self.machine {
            text.push('\n');
            machine(text, &soak.machine)?;
        }
        Ok(())
    }

    /// The events that all variants got.
    fn compared(&self) -> Vec<Event> {
        let measured = |event: &Event| self.rounds(Variant::Shipped, *event).is_some();
        EVENTS.into_iter().filter(measured).collect()
    }

    /// Size in KiB, and median processor time in µs.
    fn cost_by_size(&self, variant: Variant) -> Vec<(f64, f64)> {
        let events = self.events(variant).into_iter().filter(|event| event.customer);
        let point = |event: Event| {
            let cpu = self.spread(variant, event, |round| round.cpu_us)?;
            Some((event.bytes as f64 / KIB as f64, cpu.median))
        };
        events.filter_map(point).collect()
    }

    fn plots(&self) -> Vec<(&'static str, String)> {
        let compared = self.compared();
        let cpu = Variant::ALL.into_iter().map(|variant| {
            let figure = |event: &Event| self.spread(variant, *event, |round| round.cpu_us);
            let points = compared.iter().enumerate().filter_map(|(at, event)| Some((at as f64, figure(event)?.median)));
            series(variant, points.collect())
        });
        let groups: Vec<_> = compared
            .iter()
            .map(|event| format!("{}{}", size(event.bytes), if event.customer { "" } else { ", 204" }))
            .collect();
        let by_size = [Variant::Bare, Variant::Edits, Variant::Shipped, Variant::Lua];
        let by_size = by_size.map(|it| series(it, self.cost_by_size(it)));
        let by_workers = [Variant::Bare, Variant::Shipped].map(|variant| {
            let own = self.workers.iter().filter(|it| it.variant == variant);
            let rate = |rounds: &[Round]| Spread::of(rounds.iter().map(|round| round.per_second));
            let points = own.filter_map(|it| Some((f64::from(it.workers), rate(&it.rounds)?.median)));
            series(variant, points.collect())
        });
        let time = "µs of processor time";
        let mut plots = vec![
            (
                "cpu",
                Plot {
                    title: "Processor time for each request",
                    x: "size of the event",
                    y: time,
                    series: cpu.collect(),
                }
                .bars(&groups),
            ),
            (
                "size",
                Plot {
                    title: "Processor time against the size of the event",
                    x: "KiB",
                    y: time,
                    series: by_size.into(),
                }
                .lines(),
            ),
        ];
        if !self.workers.is_empty() {
            let title = "Requests a second against the number of workers, events of 2 KiB";
            let plot = Plot { title, x: "workers", y: "requests a second", series: by_workers.into() };
            plots.push(("workers", plot.lines()));
        }
        if let Some(soak) = &self.soak {
            let points = soak.samples.iter().map(|(requests, bytes)| (*requests as f64, *bytes as f64 / 1e6)).collect();
            let series = vec![series(Variant::Shipped, points)];
            let plot = Plot { title: "Memory over a long run", x: "requests", y: "MB resident", series };
            plots.push(("soak", plot.lines()));
        }
        plots
    }
}

/// Makes the report anew from the results, and says what the README has of them.
pub fn run(into: Option<PathBuf>) -> Result<()> {
    let docs = into.unwrap_or_else(own_docs);
    let results = Results::read(&docs)?.context("there are no results: run `make bench` first")?;
    results.write(&docs)?;
    say!("{}", results.headline()?.trim_end());
    Ok(())
}

/// Where the project keeps its results.
pub fn own_docs() -> PathBuf {
    workspace_root().join("docs")
}

/// The straight line that fits some points best.
struct Line {
    offset: f64,
    slope: f64,
    /// The largest distance of a point from it, as a part of the point's own height.
    furthest: f64,
}

impl Line {
    fn through(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / n;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>()
            / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
        let offset = y - slope * x;
        let away = |point: &(f64, f64)| (offset + slope * point.0 - point.1).abs() / point.1;
        (points.len() > 2).then(|| Self { offset, slope, furthest: points.iter().map(away).fold(0.0, f64::max) })
    }
}

fn machine(text: &mut String, machine: &Machine) -> Result<()> {
    let Machine { cpu, processors, kernel, envoy, date, commit } = machine;
    Ok(writeln!(
        text,
        "Measured on {date} at commit `{commit}`: {cpu}, {processors} processors, Linux {kernel}, Envoy {envoy}."
    )?)
}

fn series(variant: Variant, points: Vec<(f64, f64)>) -> Series<'static> {
    let colour = Variant::ALL.iter().position(|other| *other == variant).unwrap_or_default();
    Series { name: described(variant), points, colour }
}

fn described(variant: Variant) -> &'static str {
    match variant {
        Variant::Bare => "no filter",
        Variant::Noop => "a no-op filter",
        Variant::Edits => "reading nothing",
        Variant::Shipped => "this filter",
        Variant::Lua => "Lua",
        Variant::Buffered => "buffer filter",
        Variant::Node => "Node.js",
    }
}

fn size(bytes: usize) -> String {
    format!("{} KiB", bytes as f64 / KIB as f64)
}

fn spread(it: Spread, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$} to {:.digits$})", it.median, it.min, it.max)
}

fn up(value: f64) -> String {
    format!("{:.2}", (value * 100.0).ceil() / 100.0)
}

fn down(value: f64) -> String {
    format!("{:.2}", (value * 100.0).floor() / 100.0)
}

const INTRODUCTION: &str = "\
# Benchmarks

Written by `make bench` and `make soak`. What the filter costs, beside what else could be in its place: the same Envoy with
the same `envoy.yaml`, and

- **no filter**: the event is sent on as it is;
- **a no-op filter**: a Wasm filter that does nothing;
- **reading nothing**: this filter from its own sources, with the same host calls and the same bytes sent, but the event is
  not looked at;
- **this filter** as shipped;
- **Lua**: the same job in Envoy's Lua filter, with the same outcome for each webhook (`benches/yardsticks/filter.lua`);
- **buffer filter**: this filter with `hold_request_headers: false` and the stock buffer filter;
- **Node.js**: the mapping as somebody would write it for a serverless function (`benches/yardsticks/function.js`), in a
  server of its own that Envoy sends the event to. Its processor time is Envoy's and the server's together.

";

const METHOD: &str = "
## How it is measured

Each variant runs in an Envoy of its own with one worker, on a processor of its own that all variants share; the load (wrk,
which sends the next event on a connection when the last one is answered), the stand-in for Segment and Node.js are on the
others. In each round each variant has one turn with each event, in an order that is another one in each round; a first round
warms up and does not count. A turn that something else on Envoy's processor disturbed is taken again, and the least disturbed one
counts. Every answer is checked, and so is the number of calls that reached the stand-in.

Where Envoy is not busy all the time, what is around it holds it back: its requests a second are then no limit of its own, and
its processor time for each is a little higher than it need be.

A figure is the median of the rounds, and in brackets the least and the most. A ratio is made round by round. Processor time
is what the kernel counts for all threads of the process. `results.json` beside the plots has every round.

`envoy.yaml` is changed in three places, for all variants alike: no limit on the rate, no TLS to the stand-in, and the access
log goes to `/dev/null`. Without a filter Envoy cannot tell an event that is to be answered 204, so that there is no such row.
The Lua filter keeps no metrics, which Lua cannot; the function does not keep the event's bytes.
";
