//! `make instructions`: counts the WebAssembly instructions that the shipped module executes for an event, and the calls
//! between host and module. The counts are the same in every run and on every machine, so they show the effect of a change
//! without noise. The engine counts the instructions as fuel; the host does only what the module needs.

#[path = "../../../sandbox/src/synthetic.rs"]
mod synthetic;

use second_host::fixtures::repository;
use wasmtime::error::Context;
use wasmtime::{Caller, Config, Engine, Extern, ExternType, Instance, Linker, Module, Result, Store, Val, ensure};

/// Sizes of the events, in bytes.
const SIZES: [usize; 4] = [512, 2 * 1024, 16 * 1024, 31 * 1024];

/// With inline secrets, because there is no environment.
const CONFIGURATION: &str = r#"{
    "hold_request_headers": true,
    "write_key": { "value": "wk0123456789abcdefghijklmnopqrst" },
    "webhook_secret": { "value": "whsec-0123456789" }
}"#;

const REQUEST: [(&str, &str); 9] = [
    (":authority", "edge.example.com"),
    (":path", "/v1/track"),
    (":method", "POST"),
    (":scheme", "https"),
    ("stigg-webhooks-secret", "whsec-0123456789"),
    ("content-type", "application/json"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "6a1b6bd0-5c1c-4d0e-9d59-0c8d6d1f2a33"),
    ("user-agent", "Stigg"),
];

/// `Action` of the ABI.
const CONTINUE: u32 = 0;
/// `BufferType` of the ABI.
const PLUGIN_CONFIGURATION: u32 = 7;
const ROOT: u32 = 1;
const STREAM: u32 = 2;

/// The data for the module, and what it has done.
#[derive(Default)]
struct Host {
    body: Vec<u8>,
    edits: usize,
    /// Calls in both directions.
    calls: u64,
}

struct Guest {
    store: Store<Host>,
    instance: Instance,
}

/// The filter, and the variant that does not read the event (`benches/yardsticks/edits`).
const MODULES: [&str; 2] = ["stigg_segment", "edits"];

fn main() -> Result<()> {
    let built = repository().ok().context("not in the repository")?.join("target/wasm32-wasip1/release");
    let engine = Engine::new(Config::new().consume_fuel(true))?;
    println!(
        "| module | event, KiB | headers | body | end | all | calls |\n| --- | --- | --- | --- | --- | --- | --- |"
    );
    for name in MODULES {
        let file = built.join(name).with_extension("wasm");
        let module = Module::from_file(&engine, &file).with_context(|| format!("{}: `make build`", file.display()))?;
        for size in SIZES {
            let mut guest = Guest::start(&engine, &module)?;
            let ([headers, body, rest], calls) = guest.serve(&synthetic::event(size, Some("acme")))?;
            let (kib, all) = (size as f64 / 1024.0, headers + body + rest);
            println!("| {name} | {kib} | {headers} | {body} | {rest} | {all} | {calls} |");
        }
    }
    Ok(())
}

impl Guest {
    fn start(engine: &Engine, module: &Module) -> Result<Self> {
        let mut store = Store::new(engine, Host::default());
        store.set_fuel(u64::MAX)?;
        let mut linker = Linker::new(engine);
        linker.func_wrap("env", "proxy_get_buffer_bytes", get_buffer_bytes)?;
        linker.func_wrap("env", "proxy_get_header_map_pairs", get_header_map_pairs)?;
        linker.func_wrap("env", "proxy_set_buffer_bytes", set_buffer_bytes)?;
        // Every other call succeeds, and does nothing.
        for import in module.imports() {
            if let (None, ExternType::Func(kind)) = (linker.get_by_import(&mut store, &import), import.ty()) {
                linker.func_new(import.module(), import.name(), kind, |mut caller, _, results| {
                    caller.data_mut().calls += 1;
                    results.fill(Val::I32(0));
                    Ok(())
                })?;
            }
        }
        let instance = linker.instantiate(&mut store, module)?;
        let mut guest = Self { store, instance };
        guest.call::<(), ()>("_initialize", ())?;
        guest.call::<_, ()>("proxy_on_context_create", (ROOT, 0))?;
        guest.call::<_, u32>("proxy_on_vm_start", (ROOT, 0))?;
        let (configured, _) = guest.call::<_, u32>("proxy_on_configure", (ROOT, CONFIGURATION.len() as u32))?;
        ensure!(configured == 1, "the module rejects its configuration");
        Ok(guest)
    }

    /// The instructions for a request's headers, for its body, and for the end; and the calls.
    fn serve(&mut self, event: &str) -> Result<([u64; 3], u64)> {
        let size = event.len() as u32;
        self.store.data_mut().body = event.as_bytes().to_vec();
        // The first request fills caches.
        self.request(size)?;
        self.store.data_mut().calls = 0;
        let [headers, body, rest] = self.request(size)?;
        ensure!(self.store.data().edits == 4, "the event was not mapped");
        ensure!(body.0 == CONTINUE, "the request was not sent on");
        Ok(([headers.1, body.1, rest.1], self.store.data().calls))
    }

    /// The last result of each part, and its instructions.
    fn request(&mut self, size: u32) -> Result<[(u32, u64); 3]> {
        let (_, create) = self.call::<_, ()>("proxy_on_context_create", (STREAM, ROOT))?;
        let (held, headers) = self.call::<_, u32>("proxy_on_request_headers", (STREAM, REQUEST.len() as u32, 0))?;
        let (sent, body) = self.call::<_, u32>("proxy_on_request_body", (STREAM, size, 1))?;
        let (_, delete) = self.call::<_, ()>("proxy_on_delete", STREAM)?;
        Ok([(held, create + headers), (sent, body), (CONTINUE, delete)])
    }

    /// Calls an export; returns its result and the number of instructions.
    fn call<P: wasmtime::WasmParams, R: wasmtime::WasmResults>(
        &mut self,
        export: &str,
        parameters: P,
    ) -> Result<(R, u64)> {
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, export)?;
        self.store.data_mut().calls += 1;
        let before = self.store.get_fuel()?;
        let result = function.call(&mut self.store, parameters)?;
        Ok((result, before - self.store.get_fuel()?))
    }
}

fn set_buffer_bytes(mut caller: Caller<'_, Host>, _: u32, _: u32, _: u32, _: u32, _: u32) -> u32 {
    caller.data_mut().calls += 1;
    caller.data_mut().edits += 1;
    0
}

fn get_buffer_bytes(caller: Caller<'_, Host>, buffer: u32, start: u32, max: u32, data: u32, size: u32) -> Result<u32> {
    let bytes = match buffer {
        PLUGIN_CONFIGURATION => CONFIGURATION.as_bytes().to_vec(),
        _ => caller.data().body.clone(),
    };
    let bytes = bytes.into_iter().skip(start as usize).take(max as usize).collect::<Vec<_>>();
    give(caller, &bytes, data, size)
}

fn get_header_map_pairs(caller: Caller<'_, Host>, _: u32, data: u32, size: u32) -> Result<u32> {
    let mut map = (REQUEST.len() as u32).to_le_bytes().to_vec();
    for (name, value) in REQUEST {
        map.extend([name.len() as u32, value.len() as u32].iter().flat_map(|size| size.to_le_bytes()));
    }
    for (name, value) in REQUEST {
        map.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    give(caller, &map, data, size)
}

/// Passes bytes as the ABI requires: in memory that the module has allocated.
fn give(mut caller: Caller<'_, Host>, bytes: &[u8], data: u32, size: u32) -> Result<u32> {
    let export = |caller: &mut Caller<'_, Host>, name: &str| caller.get_export(name);
    let allocate = export(&mut caller, "proxy_on_memory_allocate").and_then(Extern::into_func);
    let memory = export(&mut caller, "memory").and_then(Extern::into_memory);
    let (Some(allocate), Some(memory)) = (allocate, memory) else { return Ok(1) };
    caller.data_mut().calls += 2; // this one, and the allocation
    let place = allocate.typed::<u32, u32>(&caller)?.call(&mut caller, bytes.len() as u32)?;
    memory.write(&mut caller, place as usize, bytes)?;
    memory.write(&mut caller, data as usize, &place.to_le_bytes())?;
    memory.write(&mut caller, size as usize, &(bytes.len() as u32).to_le_bytes())?;
    Ok(0)
}
