//! `partita policy`: the author's view of a component.

use std::process::ExitCode;

use anyhow::{Context, Result};
use partita_policy::{Bench, Outcome, Report, Stage};
use serde::Serialize;

use crate::{
    args::{Output, Policy},
    output::{self, Rows},
    simulate::{host, module},
    spec::{PolicySpec, Source},
};

/// Runs the command.
pub(crate) fn run(command: Policy) -> Result<ExitCode> {
    match command {
        Policy::List { output } => list(output),
        Policy::Check { policy, output } => check(&policy, output),
        Policy::Bench { policy, output } => bench(&policy, output),
    }
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    summary: &'static str,
    default: bool,
    component_bytes: usize,
}

fn list(format: Output) -> Result<ExitCode> {
    let all: Vec<Listed> = partita_policy::bundled::all()
        .iter()
        .map(|policy| Listed {
            name: policy.name,
            summary: policy.summary,
            default: policy.name == partita_policy::bundled::DEFAULT,
            component_bytes: policy.component.len(),
        })
        .collect();
    if format == Output::Json {
        output::json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Rows::new(&["NAME", ">SIZE", "WHAT IT DOES"]);
    for policy in &all {
        let mark = if policy.default { " (default)" } else { "" };
        rows.push([format!("{}{mark}", policy.name), kib(policy.component_bytes), policy.summary.to_owned()]);
    }
    rows.print()?;
    Ok(ExitCode::SUCCESS)
}

fn check(spec: &PolicySpec, format: Output) -> Result<ExitCode> {
    let report = host()?.inspect(&bytes(spec)?, &spec.settings);
    if format == Output::Json {
        output::json(&report)?;
    } else {
        print_report(spec, &report)?;
    }
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_report(spec: &PolicySpec, report: &Report) -> Result<()> {
    output::line(&format!("{}: {}", output::bold(&spec.label), kib(report.bytes)))?;
    for stage in &report.stages {
        let (mark, text) = match &stage.outcome {
            Outcome::Ok => ("ok", learnt(report, stage.stage)),
            Outcome::Failed(message) => ("FAILED", message.clone()),
            Outcome::Skipped => ("-", "not reached".into()),
        };
        output::line(&format!("  {:<12} {mark:<7} {text}", stage.stage.to_string()))?;
    }
    let verdict = if report.is_ok() { "a host of this version loads it" } else { "a host of this version refuses it" };
    output::line(verdict)
}

/// What a stage that passed found out.
fn learnt(report: &Report, stage: Stage) -> String {
    match (stage, &report.shape, &report.info) {
        (Stage::Static, Some(shape), _) => {
            let imports = if shape.imports.is_empty() { "nothing".to_owned() } else { shape.imports.join(", ") };
            format!("{} functions, the largest {} bytes; imports {imports}", shape.functions, shape.largest_function)
        }
        (Stage::Compile, _, _) => report.artifact_bytes.map(|bytes| format!("{} of machine code", kib(bytes))).unwrap_or_default(),
        (Stage::Describe, _, Some(info)) => format!("{} {}; reads {}", info.name, info.version, info.reads.join(", ")),
        _ => String::new(),
    }
}

fn bench(spec: &PolicySpec, format: Output) -> Result<ExitCode> {
    let mut loaded = host()?.load(&spec.label, &bytes(spec)?, &spec.settings, partita_policy::Limits::default())?;
    let bench = loaded.policy.bench().with_context(|| format!("policy {} did not answer", spec.label))?;
    if format == Output::Json {
        output::json(&bench)?;
    } else {
        print_bench(spec, &bench)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_bench(spec: &PolicySpec, bench: &Bench) -> Result<()> {
    output::line(&format!(
        "{}: an instance takes {:.0} us; a question may use {} fuel. Fuel is exact, times are this machine's.\n",
        output::bold(&spec.label),
        bench.instantiate_us,
        bench.fuel_budget
    ))?;
    let mut rows = Rows::new(&[">GPUS", ">CANDIDATES", ">FUEL", ">OF THE BUDGET", ">US", ">US TO PASS COLUMNS", ">MEMORY"]);
    for row in &bench.rows {
        rows.push([
            row.gpus.to_string(),
            row.candidates.to_string(),
            row.fuel.to_string(),
            format!("{:.2} %", row.fuel_share * 100.0),
            format!("{:.1}", row.score_us),
            format!("{:.1}", row.lower_us),
            kib(row.memory_bytes),
        ]);
    }
    rows.print()
}

fn bytes(spec: &PolicySpec) -> Result<Vec<u8>> {
    match &spec.source {
        Source::File(path) => module(path),
        Source::Bundled(name) => {
            let policy = partita_policy::bundled::by_name(name).with_context(|| format!("no bundled policy is called {name}"))?;
            Ok(policy.component.to_vec())
        }
    }
}

fn kib(bytes: usize) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
