//! The footprint of a variant without load: its start-up time and its memory.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use benches::events::Event;
use benches::yardstick::{Gateway, Variant};
use sandbox::envoy::Config;

use crate::proc;
use crate::results::Footprint;
use crate::turn::{Processors, for_load, load_of, measure, options, upstream};

/// Workers, as in the goals.
const WORKERS: u32 = 2;
/// How often each is started.
const STARTS: usize = 5;

/// The footprint of each variant that runs in Envoy alone.
pub async fn footprints(variants: &[Variant], event: Event, processors: &Processors) -> Result<Vec<Footprint>> {
    let segment = upstream().await?;
    let load = load_of(event)?;
    let mut footprints: Vec<Footprint> = Vec::new();
    for start in 0..STARTS {
        for (place, &variant) in variants.iter().filter(|variant| **variant != Variant::Node).enumerate() {
            let started = Instant::now();
            let options = options(WORKERS, &processors.envoy);
            let gateway = Gateway::start(variant, &segment, for_load, options, &[]).await?;
            let took = started.elapsed().as_secs_f64() * 1e3;
            if start == 0 {
                let module = module(variant)?;
                footprints.push(Footprint { variant, start_ms: Vec::new(), resident: 0, module });
            }
            let footprint = footprints.get_mut(place).context("it was added")?;
            footprint.start_ms.push(took);
            if start + 1 == STARTS {
                measure(&gateway, &segment, processors, &load, event, 1).await?;
                footprint.resident = proc::resident(gateway.envoy.pid())?;
            }
        }
    }
    Ok(footprints)
}

fn module(variant: Variant) -> Result<Option<u64>> {
    let config = match variant {
        Variant::Bare | Variant::Lua | Variant::Script | Variant::Node => return Ok(None),
        variant => variant.put_into(Config::shipped_with(variant.shell())?)?,
    };
    Ok(Some(fs::metadata(config.module_file()?)?.len()))
}
