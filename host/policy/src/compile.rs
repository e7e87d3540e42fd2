//! Compilation in a process of its own.
//!
//! Nothing in a compiler can be interrupted, and crafted Wasm makes Cranelift use minutes and gigabytes. So the host starts a child (by
//! default its own program with a hidden subcommand), the child gives itself limits of cpu and memory before it reads anything that an
//! author wrote, and the host gives it a wall-clock limit. The child has an empty environment and no file to write.
//!
//! Over the pipes: in, two little-endian `u64` (cpu seconds, bytes of memory), then the component; out, the machine code. On failure the
//! exit status says whose fault it was, and standard error says what.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rlimit::Resource;

use crate::artifact::Artifact;
use crate::engine;
use crate::limits::{CompileLimits, DETAIL_CHARS, MODULE_BYTES};
use crate::text::clean;

/// Exit status of a child whose compiler refused the component.
const REFUSED: u8 = 2;
/// Exit status of a child that got no more memory.
const MEMORY: u8 = 3;
/// Signal of a process that used up its cpu (`SIGXCPU`).
const SIGNAL_CPU: i32 = 24;
/// Bytes of standard error that are kept.
const STDERR_BYTES: u64 = 16 << 10;
/// How often the host looks whether a child that closed its output has ended.
const POLL: Duration = Duration::from_millis(2);
/// What Rust's runtime writes when an allocation fails, before it aborts.
const ALLOCATION_FAILED: &str = "memory allocation of";

/// The program that compiles, and its limits.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Program that calls [`compile_main`].
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Limits of its process.
    pub limits: CompileLimits,
}

impl Compiler {
    /// The subcommand under which a program that uses this crate is expected to offer [`compile_main`].
    pub const SUBCOMMAND: &str = "policy-compile";

    /// This very program with [`Self::SUBCOMMAND`].
    ///
    /// # Errors
    /// The operating system's, when it does not say which program this is.
    pub fn this_program() -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, args: vec![Self::SUBCOMMAND.into()], limits: CompileLimits::default() })
    }
}

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// There is no process to compile in.
    #[error("the compiler `{program}` does not start")]
    Spawn {
        /// The program.
        program: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It used up its cpu time.
    #[error("compiling took more than {seconds} s of cpu; make the module's functions smaller")]
    Cpu {
        /// The limit.
        seconds: u64,
    },
    /// It wanted more memory than it may have.
    #[error("compiling took more than {bytes} bytes of memory; make the module's functions smaller")]
    Memory {
        /// The limit.
        bytes: u64,
    },
    /// It did not end in time.
    #[error("compiling took longer than {0:?}; make the module's functions smaller, or try again when the machine is less busy")]
    Wall(Duration),
    /// The machine code is too large.
    #[error("the machine code has more than {bytes} bytes; make the module smaller")]
    Output {
        /// The limit.
        bytes: usize,
    },
    /// The compiler gave a reason.
    #[error("the compiler refused the component: {0}")]
    Refused(String),
    /// The compiler failed in a way that it should not.
    #[error("the compiler failed ({status}): {detail}")]
    Crashed {
        /// How the process ended.
        status: String,
        /// The end of its standard error.
        detail: String,
    },
}

/// The whole of the compiler's process: reads a component from standard input and writes machine code to standard output.
#[must_use]
pub fn compile_main() -> ExitCode {
    match child(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "{error:#}");
            let memory = error.is::<wasmtime::OutOfMemory>()
                || error
                    .chain()
                    .filter_map(|cause| cause.downcast_ref::<io::Error>())
                    .any(|cause| cause.kind() == io::ErrorKind::OutOfMemory);
            ExitCode::from(if memory { MEMORY } else { REFUSED })
        }
    }
}

fn child(mut input: impl Read, mut output: impl Write) -> wasmtime::Result<()> {
    let (mut cpu, mut memory) = ([0; 8], [0; 8]);
    input.read_exact(&mut cpu)?;
    input.read_exact(&mut memory)?;
    let (cpu, memory) = (u64::from_le_bytes(cpu), u64::from_le_bytes(memory));
    // The soft limit of cpu ends the process with a signal of its own; the hard one is for a process that caught it.
    lower(Resource::CPU, cpu, 1)?;
    lower(Resource::AS, memory, 0)?;
    lower(Resource::CORE, 0, 0)?;
    lower(Resource::FSIZE, 0, 0)?;
    let mut component = Vec::new();
    input.take(MODULE_BYTES as u64 + 1).read_to_end(&mut component)?;
    let code = engine::engine()?.precompile_component(&component)?;
    output.write_all(&code)?;
    output.flush()?;
    Ok(())
}

/// Limits `resource` to `soft`, and the hard limit to `above` more. Where whoever started the host limited it more already, that counts: a
/// hard limit cannot be raised.
fn lower(resource: Resource, soft: u64, above: u64) -> io::Result<()> {
    let hard = soft.saturating_add(above).min(resource.get_hard()?);
    resource.set(soft.min(hard.saturating_sub(above)), hard)
}

/// Compiles `component` in a process of its own.
pub(crate) fn compile(compiler: &Compiler, component: &[u8]) -> Result<Artifact, CompileError> {
    let limits = compiler.limits;
    let deadline = Instant::now() + limits.wall;
    let spawned = Command::new(&compiler.program)
        .args(&compiler.args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| CompileError::Spawn { program: compiler.program.display().to_string(), source })?;
    let mut child = Guard(spawned);
    let code = read(child.0.stdout.take(), limits.artifact_bytes as u64 + 1);
    let stderr = read(child.0.stderr.take(), STDERR_BYTES);
    feed(&mut child.0, limits, component);
    let wall = || CompileError::Wall(limits.wall);
    let code = code.recv_timeout(remaining(deadline)).map_err(|_| wall())?;
    if code.len() > limits.artifact_bytes {
        return Err(CompileError::Output { bytes: limits.artifact_bytes });
    }
    let status = wait(&mut child.0, deadline)?.ok_or_else(wall)?;
    let stderr = stderr.recv_timeout(remaining(deadline)).unwrap_or_default();
    if status.success() { Ok(Artifact::vouched(code)) } else { Err(cause(status, limits, &String::from_utf8_lossy(&stderr))) }
}

/// A child that does not outlive its owner.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only when the process has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads at most `max` bytes of `pipe` in a thread and sends them when the pipe closes or is full.
fn read(pipe: Option<impl Read + Send + 'static>, max: u64) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // A read that fails leaves a short text; the exit status decides.
            let _ = pipe.take(max).read_to_end(&mut bytes);
            // The receiver is gone when the host gave up waiting.
            let _ = send.send(bytes);
        });
    }
    receive
}

/// Writes the limits and the component to the child in a thread, since a pipe holds less than a module.
fn feed(child: &mut Child, limits: CompileLimits, component: &[u8]) {
    let Some(mut pipe) = child.stdin.take() else { return };
    let mut input = Vec::with_capacity(16 + component.len());
    input.extend(limits.cpu_seconds.to_le_bytes());
    input.extend(limits.memory_bytes.to_le_bytes());
    input.extend(component);
    thread::spawn(move || {
        // A child that ended early closed the pipe; its exit status says why.
        let _ = pipe.write_all(&input);
    });
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Waits for the child until `deadline`; none if it still runs then.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>, CompileError> {
    loop {
        let status = child.try_wait().map_err(|error| CompileError::Crashed { status: "lost".into(), detail: error.to_string() })?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// The reason why a child ended with `status`.
fn cause(status: ExitStatus, limits: CompileLimits, stderr: &str) -> CompileError {
    let detail = || clean(stderr.trim(), DETAIL_CHARS);
    match (status.code(), status.signal()) {
        (_, Some(SIGNAL_CPU)) => CompileError::Cpu { seconds: limits.cpu_seconds },
        _ if stderr.contains(ALLOCATION_FAILED) => CompileError::Memory { bytes: limits.memory_bytes },
        (Some(code), _) if code == i32::from(MEMORY) => CompileError::Memory { bytes: limits.memory_bytes },
        (Some(code), _) if code == i32::from(REFUSED) => CompileError::Refused(detail()),
        _ => CompileError::Crashed { status: status.to_string(), detail: detail() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Compiler {
        let limits = CompileLimits { artifact_bytes: 1000, ..CompileLimits::default() };
        Compiler { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], limits }
    }

    fn error(script: &str) -> CompileError {
        compile(&shell(script), b"component").err().unwrap()
    }

    #[test]
    fn the_output_of_a_child_that_succeeds_is_the_artifact() {
        let artifact = compile(&shell("head -c 16 >/dev/null; cat"), b"component").unwrap();
        assert_eq!(artifact.bytes(), b"component");
    }

    #[test]
    fn the_child_gets_no_environment() {
        let artifact = compile(&shell("/usr/bin/env | grep -c HOME; true"), b"").unwrap();
        assert_eq!(artifact.bytes(), b"0\n");
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        // The second closes its output, so that only the wait can notice.
        for script in ["exec sleep 1000", "exec >&- 2>&- sleep 1000"] {
            let mut compiler = shell(script);
            compiler.limits.wall = Duration::from_millis(50);
            assert!(matches!(compile(&compiler, b""), Err(CompileError::Wall(_))));
        }
    }

    #[test]
    fn each_way_to_fail_has_its_cause() {
        assert!(matches!(error("head -c 1001 /dev/zero"), CompileError::Output { bytes: 1000 }));
        assert!(matches!(error("kill -XCPU $$"), CompileError::Cpu { .. }));
        assert!(matches!(error("echo 'memory allocation of 7 bytes failed' >&2; kill -ABRT $$"), CompileError::Memory { .. }));
        assert!(matches!(error("exit 3"), CompileError::Memory { .. }));
        assert!(matches!(error("printf 'bad\\033[2J' >&2; exit 2"), CompileError::Refused(text) if text == r"bad\u{1b}[2J"));
        assert!(matches!(error("exit 101"), CompileError::Crashed { .. }));
        let missing = Compiler { program: "/nonexistent/partita".into(), ..shell("") };
        assert!(matches!(compile(&missing, b""), Err(CompileError::Spawn { .. })));
    }
}
