//! `partita agent`: the node agent, and what can be asked on its node.

mod inspect;
mod run;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Result;
use clap::{Args, Subcommand};
use partita_device::{DeviceError, Driver, Simulated, nvml::NvmlDriver};

/// `partita agent`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = run::EXAMPLES)]
pub(crate) struct Agent {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the GPUs of this machine, how MIG can cut them, their partitions and who uses them. Changes nothing.
    Inspect(inspect::Inspect),
}

/// Which GPUs.
#[derive(Clone, Debug, Args)]
pub(crate) struct Gpus {
    /// Have GPUs that do not exist: models and how many of each.
    #[arg(long, value_name = "MODEL×N", conflicts_with = "library")]
    simulated: Option<String>,
    /// NVIDIA's management library, if the system's loader does not find it.
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
}

impl Gpus {
    fn is_simulated(&self) -> bool {
        self.simulated.is_some()
    }

    /// Loads the driver. Simulated GPUs of different `node`s have different UUIDs.
    fn driver(&self, node: &str) -> Result<Arc<dyn Driver>, DeviceError> {
        Ok(match &self.simulated {
            Some(text) => Arc::new(Simulated::new(text, node)?),
            None => Arc::new(NvmlDriver::load(self.library.as_deref())?),
        })
    }
}

/// Runs the command.
pub(crate) fn run(agent: &Agent) -> Result<ExitCode> {
    match &agent.command {
        Some(Command::Inspect(arguments)) => inspect::run(arguments),
        None => run::run(&agent.run),
    }
}
