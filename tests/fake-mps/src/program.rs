//! What the programs do.

#![allow(clippy::print_stdout, reason = "this is what programs do")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use crate::{FAULTS, JOURNAL, SLICE, SMI, What};

/// The argument of a daemon that has left its parent.
pub(crate) const SERVE: &str = "--serve";
/// The argument of a server.
pub(crate) const SERVER: &str = "--server";
/// How often a process looks whether it is still needed.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How many times it looks before it believes a daemon does not start.
const LOOKS: u32 = 5000;

/// Does what the name and the arguments say.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = if own().file_name().is_some_and(|name| name == SMI) {
        smi(&arguments)
    } else {
        match arguments.first().map(String::as_str) {
            None => ask(),
            Some("-d") => start(),
            Some(SERVE) => serve(),
            Some(SERVER) => wait_until_gone(),
            Some(other) => Err(io::Error::other(format!("Unknown option {other}"))),
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn own() -> PathBuf {
    env::current_exe().unwrap_or_default()
}

fn folder() -> PathBuf {
    own().parent().map(Path::to_owned).unwrap_or_default()
}

fn pipe() -> io::Result<PathBuf> {
    env::var_os("CUDA_MPS_PIPE_DIRECTORY").map(PathBuf::from).ok_or_else(|| io::Error::other("no CUDA_MPS_PIPE_DIRECTORY"))
}

/// Notes a command, and lets its fault happen as far as any program can.
fn meet(command: &str) -> io::Result<Option<What>> {
    let gpu = env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let mut journal = fs::OpenOptions::new().create(true).append(true).open(folder().join(JOURNAL))?;
    journal.write_all(format!("{gpu} {command}\n").as_bytes())?;
    let faults = fs::read_to_string(folder().join(FAULTS)).unwrap_or_default();
    let word = command.split(' ').next();
    let fault = faults.lines().filter_map(|line| line.split_once(' ')).find(|fault| Some(fault.0) == word);
    match fault.and_then(|fault| What::of(fault.1)) {
        Some(What::Hang) => {
            // Until it is killed, or the fault or the folder is taken away.
            while fs::read_to_string(folder().join(FAULTS)).is_ok_and(|now| now == faults) {
                thread::sleep(LOOK_EVERY);
            }
            Ok(None)
        }
        Some(What::Refuse) => Err(io::Error::other(format!("{command}: refused"))),
        other => Ok(other),
    }
}

fn smi(arguments: &[String]) -> io::Result<()> {
    match meet(&format!("{SMI} {}", arguments.join(" ")))? {
        Some(What::Die) => process::exit(9),
        Some(_) => Ok(()),
        None => match arguments {
            [policy, slice, of, gpu] if policy == "compute-policy" && of == "-i" => {
                let number = slice.strip_prefix("--set-timeslice=").filter(|number| ["0", "1", "2", "3"].contains(number));
                fs::write(folder().join(format!("{gpu}{SLICE}")), number.ok_or_else(|| io::Error::other("no such time slice"))?)
            }
            _ => Err(io::Error::other("Invalid combination of input arguments")),
        },
    }
}

/// Sends what it reads to the daemon, one line after the other.
fn ask() -> io::Result<()> {
    for line in io::stdin().lines() {
        let none = |_| io::Error::other("Cannot find MPS control daemon process");
        let mut daemon = UnixStream::connect(pipe()?.join("control")).map_err(none)?;
        writeln!(daemon, "{}", line?)?;
        let mut said = String::new();
        daemon.read_to_string(&mut said)?;
        match said.split_once('\n') {
            Some(("no", why)) => return Err(io::Error::other(why.trim().to_owned())),
            Some((_, what)) => print!("{what}"),
            None => return Err(io::Error::other("the daemon ended")),
        }
    }
    Ok(())
}

/// Leaves a daemon behind.
fn start() -> io::Result<()> {
    let pipe = pipe()?;
    if UnixStream::connect(pipe.join("control")).is_ok() {
        return Err(io::Error::other("An instance of this daemon is already running"));
    }
    let fault = meet("-d")?;
    if fault == Some(What::Ignore) {
        return Ok(());
    }
    let (input, output) = (Stdio::null(), Stdio::null());
    let mut daemon = Command::new(own()).arg(SERVE).stdin(input).stdout(output).stderr(Stdio::null()).process_group(0).spawn()?;
    for _ in 0..LOOKS {
        if pipe.join("nvidia-cuda-mps-control.pid").exists() {
            if fault == Some(What::Die) {
                daemon.kill()?;
            }
            return Ok(());
        }
        thread::sleep(LOOK_EVERY);
    }
    Err(io::Error::other("the daemon does not start"))
}

fn wait_until_gone() -> io::Result<()> {
    let pipe = pipe()?;
    while pipe.exists() {
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// What a daemon was told.
#[derive(Default)]
struct Daemon {
    memory: String,
    threads: String,
    servers: Vec<Child>,
}

fn serve() -> io::Result<()> {
    let pipe = pipe()?;
    let listener = UnixListener::bind(pipe.join("control"))?;
    fs::write(pipe.join("nvidia-cuda-mps-control.pid"), process::id().to_string())?;
    thread::spawn(|| {
        // After a test nobody tells it to end.
        let _ = wait_until_gone();
        process::exit(0);
    });
    let mut daemon = Daemon { threads: "100".to_owned(), ..Daemon::default() };
    for client in listener.incoming() {
        let mut client = client?;
        let mut line = String::new();
        BufReader::new(&client).read_line(&mut line)?;
        let line = line.trim();
        let said = daemon.answer(line);
        let told = said.as_ref().map_or_else(|error| format!("no\n{error}\n"), |said| format!("yes\n{said}"));
        if line == "quit" && said.is_ok_and(|said| said.is_empty()) {
            daemon.servers.iter_mut().for_each(|server| drop(server.kill()));
            fs::remove_file(pipe.join("nvidia-cuda-mps-control.pid"))?;
            // It goes when it has said so.
            drop(client.write_all(told.as_bytes()));
            return Ok(());
        }
        // Who asked may have been killed meanwhile.
        drop(client.write_all(told.as_bytes()));
    }
    Ok(())
}

impl Daemon {
    fn answer(&mut self, line: &str) -> io::Result<String> {
        match meet(line)? {
            Some(What::Die) => process::exit(9),
            Some(_) => return Ok("ignored\n".to_owned()),
            None => {}
        }
        self.servers.retain_mut(|server| server.try_wait().is_ok_and(|ended| ended.is_none()));
        let words: Vec<&str> = line.split(' ').collect();
        Ok(match words[..] {
            ["quit"] => String::new(),
            ["get_server_list"] => self.servers.iter().flat_map(|server| [server.id().to_string(), "\n".to_owned()]).collect(),
            ["start_server", "-uid", _] => {
                let mut command = Command::new(own().with_file_name(crate::SERVER));
                let server = command.arg(SERVER).stdin(Stdio::null()).process_group(0).spawn()?;
                self.servers.push(server);
                String::new()
            }
            ["set_default_device_pinned_mem_limit", "0", limit] => {
                limit.clone_into(&mut self.memory);
                String::new()
            }
            ["set_default_active_thread_percentage", percentage] => {
                percentage.clone_into(&mut self.threads);
                format!("{percentage}.0\n")
            }
            ["get_default_active_thread_percentage"] => format!("{}.0\n", self.threads),
            ["get_default_device_pinned_mem_limit", "0"] => format!("{}\n", self.memory),
            ["set_device_pinned_mem_limit", server, "0", _] | ["set_active_thread_percentage", server, _] => {
                let known = self.servers.iter().any(|one| one.id().to_string() == server);
                if known { String::new() } else { format!("Server {server} not found\n") }
            }
            _ => return Err(io::Error::other(format!("Invalid command: {line}"))),
        })
    }
}
