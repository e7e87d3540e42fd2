//! Runs a program that must come to an end.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What is kept of what a program says, bytes.
const SAID_MAX: usize = 2048;
/// How often is looked whether it ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Why a program did not do what it should.
pub(super) enum Failure {
    /// It could not be started, or what it said not be read.
    Io(io::Error),
    /// It did not end in time.
    Hangs,
    /// It said no.
    Refused(String),
}

/// Runs a program with `input` for at most `limit`. What it says goes into a file and not into a pipe: a daemon that it leaves behind would
/// keep a pipe open.
pub(super) fn run(command: &mut Command, input: &str, said: &Path, limit: Duration) -> Result<String, Failure> {
    let file = File::create(said).map_err(Failure::Io)?;
    let twin = file.try_clone().map_err(Failure::Io)?;
    let child = command.stdin(Stdio::piped()).stdout(file).stderr(twin).spawn();
    let mut child = child.map_err(Failure::Io)?;
    let until = Instant::now() + limit;
    if let Some(mut stdin) = child.stdin.take() {
        // A few words fit into any pipe. One that does not read them says so by its status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => thread::sleep(LOOK_EVERY),
            Ok(None) => {
                let _ = child.kill();
                // One that the kernel does not let go keeps nobody waiting.
                thread::spawn(move || child.wait());
                return Err(Failure::Hangs);
            }
            Err(error) => return Err(Failure::Io(error)),
        }
    };
    let mut bytes = fs::read(said).map_err(Failure::Io)?;
    bytes.truncate(SAID_MAX);
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if status.success() { Ok(text) } else { Err(Failure::Refused(if text.is_empty() { status.to_string() } else { text })) }
}
