//! The `partita` program: arguments and wiring. What it does lies in the crates that it joins.

mod agent;
mod args;
mod churn;
mod explain;
mod explain_pod;
mod log;
mod output;
mod policy;
mod sample;
mod scheduler;
mod simulate;
mod spec;

use std::{io, process::ExitCode};

use anyhow::Result;
use clap::Parser;

use crate::args::{Cli, Color, Command, ExplainWhat};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Compile) {
        // Before anything else is set up: this process reads hostile bytes under limits and does nothing more.
        return partita_policy::compile_main();
    }
    let spans = match log::start(cli.verbose, cli.log, cli.otlp.as_deref()) {
        Ok(spans) => spans,
        Err(error) => {
            output::error(&error);
            return ExitCode::FAILURE;
        }
    };
    output::colors(cli.color != Color::Never && (cli.color == Color::Always || output::terminal_wants_color()));
    let ended = run(cli.command);
    // What is not sent yet is.
    drop(spans);
    match ended {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Scheduler(arguments) => scheduler::run(&arguments),
        Command::Explain(arguments) => match &arguments.what {
            Some(ExplainWhat::Pod(pod)) => explain_pod::run(pod),
            None => explain::run(&arguments),
        },
        Command::Agent(command) => agent::run(&command),
        Command::Sample(arguments) => sample::run(&arguments),
        Command::Policy(command) => policy::run(command),
        Command::Compile => unreachable!("handled before anything else"),
    }
}

/// The reader of our output went away, as `head` does: nothing is wrong.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe))
}
