//! `partita explain`: a scenario, played with the real planner, in words.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use partita_sim::{SimError, scenario::Scenario};

use crate::{
    args::{Explain, Telling},
    output, simulate,
    spec::{PolicySpec, Source},
};

/// The policy where neither the command line nor the scenario names one.
const DEFAULT: &str = "fragmentation";
/// The exit code for a scenario that makes no sense.
const WRONG_INPUT: u8 = 2;

/// Runs the command.
pub(crate) fn run(arguments: &Explain) -> Result<ExitCode> {
    let Some(path) = &arguments.scenario else { anyhow::bail!("name a scenario with --scenario") };
    let scenario = match Scenario::load(path) {
        Ok(scenario) => scenario,
        Err(error) => return Ok(wrong(&error.into())),
    };
    let spec = match policy(arguments, path, &scenario) {
        Ok(spec) => spec,
        Err(error) => return Ok(wrong(&error)),
    };
    let mut chain = simulate::chain(&simulate::host()?, &spec, arguments.native)?;
    let transcript = match scenario.play(&spec.label, &mut chain.contender().chain) {
        Err(error @ SimError::Input(_)) => return Ok(wrong(&error.into())),
        played => played?,
    };
    match arguments.output {
        Telling::Json => output::json(&transcript)?,
        Telling::Text => output::line(transcript.to_string().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The policy of the command line, else that of the scenario, whose files are named from its own folder.
fn policy(arguments: &Explain, path: &Path, scenario: &Scenario) -> Result<PolicySpec> {
    if let Some(spec) = &arguments.policy {
        return Ok(spec.clone());
    }
    let Some((text, line)) = &scenario.policy else { return DEFAULT.parse().map_err(anyhow::Error::msg) };
    let place = || format!("{}:{line}: policy", scenario.file);
    let mut spec: PolicySpec = text.parse().map_err(anyhow::Error::msg).with_context(place)?;
    if let Source::File(file) = &mut spec.source {
        *file = path.parent().unwrap_or(Path::new("")).join(&*file);
    }
    Ok(spec)
}

/// Tells what is wrong with the input.
fn wrong(error: &anyhow::Error) -> ExitCode {
    output::error(error);
    ExitCode::from(WRONG_INPUT)
}
