//! `partita simulate`: one workload under several policies, side by side.

use std::{
    env, fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use partita_core::policy::Partitioner;
use partita_policy::{CacheError, Host, HostConfig, HostError, Limits, NativePolicy, Stats, WasmPolicy};
use partita_sim::{Cluster, Contender, Options, Outcome, Run, Times, Unplaceable, Workload, metrics::Unplaced, openb};
use serde::Serialize;

use crate::{
    args::{self, Simulate},
    churn,
    output::{self, Rows},
    spec::{PolicySpec, Source},
};

/// Policies compared when none is named: the default, and what a cluster has without it.
const DEFAULTS: [&str; 4] = ["fragmentation", "first-fit", "best-fit", "spread"];
/// The report of the bundled sample.
const REPORT: &str = "report.html";

/// Runs the command.
pub(crate) fn run(arguments: &Simulate) -> Result<ExitCode> {
    if !arguments.churn.churn.is_empty() {
        return churn::run(arguments);
    }
    let (cluster, workload) = input(arguments)?;
    let unplaceable = if arguments.arrivals.is_some() { Unplaceable::Drop } else { Unplaceable::Wait };
    let options = Options { seed: arguments.seed, unplaceable, planner: arguments.planner.config(), ..Options::default() };
    let mut chains = chains(arguments)?;
    let mut contenders: Vec<Contender<'_>> = chains.iter_mut().map(Chain::contender).collect();
    let bar = progress(workload.arrivals.len() * contenders.len(), arguments.no_progress);
    let mut tell = |done: usize, _: usize| bar.set_position(done as u64);
    let outcome = partita_sim::simulate(&cluster, &workload, &options, &mut contenders, &mut tell)?;
    drop(contenders);
    bar.finish_and_clear();

    let json = arguments.wants_json();
    if json {
        output::json(&Printed { outcome: &outcome, policies: chains.iter().map(Chain::counted).collect() })?;
    } else {
        print(&outcome)?;
    }
    // After the figures, which must not be lost if the report cannot be written.
    if let Some(path) = arguments.report.clone().or_else(|| arguments.cluster.is_none().then(|| PathBuf::from(REPORT))) {
        fs::write(&path, partita_sim::report::html(&outcome))
            .with_context(|| format!("the report {} cannot be written", path.display()))?;
        if !json {
            output::line(&format!("\nreport: {}", path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    policies: Vec<Counted<'a>>,
}

/// A policy's counters.
#[derive(Serialize)]
pub(crate) struct Counted<'a> {
    policy: &'a str,
    form: &'static str,
    stats: &'a Stats,
}

fn input(arguments: &Simulate) -> Result<(Cluster, Workload)> {
    match (&arguments.cluster, &arguments.workload) {
        (Some(cluster), Some(workload)) => {
            let times = match arguments.times {
                args::Times::Order => Times::Order,
                args::Times::Trace => Times::Trace,
            };
            Ok(partita_sim::load(cluster, workload, arguments.arrivals.as_deref(), times)?)
        }
        // clap asks for both or neither.
        _ => Ok(partita_sim::sample::bundled()?),
    }
}

/// A policy under trial and what answers when it does not: a bundled policy's native twin, then first-fit, which cannot fail.
pub(crate) struct Chain {
    label: String,
    policy: Form,
    fallbacks: Vec<NativePolicy>,
}

enum Form {
    Component(Box<WasmPolicy>),
    Native(Box<NativePolicy>),
}

impl Chain {
    pub(crate) fn contender(&mut self) -> Contender<'_> {
        let policy: &mut dyn Partitioner = match &mut self.policy {
            Form::Component(policy) => policy.as_mut(),
            Form::Native(policy) => policy.as_mut(),
        };
        let mut chain = vec![policy];
        chain.extend(self.fallbacks.iter_mut().map(|policy| -> &mut dyn Partitioner { policy }));
        Contender { name: self.label.clone(), chain }
    }

    /// The policy and its fallbacks, each by itself.
    pub(crate) fn into_links(self) -> Vec<Box<dyn Partitioner + Send>> {
        let policy: Box<dyn Partitioner + Send> = match self.policy {
            Form::Component(policy) => policy,
            Form::Native(policy) => policy,
        };
        let mut links = vec![policy];
        links.extend(self.fallbacks.into_iter().map(|policy| -> Box<dyn Partitioner + Send> { Box::new(policy) }));
        links
    }

    pub(crate) fn counted(&self) -> Counted<'_> {
        let (form, stats) = match &self.policy {
            Form::Component(policy) => ("component", policy.stats()),
            Form::Native(policy) => ("native", policy.stats()),
        };
        Counted { policy: &self.label, form, stats }
    }
}

pub(crate) fn chains(arguments: &Simulate) -> Result<Vec<Chain>> {
    let defaults = || DEFAULTS.map(|name| name.parse::<PolicySpec>().map_err(anyhow::Error::msg)).into_iter().collect::<Result<Vec<_>>>();
    let specs = if arguments.policy.is_empty() { defaults()? } else { arguments.policy.clone() };
    let host = host()?;
    specs.iter().map(|spec| chain(&host, spec, arguments.native)).collect()
}

pub(crate) fn chain(host: &Host, spec: &PolicySpec, native: bool) -> Result<Chain> {
    let policy = match &spec.source {
        Source::Bundled(name) if native => Form::Native(Box::new(partita_policy::native(name, &spec.settings)?)),
        Source::Bundled(name) => Form::Component(Box::new(host.load_bundled(name, &spec.settings, Limits::default())?.policy)),
        Source::File(path) => {
            let bytes = module(path)?;
            Form::Component(Box::new(host.load(&spec.label, &bytes, &spec.settings, Limits::default())?.policy))
        }
    };
    let mut fallbacks = vec![partita_policy::native("first-fit", "")?];
    if let Source::Bundled(name) = &spec.source {
        fallbacks.insert(0, partita_policy::native(name, &spec.settings)?);
    }
    Ok(Chain { label: spec.label.clone(), policy, fallbacks })
}

/// Reads a component; no more than the host would take, however large the file is.
pub(crate) fn module(path: &Path) -> Result<Vec<u8>> {
    let cannot = || format!("the component {} cannot be read", path.display());
    let mut file = fs::File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&mut file, partita_policy::limits::MODULE_BYTES as u64 + 1), &mut bytes)
        .with_context(cannot)?;
    Ok(bytes)
}

/// The policy host, with a cache of compiled components in the user's cache folder if there is one.
pub(crate) fn host() -> Result<Host> {
    let config = HostConfig::new().context("the operating system does not say which program this is")?;
    match Host::new(HostConfig { cache_dir: cache_dir(), ..config.clone() }) {
        // A cache saves time and is worth no failure; one that is not safe is a different matter.
        Err(HostError::Cache(error @ CacheError::Io { .. })) => {
            tracing::warn!("components are compiled at every start: {:#}", anyhow::Error::from(error));
            Ok(Host::new(HostConfig { cache_dir: None, ..config })?)
        }
        started => Ok(started?),
    }
}

fn cache_dir() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("PARTITA_CACHE").or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("partita")));
    base.or_else(|| set("HOME").map(|path| path.join(".cache/partita"))).map(|path| path.join("policies"))
}

pub(crate) fn progress(total: usize, off: bool) -> ProgressBar {
    let hidden = off || !io::stderr().is_terminal();
    let bar =
        ProgressBar::with_draw_target(Some(total as u64), if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {human_pos} of {human_len} pods  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn print(outcome: &Outcome) -> Result<()> {
    let facts = &outcome.facts;
    let gpus: usize = facts.gpus.values().sum();
    let kinds: Vec<String> = facts.gpus.iter().map(|(model, count)| format!("{count} {model}")).collect();
    output::line(&format!("{}: {} nodes, {gpus} GPUs ({})", output::bold(&facts.cluster), facts.nodes, kinds.join(", ")))?;
    output::line(&format!("{}: {} pods, {} of them ask for a GPU\n", output::bold(&facts.workload), facts.arrivals, facts.gpu_arrivals))?;
    let dropping = facts.options.unplaceable == Unplaceable::Drop;
    if dropping {
        order_table(&outcome.runs)?;
    } else {
        queue_table(&outcome.runs)?;
    }
    notes(&outcome.runs)
}

/// Pods that do not fit are dropped: what counts is how much gets allocated.
fn order_table(runs: &[Run]) -> Result<()> {
    let mut rows = Rows::new(&["POLICY", ">PLACED", ">DROPPED", ">ALLOCATED AT 100 %", ">AT THE END", ">US A DECISION", ">FALLBACKS"]);
    for run in runs {
        let result = &run.result;
        let at_100 = openb::allocation_at(&result.allocation, 100).map_or("-".into(), |value| format!("{value:.2} %"));
        rows.push([
            run.policy.clone(),
            result.placed.to_string(),
            result.dropped.to_string(),
            at_100,
            format!("{:.2} %", result.allocated_end),
            per_decision(run),
            fallbacks(run).to_string(),
        ]);
    }
    rows.print()
}

/// Pods wait: what counts is how long.
fn queue_table(runs: &[Run]) -> Result<()> {
    let titles = ["POLICY", ">PLACED", ">PENDING", ">WAIT MEAN", ">P99", ">ALLOCATED", ">FRAGMENTED", ">US A DECISION", ">FALLBACKS"];
    let mut rows = Rows::new(&titles);
    for run in runs {
        let result = &run.result;
        rows.push([
            run.policy.clone(),
            result.placed.to_string(),
            result.pending.to_string(),
            duration(result.waits.mean_s),
            duration(result.waits.p99_s),
            format!("{:.1} %", result.allocated_mean),
            format!("{:.1} %", result.fragmentation_mean),
            per_decision(run),
            fallbacks(run).to_string(),
        ]);
    }
    rows.print()
}

/// Why pods were not placed, each reason once with the policies that share it, then what policies failed at.
fn notes(runs: &[Run]) -> Result<()> {
    let mut shared: Vec<(&Unplaced, Vec<&str>)> = Vec::new();
    for run in runs {
        for group in &run.result.unplaced {
            match shared.iter_mut().find(|entry| entry.0 == group) {
                Some(entry) => entry.1.push(&run.policy),
                None => shared.push((group, vec![&run.policy])),
            }
        }
    }
    for (group, policies) in shared {
        let who = if policies.len() == runs.len() && runs.len() > 1 { "every policy".to_owned() } else { policies.join(", ") };
        let pods = if group.pods == 1 { "1 pod".to_owned() } else { format!("{} pods", group.pods) };
        output::line(&format!("\n{}: {pods} not placed, such as {}: {}", output::bold(&who), group.example, group.reason))?;
    }
    for run in runs.iter().filter(|run| run.result.evicted + run.result.moved > 0) {
        let (evicted, moved) = (run.result.evicted, run.result.moved);
        output::line(&format!("\n{}: pods were evicted {evicted} times and moved {moved} times", output::bold(&run.policy)))?;
    }
    for run in runs {
        for failure in &run.result.failures {
            let text = format!("{}: {} questions went to the fallback ({}): {}", run.policy, failure.count, failure.cause, failure.example);
            output::line(&format!("\nwarning: {text}"))?;
        }
    }
    Ok(())
}

fn fallbacks(run: &Run) -> usize {
    run.result.failures.iter().map(|failure| failure.count).sum()
}

fn per_decision(run: &Run) -> String {
    format!("{:.1}", run.timing.decisions_s * 1e6 / run.result.decisions.max(1) as f64)
}

/// Seconds for people: `0.4 s`, `12 s`, `3.5 min`, `2.5 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_right() {
        let texts: Vec<String> = [0.0, 9.94, 45.2, 600.0, 9000.0].into_iter().map(duration).collect();
        assert_eq!(texts, ["0.0 s", "9.9 s", "45 s", "10.0 min", "2.5 h"]);
    }
}
