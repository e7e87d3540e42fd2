//! The `partita-cluster` program: arguments and wiring.

mod args;
mod up;

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{self, ExitCode},
};

use anyhow::{Context, Result, bail};
use args::{Cli, Command, Output};
use clap::Parser;
use partita_cluster::{NodePrograms, Programs, programs};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads it, then: the exit code still tells.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Build { node, output } => build(node, output),
        Command::Up(arguments) => up::run(&arguments),
        Command::Kubectl { arguments } => kubectl(&arguments),
    }
}

fn build(node: bool, output: Output) -> Result<()> {
    let (programs, node) =
        if node { programs::build_all().map(|(programs, node)| (programs, Some(node)))? } else { (programs::build()?, None) };
    let Programs { etcd, api_server, controller_manager, scheduler, kubectl, kwok, feasible, .. } = programs;
    let mut paths = vec![etcd, api_server, controller_manager, scheduler, kubectl, kwok, feasible];
    if let Some(NodePrograms { kubelet, containerd, ctr, witness }) = node {
        paths.extend([kubelet, containerd, ctr, witness]);
    }
    let mut out = io::stdout().lock();
    match output {
        Output::Text => paths.iter().try_for_each(|path| writeln!(out, "{}", path.display()))?,
        Output::Json => writeln!(out, "{}", serde_json::to_string(&paths)?)?,
    }
    Ok(())
}

fn kubectl(arguments: &[OsString]) -> Result<()> {
    let kubeconfig = up::kubeconfig();
    if !kubeconfig.exists() {
        bail!("no cluster runs: start one with `partita-cluster up` in another terminal");
    }
    let kubectl = programs::build()?.kubectl;
    // It takes our place, so its exit code and its handling of Ctrl-C are its own.
    let error = process::Command::new(&kubectl).args(arguments).env("KUBECONFIG", kubeconfig).exec();
    Err(error).with_context(|| format!("could not run {}", kubectl.display()))
}
