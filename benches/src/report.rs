//! The report for readers: the generated parts of `docs/benchmarks.md`, its plots, and the table in the README.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use benches::events::{EVENTS, Event, KIB, TYPICAL};
use benches::yardstick::Variant;
use sandbox::generated::write_between;
use sandbox::{say, workspace_root};

use crate::figure::{Spread, figure};
use crate::plot::{Plot, Point, Series};
use crate::results::{Machine, Results, Round, own_docs};

/// The page whose parts are generated.
const PAGE: &str = "benchmarks.md";

/// Writes all generated parts from the results in a folder, and prints the README's table.
pub fn run(into: Option<PathBuf>) -> Result<()> {
    let docs = into.unwrap_or_else(own_docs);
    let results = Results::read(&docs)?.context("there are no results: run `make bench` first")?;
    write(&results, &docs)?;
    say!("{}", headline(&results)?.trim_end());
    Ok(())
}

/// Writes the page and its plots into a folder, and the table into the README if it is the project's own folder.
pub fn write(results: &Results, docs: &Path) -> Result<()> {
    fs::create_dir_all(docs.join("benchmarks"))?;
    for (name, svg) in plots(results) {
        fs::write(docs.join("benchmarks").join(name).with_extension("svg"), svg)?;
    }
    let page = docs.join(PAGE);
    if !page.exists() {
        fs::copy(own_docs().join(PAGE), &page)?;
    }
    for (name, part) in [
        ("machine", measured(results)?),
        ("goals", goals_table(results)?),
        ("comparison", comparison(results)?),
        ("steps", steps(results)?),
        ("mapping", mapping(results)?),
        ("instructions", results.instructions.clone()),
        ("growth", growth(results)?),
        ("workers", workers(results)?),
        ("footprint", footprint(results)?),
        ("soak", soak(results)?),
    ] {
        // Markdown needs empty lines around a table.
        write_between(&page, &format!("make bench: {name}"), &format!("\n{part}\n"))?;
    }
    if docs == own_docs() {
        write_between(&workspace_root().join("README.md"), "make bench", &headline(results)?)?;
    }
    Ok(())
}

/// The table in the README.
pub fn headline(results: &Results) -> Result<String> {
    let others = [Variant::Bare, Variant::Lua, Variant::Node];
    let mut text = head(&["event", "", "µs of processor time", "times no filter", "times Lua", "times Node.js"]);
    for event in [2 * KIB, 16 * KIB].map(|bytes| Event { bytes, customer: true }) {
        for (variant, shell) in [(Variant::Shipped, "Wasm module"), (Variant::Native, "dynamic module")] {
            let Some(cpu) = results.spread(variant, event, |round| round.cpu_us) else { continue };
            let ratios = others.map(|other| or_nothing(results.ratio(variant, other, event)));
            writeln!(text, "| {} | {shell} | {cpu} | {} |", size(event.bytes), ratios.join(" | "))?;
        }
    }
    writeln!(text, "\nMeasured on {}; [how, and all other figures](docs/benchmarks.md).", results.machine.cpu)?;
    Ok(text)
}

fn measured(results: &Results) -> Result<String> {
    let mut text = sentence(&results.machine);
    if let Some(disturbance) = results.disturbance() {
        let [median, max] = [disturbance.median, disturbance.max].map(|part| figure(part * 100.0));
        writeln!(text, "Other processes took {median} % of Envoy's processor, and {max} % in the worst turn.")?;
    }
    Ok(text)
}

fn sentence(machine: &Machine) -> String {
    let Machine { cpu, processors, kernel, envoy, date, commit } = machine;
    format!("Measured on {date} at commit `{commit}`: {cpu}, {processors} processors, Linux {kernel}, Envoy {envoy}.\n")
}

/// A goal of the project.
struct Goal {
    what: String,
    bound: Bound,
    unit: &'static str,
    measured: Option<Spread>,
    /// For the processor time of a variant: the same as a multiple of no filter.
    to_no_filter: Option<Spread>,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

fn goals(results: &Results) -> Vec<Goal> {
    let ratio = |of: Variant, to: Variant, kib: usize, bound: f64| Goal {
        what: format!("processor time of {} as a multiple of {}, {kib} KiB", described(of), described(to)),
        bound: Bound::AtMost(bound),
        unit: "",
        measured: results.ratio(of, to, Event { bytes: kib * KIB, customer: true }),
        to_no_filter: results.ratio(of, Variant::Bare, Event { bytes: kib * KIB, customer: true }),
    };
    let one = |value: f64| Spread { min: value, median: value, max: value };
    let mapping = results.mapping.iter().find(|mapping| mapping.bytes == 16 * KIB);
    let shipped = results.footprint(Variant::Shipped);
    let memory = |of: Variant, bound: f64| Goal {
        what: format!("additional memory of {}, two workers", described(of)),
        bound: Bound::AtMost(bound),
        unit: " MB",
        measured: results
            .footprint(of)
            .zip(results.footprint(Variant::Bare))
            .map(|(with, without)| one((with.resident as f64 - without.resident as f64) / 1e6)),
        to_no_filter: None,
    };
    let start = |variant| {
        let starts = results.footprint(variant)?.start_ms.iter().copied();
        Some(Spread::of(starts)?.median)
    };
    vec![
        ratio(Variant::Shipped, Variant::Floor, 2, 1.12),
        ratio(Variant::Shipped, Variant::Floor, 16, 1.22),
        ratio(Variant::Native, Variant::NativeFloor, 2, 1.06),
        ratio(Variant::Native, Variant::NativeFloor, 16, 1.18),
        ratio(Variant::Native, Variant::Lua, 2, 0.65),
        ratio(Variant::Native, Variant::Lua, 16, 0.50),
        ratio(Variant::Native, Variant::Script, 2, 1.00),
        ratio(Variant::Native, Variant::Script, 16, 1.05),
        Goal {
            what: "the mapping alone, built for this machine, 16 KiB".to_owned(),
            bound: Bound::AtLeast(1.0),
            unit: " GB/s",
            measured: mapping.map(|mapping| one(mapping.bytes as f64 / mapping.nanoseconds)),
            to_no_filter: None,
        },
        Goal {
            what: "size of the module".to_owned(),
            bound: Bound::AtMost(120.0),
            unit: " kB",
            measured: shipped.and_then(|it| it.module).map(|bytes| one(bytes as f64 / 1e3)),
            to_no_filter: None,
        },
        memory(Variant::Shipped, 30.0),
        memory(Variant::Native, 3.0),
        Goal {
            what: format!("additional time to start of {}", described(Variant::Native)),
            bound: Bound::AtMost(10.0),
            unit: " ms",
            measured: start(Variant::Native).zip(start(Variant::Bare)).map(|(with, without)| one(with - without)),
            to_no_filter: None,
        },
    ]
}

fn goals_table(results: &Results) -> Result<String> {
    let mut text = head(&["goal", "bound", "measured", "", "times no filter"]);
    for Goal { what, bound, unit, measured, to_no_filter } in goals(results) {
        let (least_or_most, bound, is_met) = match bound {
            Bound::AtMost(bound) => ("at most", bound, measured.map(|measured| measured.median <= bound)),
            Bound::AtLeast(bound) => ("at least", bound, measured.map(|measured| measured.median >= bound)),
        };
        let measured = match measured {
            Some(Spread { min, median, max }) if min == max => figure(median) + unit,
            measured => or_nothing(measured),
        };
        let verdict = is_met.map_or("not measured", |is_met| if is_met { "met" } else { "**not met**" });
        let to_no_filter = or_nothing(to_no_filter);
        writeln!(
            text,
            "| {what} | {least_or_most} {}{unit} | {measured} | {verdict} | {to_no_filter} |",
            figure(bound)
        )?;
    }
    Ok(text)
}

fn comparison(results: &Results) -> Result<String> {
    let mut text = String::new();
    for event in compared(results) {
        let kind = if event.customer { "" } else { ", answered 204" };
        let columns =
            ["", "µs of processor time", "times no filter", "requests/s", "p50, µs", "p99, µs", "Envoy busy, %"];
        write!(text, "### {}{kind}\n\n{}", size(event.bytes), head(&columns))?;
        for variant in Variant::ALL {
            if results.rounds(variant, event).is_none() {
                continue;
            }
            let get = |figure: fn(&Round) -> f64| or_nothing(results.spread(variant, event, figure));
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                described(variant),
                get(|round| round.cpu_us),
                or_nothing(results.ratio(variant, Variant::Bare, event)),
                get(|round| round.per_second),
                get(|round| round.p50_us),
                get(|round| round.p99_us),
                get(|round| round.busy * 100.0),
            )?;
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    Ok(text + "\n")
}

fn steps(results: &Results) -> Result<String> {
    let columns = [
        "event",
        "Envoy itself",
        "entering a Wasm filter",
        "holding, reading and rewriting a request (the floor)",
        "all other headers, the mark, the counter, the log",
        "reading the event",
        "natively: the floor",
        "natively: everything else",
    ];
    let mut text = head(&columns);
    for event in results.events(Variant::Edits) {
        let step = |from: Option<Variant>, to| {
            let to = results.rounds(to, event)?;
            let differences = to.iter().enumerate().map(|(round, to)| {
                let from = from.and_then(|from| results.rounds(from, event)?.get(round));
                to.cpu_us - from.map_or(0.0, |from| from.cpu_us)
            });
            Some(Spread::of(differences)?.to_string())
        };
        let steps = [
            step(None, Variant::Bare),
            step(Some(Variant::Bare), Variant::Noop),
            step(Some(Variant::Noop), Variant::Floor),
            step(Some(Variant::Floor), Variant::Edits),
            step(Some(Variant::Edits), Variant::Shipped),
            step(Some(Variant::Bare), Variant::NativeFloor),
            step(Some(Variant::NativeFloor), Variant::Native),
        ];
        let Some(steps) = steps.into_iter().collect::<Option<Vec<_>>>() else { continue };
        writeln!(text, "| {} | {} |", size(event.bytes), steps.join(" | "))?;
    }
    Ok(text)
}

fn mapping(results: &Results) -> Result<String> {
    let mut text = head(&["event", "µs", "GB/s"]);
    for mapping in &results.mapping {
        let rate = figure(mapping.bytes as f64 / mapping.nanoseconds);
        writeln!(text, "| {} | {} | {rate} |", size(mapping.bytes), figure(mapping.nanoseconds / 1e3))?;
    }
    Ok(text)
}

fn growth(results: &Results) -> Result<String> {
    let mut text = head(&["µs for any event", "µs for each KiB", "largest distance of an event from that line, %"]);
    if let Some(line) = Line::through(&cost_by_size(results, Variant::Shipped)) {
        let Line { offset, slope, furthest } = line;
        writeln!(text, "| {} | {} | {} |", figure(offset), figure(slope), figure(furthest * 100.0))?;
    }
    Ok(text)
}

fn workers(results: &Results) -> Result<String> {
    let mut text = head(&["workers", "", "requests/s", "µs of processor time"]);
    for it in &results.workers {
        let get = |figure: fn(&Round) -> f64| or_nothing(Spread::of(it.rounds.iter().map(figure)));
        let (rate, cpu) = (get(|round| round.per_second), get(|round| round.cpu_us));
        writeln!(text, "| {} | {} | {rate} | {cpu} |", it.workers, described(it.variant))?;
    }
    Ok(text)
}

fn footprint(results: &Results) -> Result<String> {
    let mut text = head(&["", "ms until it accepts connections", "MB resident", "module, kB"]);
    for it in &results.footprints {
        let start = or_nothing(Spread::of(it.start_ms.iter().copied()));
        let module = it.module.map_or(String::new(), |bytes| figure(bytes as f64 / 1e3));
        writeln!(text, "| {} | {start} | {} | {module} |", described(it.variant), figure(it.resident as f64 / 1e6))?;
    }
    Ok(text)
}

fn soak(results: &Results) -> Result<String> {
    let Some(soak) = &results.soak else { return Ok("Not measured.\n".to_owned()) };
    let (requests, _) = soak.samples.last().context("no sample")?;
    let growth = figure(soak.growth().context("no growth")? as f64 / 1e6);
    let mut text = format!("Envoy's memory grew by {growth} MB over {requests} requests.\n");
    if soak.machine != results.machine {
        text += &sentence(&soak.machine);
    }
    Ok(text)
}

/// The events that all variants got.
fn compared(results: &Results) -> Vec<Event> {
    EVENTS.into_iter().filter(|event| results.rounds(Variant::Shipped, *event).is_some()).collect()
}

/// Processor time in µs by size in KiB.
fn cost_by_size(results: &Results, variant: Variant) -> Vec<Point> {
    let events = results.events(variant).into_iter().filter(|event| event.customer);
    let point = |event: Event| {
        let y = results.spread(variant, event, |round| round.cpu_us)?;
        Some(Point { x: event.bytes as f64 / KIB as f64, y })
    };
    events.filter_map(point).collect()
}

fn plots(results: &Results) -> Vec<(&'static str, String)> {
    let compared = compared(results);
    let cpu = Variant::ALL.into_iter().map(|variant| {
        let figure = |event: &Event| results.spread(variant, *event, |round| round.cpu_us);
        let points =
            compared.iter().enumerate().filter_map(|(at, event)| Some(Point { x: at as f64, y: figure(event)? }));
        series(variant, points.collect())
    });
    let groups: Vec<_> = compared
        .iter()
        .map(|event| format!("{}{}", size(event.bytes), if event.customer { "" } else { ", 204" }))
        .collect();
    let by_size = [Variant::Bare, Variant::Edits, Variant::Shipped, Variant::Native, Variant::Lua];
    let by_size = by_size.map(|it| series(it, cost_by_size(results, it)));
    let by_workers = [Variant::Bare, Variant::Shipped, Variant::Native].map(|variant| {
        let own = results.workers.iter().filter(|it| it.variant == variant);
        let rate = |rounds: &[Round]| Spread::of(rounds.iter().map(|round| round.per_second));
        series(variant, own.filter_map(|it| Some(Point { x: f64::from(it.workers), y: rate(&it.rounds)? })).collect())
    });
    let y = "µs of processor time";
    let title = "Processor time for each request";
    let bars = Plot { title, x: "size of the event", y, series: cpu.collect() }.bars(&groups);
    let title = "Processor time against the size of the event";
    let mut plots = vec![("cpu", bars), ("size", Plot { title, x: "KiB", y, series: by_size.into() }.lines())];
    if !results.workers.is_empty() {
        let title = format!("Requests a second against the number of workers, events of {}", size(TYPICAL.bytes));
        let plot = Plot { title: &title, x: "workers", y: "requests a second", series: by_workers.into() };
        plots.push(("workers", plot.lines()));
    }
    if let Some(soak) = &results.soak {
        let memory = |bytes: u64| Spread::of([bytes as f64 / 1e6]);
        let points = soak.samples.iter().filter_map(|(at, bytes)| Some(Point { x: *at as f64, y: memory(*bytes)? }));
        let series = vec![series(Variant::Shipped, points.collect())];
        let plot = Plot { title: "Memory over a long run", x: "requests", y: "MB resident", series };
        plots.push(("soak", plot.lines()));
    }
    plots
}

/// The straight line that fits some points best.
struct Line {
    offset: f64,
    slope: f64,
    /// The largest distance of a point from the line, as a part of the point's height.
    furthest: f64,
}

impl Line {
    fn through(points: &[Point]) -> Option<Self> {
        let points: Vec<_> = points.iter().map(|point| (point.x, point.y.median)).collect();
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

fn series(variant: Variant, points: Vec<Point>) -> Series<'static> {
    let colour = Variant::ALL.iter().position(|other| *other == variant).unwrap_or_default();
    Series { name: described(variant), points, colour }
}

/// The head of a table.
fn head(columns: &[&str]) -> String {
    format!("| {} |\n|{}\n", columns.join(" | "), " --- |".repeat(columns.len()))
}

fn or_nothing(spread: Option<Spread>) -> String {
    spread.map_or(String::new(), |spread| spread.to_string())
}

fn described(variant: Variant) -> &'static str {
    match variant {
        Variant::Bare => "no filter",
        Variant::Noop => "no-op filter",
        Variant::Floor => "Wasm floor",
        Variant::Edits => "reading nothing",
        Variant::Shipped => "this filter",
        Variant::NativeFloor => "native floor",
        Variant::Native => "this filter, native",
        Variant::Lua => "Lua",
        Variant::Script => "ten-minute Lua",
        Variant::Buffered => "buffer filter",
        Variant::Node => "Node.js",
    }
}

fn size(bytes: usize) -> String {
    format!("{} KiB", bytes as f64 / KIB as f64)
}
