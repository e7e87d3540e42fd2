//! One child process: it writes to a log, is signalled by its own handle, and dies when we do.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        mpsc::{Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid},
};

/// Lines of a log that an error shows.
const LAST_LINES: usize = 15;

/// The end of a log, for an error.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = fs::read(log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// A child that is killed when this is dropped, or when our process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`; what it says is added to the file `log`. Of our environment it sees nothing: these programs read proxies,
    /// settings (`ETCD_…`) and files at home that are not meant for them.
    pub(crate) fn start(program: &Path, arguments: &[String], home: &Path, log: &Path) -> io::Result<Self> {
        let said = File::options().create(true).append(true).open(log)?;
        let mut command = dying_with_us(program);
        command.env_clear().env("HOME", home).envs(env::var_os("PATH").map(|path| ("PATH", path)));
        // A group of its own: Ctrl-C in a terminal reaches us alone, and we stop the children in order.
        command.args(arguments).stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said).process_group(0);
        Ok(Self { child: spawn(command)? })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0)))
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // A child that has ended keeps its number until it is waited for, so the number is nobody else's.
        match self.child.try_wait()? {
            Some(_) => Ok(()),
            None => Ok(kill_process(Pid::from_child(&self.child), signal)?),
        }
    }

    /// Makes it stand still, and returns when it does: the signal alone leaves its threads a moment to go on in.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        // Its end is seen as well, and left for whoever waits for that.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        Ok(retry_on_intr(|| waitid(WaitId::Pid(Pid::from_child(&self.child)), options)).map(drop)?)
    }

    /// Ends it as `kill -9` would and waits until it is gone.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// For a program that runs another one as its child and waits for it, as `nsenter` does: ends the child as `kill -9` would, and waits
    /// until both are gone.
    pub(crate) fn kill_inside(&mut self) -> io::Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        let id = self.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let children = children.split_ascii_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?));
        // One that has ended meanwhile keeps its number until its parent, which is about to end, has seen it.
        let killed = children.filter(|&child| kill_process(child, Signal::KILL).is_ok()).count();
        if killed == 0 { self.kill() } else { self.child.wait().map(drop) }
    }

    /// Asks it to end, and kills it if it has not within `patience`.
    pub(crate) async fn stop(&mut self, patience: Duration) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > patience {
                return self.kill();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whoever drops it has no more use for it, and a child that cannot be killed has ended.
        let _ = self.kill();
    }
}

/// A command for `program` that the kernel kills when the thread that spawned it ends, where util-linux can ask for that.
pub(crate) fn dying_with_us(program: &Path) -> Command {
    static CAN: OnceLock<bool> = OnceLock::new();
    let can = CAN.get_or_init(|| {
        let mut trial = Command::new("setpriv");
        trial.args(["--pdeathsig", "KILL", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    });
    if !can {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// Spawns from one thread that lives as long as the process: the kernel's promise is about the *thread* that spawned, and threads of
/// tests and of runtimes end long before what they started is done with.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in orders {
                // Whoever asked waits for the answer, so there is somebody to take it.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let gone = || io::Error::other("the thread that starts programs has ended");
    let (reply, answer) = sync_channel(1);
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
