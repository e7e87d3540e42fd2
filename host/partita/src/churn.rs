//! `partita simulate --churn`: MIG partitions that come and go, under mixes, policies and seeds side by side.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use partita_sim::{
    Contender, Run,
    churn::{Churn, ChurnMix, Figures, MODEL, Played},
    metrics::Failure,
    stats::Estimate,
};
use serde::Serialize;

use crate::{
    args::Simulate,
    output::{self, Rows},
    simulate::{self, Chain, Counted},
};

/// Runs the command.
pub(crate) fn run(arguments: &Simulate) -> Result<ExitCode> {
    let asked = &arguments.churn;
    // Numbers out of range are refused before a policy is compiled.
    let churns = asked.churn.iter().flat_map(|&mix| seeds(arguments).map(move |seed| churn(arguments, mix, seed)));
    let churns: Vec<Churn> = churns.map(Churn::checked).collect::<Result<_, _>>()?;
    let mut chains = simulate::chains(arguments)?;
    let bar = simulate::progress(churns.len() * chains.len() * asked.requests, arguments.no_progress);
    let mut runs: Vec<Vec<Run>> = Vec::with_capacity(churns.len());
    for churn in &churns {
        let (cluster, workload) = churn.make()?;
        let mut contenders: Vec<Contender<'_>> = chains.iter_mut().map(Chain::contender).collect();
        let before = bar.position();
        let mut tell = |done: usize, _: usize| bar.set_position(before + done as u64);
        runs.push(partita_sim::simulate(&cluster, &workload, &churn.options(), &mut contenders, &mut tell)?.runs);
    }
    bar.finish_and_clear();
    let rows = figures(&churns, &runs, asked.seeds as usize);
    if arguments.wants_json() {
        let policies = chains.iter().map(Chain::counted).collect();
        let seeds = seeds(arguments).collect();
        let (load, gpus, requests) = (asked.load, asked.gpus, asked.requests);
        output::json(&Printed { load, gpus, requests, seeds, rows: &rows, policies, failures: failures(&runs) })?;
    } else {
        print(arguments, &rows)?;
        warn(&failures(&runs))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    load: f64,
    gpus: usize,
    requests: usize,
    seeds: Vec<u64>,
    rows: &'a [Figures],
    policies: Vec<Counted<'a>>,
    /// What policies failed at in all runs together, by policy.
    failures: BTreeMap<&'a str, Vec<Failure>>,
}

fn seeds(arguments: &Simulate) -> impl Iterator<Item = u64> + use<> {
    let first = arguments.seed;
    (0..arguments.churn.seeds).map(move |row| first.wrapping_add(row))
}

fn churn(arguments: &Simulate, mix: &'static ChurnMix, seed: u64) -> Churn {
    let asked = &arguments.churn;
    Churn {
        load: asked.load,
        gpus: asked.gpus,
        requests: asked.requests,
        planner: arguments.planner.config(),
        ..Churn::benchmark(mix, seed)
    }
}

/// One row a mix and policy; every `seeds` neighbours are one mix.
fn figures(churns: &[Churn], runs: &[Vec<Run>], seeds: usize) -> Vec<Figures> {
    let mut rows = Vec::new();
    for (churns, runs) in churns.chunks(seeds).zip(runs.chunks(seeds)) {
        for (column, first) in runs[0].iter().enumerate() {
            let played = churns.iter().zip(runs).map(|(churn, runs)| Played::of(churn.seed, &runs[column].result));
            rows.push(Figures::of(churns[0].mix.name, &first.policy, played.collect()));
        }
    }
    rows
}

fn print(arguments: &Simulate, rows: &[Figures]) -> Result<()> {
    let asked = &arguments.churn;
    let title = output::bold(&format!("{} {MODEL}, load {}", asked.gpus, asked.load));
    let seeds = if asked.seeds == 1 { "1 seed".to_owned() } else { format!("{} seeds", asked.seeds) };
    let counted = if asked.seeds == 1 { "" } else { "; +- is the 95 % confidence interval" };
    output::line(&format!("{title}: {seeds} of {} requests, the first fifth not counted{counted}\n", asked.requests))?;
    let mut table = Rows::new(&["MIX", "POLICY", ">SLOTS IN USE", ">ACCEPTED"]);
    for row in rows {
        table.push([row.mix.clone(), row.policy.clone(), show(row.in_use), show(row.accepted)]);
    }
    table.print()
}

fn show(estimate: Estimate) -> String {
    match estimate.margin {
        Some(margin) => format!("{:.2} +- {margin:.2} %", estimate.mean),
        None => format!("{:.2} %", estimate.mean),
    }
}

fn failures(runs: &[Vec<Run>]) -> BTreeMap<&str, Vec<Failure>> {
    let mut by_policy: BTreeMap<&str, Vec<Failure>> = BTreeMap::new();
    for run in runs.iter().flatten().filter(|run| !run.result.failures.is_empty()) {
        let known = by_policy.entry(&run.policy).or_default();
        for failure in &run.result.failures {
            match known.iter_mut().find(|other| other.cause == failure.cause) {
                Some(other) => other.count += failure.count,
                None => known.push(failure.clone()),
            }
        }
    }
    by_policy
}

fn warn(failures: &BTreeMap<&str, Vec<Failure>>) -> Result<()> {
    for (policy, failures) in failures {
        for Failure { cause, count, example } in failures {
            output::line(&format!("\nwarning: {policy}: {count} questions went to the fallback ({cause}): {example}"))?;
        }
    }
    Ok(())
}
