//! A child process that cannot outlive its owner, with its output; and the processors that processes may use.

use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
#[cfg(target_os = "linux")]
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use tokio::sync::watch;

/// A child process. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    child: Arc<Mutex<Child>>,
    log: Arc<Log>,
    exit: watch::Receiver<Option<ExitStatus>>,
    keeper: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts the command.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_owned();
        let (output, writer) = pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // Ctrl-C in a terminal must reach only the owner, which then ends the child in good order.
        command.process_group(0);
        heed_interrupts(&mut command);
        die_with_parent(&mut command);

        let log = Arc::new(Log::default());
        let (exit_sender, exit) = watch::channel(None);
        let (child_sender, child) = mpsc::channel();
        // The child dies with the thread that starts it (see `die_with_parent`). So that thread must live as long as the
        // child: not a test's thread, nor one of a pool.
        let keeper = thread::Builder::new().name("child".to_owned()).spawn({
            let log = Arc::clone(&log);
            move || {
                let spawned = command.spawn();
                drop(command); // with its ends of the pipe, so that the output ends with the child
                match spawned {
                    Ok(child) => {
                        let child = Arc::new(Mutex::new(child));
                        let _ = child_sender.send(Ok(Arc::clone(&child)));
                        log.fill(output);
                        exit_sender.send_replace(wait(&child));
                    }
                    Err(error) => {
                        let _ = child_sender.send(Err(error));
                    }
                }
            }
        })?;
        let child = child.recv()?.with_context(|| format!("cannot run {}", name.display()))?;
        let pid = child.lock().unwrap().id();
        Ok(Self { pid, child, log, exit, keeper: Some(keeper) })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its output.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Sends a signal. It is no error if the child has already ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The lock keeps the child from being reaped, so that its id cannot become another process's.
        let mut child = self.child.lock().unwrap();
        if child.try_wait()?.is_none() {
            kill(Pid::from_raw(self.pid.try_into()?), signal)?;
        }
        Ok(())
    }

    /// Waits until it has ended.
    pub async fn exited(&self) -> ExitStatus {
        let status = self.exit.clone().wait_for(Option::is_some).await.map(|status| *status);
        status.ok().flatten().expect("the keeper reports the end before it ends itself")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.signal(Signal::SIGKILL);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Lets the kernel kill the child when the thread that started it ends: a backstop for an owner that had no chance to drop
/// the child. Only Linux has this.
pub(crate) fn die_with_parent(command: &mut Command) {
    let _ = &command;
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl is one system call.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
}

/// Lets SIGINT end the child. Where this process runs in the background of a shell, SIGINT is ignored, and a child would
/// ignore it too; a shell script cannot even trap it then.
fn heed_interrupts(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; sigaction is one system call.
    unsafe {
        command.pre_exec(|| {
            signal(Signal::SIGINT, SigHandler::SigDfl)?;
            Ok(())
        });
    }
}

/// Lets the child run on these processors only.
#[cfg(target_os = "linux")]
pub fn pin(command: &mut Command, cpus: &[usize]) -> Result<()> {
    let cpus = cpu_set(cpus)?;
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one system call.
    unsafe {
        command.pre_exec(move || Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?));
    }
    Ok(())
}

/// Only Linux lets a process choose its processors.
#[cfg(not(target_os = "linux"))]
pub fn pin(_: &mut Command, _: &[usize]) -> Result<()> {
    anyhow::bail!("a process can be bound to processors on Linux only")
}

/// The processors that this process may run on.
#[cfg(target_os = "linux")]
pub fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Lets this process, and the processes it starts from now on, run on these processors only.
#[cfg(target_os = "linux")]
pub fn pin_self(cpus: &[usize]) -> Result<()> {
    let cpus = cpu_set(cpus)?;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let thread = thread?.file_name().to_string_lossy().parse()?;
        sched_setaffinity(Pid::from_raw(thread), &cpus)?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn cpu_set(cpus: &[usize]) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
    Ok(set)
}

/// Waits for the end of a child that has closed its output, and so ends soon, without holding the lock, which `signal` needs.
fn wait(child: &Mutex<Child>) -> Option<ExitStatus> {
    loop {
        let ended = child.lock().unwrap().try_wait();
        match ended {
            Ok(None) => thread::sleep(Duration::from_millis(1)),
            _ => return ended.ok().flatten(),
        }
    }
}

/// The child's output so far.
#[derive(Debug, Default)]
pub struct Log {
    text: Mutex<String>,
    len: watch::Sender<usize>,
}

impl Log {
    fn fill(&self, output: PipeReader) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let mut text = self.text.lock().unwrap();
            text.push_str(&String::from_utf8_lossy(&line));
            self.len.send_replace(text.len());
            line.clear();
        }
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        const LINES: usize = 20;
        let text = self.text();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Waits for a line that fits.
    pub async fn line(&self, is_it: impl Fn(&str) -> bool) -> String {
        let mut position = 0;
        self.line_after(&mut position, is_it).await
    }

    /// Waits for such a line behind a position, which moves behind the line.
    pub async fn line_after(&self, position: &mut usize, is_it: impl Fn(&str) -> bool) -> String {
        let mut len = self.len.subscribe();
        loop {
            {
                let text = self.text.lock().unwrap();
                for line in text[*position..].split_inclusive('\n') {
                    *position += line.len();
                    let line = line.trim_end_matches('\n');
                    if is_it(line) {
                        return line.to_owned();
                    }
                }
            }
            let _ = len.wait_for(|len| *len > *position).await;
        }
    }
}
