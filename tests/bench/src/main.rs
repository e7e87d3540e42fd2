//! The benchmarks' command line.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use partita_bench::{
    agent, core, live, mig_churn,
    openb::{self, BASELINES, Done, SEEDS, TRACES},
    table, wasm,
};
use serde::Serialize;

/// Benchmarks of partita: each prints a table and writes JSON beside it.
#[derive(Debug, Parser)]
#[command(name = "partita-bench", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Bench,
    /// Folder for the JSON files.
    #[arg(long, default_value = "target/bench", global = true, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The published baselines on the openb trace, from our simulator: largest difference per policy.
    OpenbBaselines {
        /// Folder of the trace.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Our default policy on the openb trace beside the published FGD and first-fit, and the time it takes.
    OpenbFragmentation {
        /// Folder of the trace.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// What WebAssembly costs on the openb trace: time of decisions as components over the same as native code.
    OpenbTax {
        /// Folder of the trace.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Policies to compare.
        #[arg(long, default_values = ["fragmentation", "first-fit", "best-fit"])]
        policy: Vec<String>,
    },
    /// MIG partitions that come and go on 100 A100-80GB: slots in use and requests accepted, beside the published figures.
    MigChurn {
        /// Requests of a run; the published runs have the default.
        #[arg(long, default_value_t = 30_000)]
        requests: usize,
        /// GPUs of a node; the published runs know no nodes, which is 1.
        #[arg(long, default_value_t = partita_sim::churn::NODE_GPUS)]
        node_gpus: usize,
        /// Runs of each policy on each mix, with seeds from 1.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
    },
    /// Speed and memory of the core: decisions, proofs that something is impossible, reclaim, growth with the cluster.
    Core,
    /// The live scheduler beside kube-scheduler, on a real API server and etcd: pods bound a second, and how long one waits for a new
    /// partition. Builds the control plane if it is not built, which takes ten minutes once.
    Live {
        /// Nodes of the first shape, that of `scheduler_perf`'s `SchedulingBasic`.
        #[arg(long, default_value_t = 5_000)]
        nodes: usize,
        /// Pods that are there before.
        #[arg(long, default_value_t = 1_000)]
        before: usize,
        /// Pods that are measured.
        #[arg(long, default_value_t = 10_000)]
        pods: usize,
        /// Nodes with eight GPUs in the other shapes.
        #[arg(long, default_value_t = 100)]
        gpu_nodes: usize,
        /// Pods whose latency is measured.
        #[arg(long, default_value_t = 500)]
        latencies: usize,
    },
    /// A pod's whole way on a real node, kubelet and containerd included, to a MIG partition that did not exist: how long each part takes, beside
    /// the same with a warm partition. The GPUs are not real. Builds the node's programs if they are not built, which takes a while once.
    #[command(after_help = agent::EXAMPLES)]
    Agent(agent::Size),
    /// What the policy host costs, and how it ends every attack that the hostile components make.
    WasmHost,
    /// Compile a component read from standard input under limits. Run by this program itself, in a process of its own.
    #[command(hide = true, name = partita_policy::Compiler::SUBCOMMAND)]
    Compile,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Bench::Compile) {
        return partita_policy::compile_main();
    }
    // What the policy host warns of belongs beside the figures.
    let levels = tracing_subscriber::EnvFilter::new("warn,kube_client=off");
    tracing_subscriber::fmt().with_env_filter(levels).with_writer(std::io::stderr).init();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    match &cli.command {
        Bench::OpenbBaselines { data } => baselines(&openb::data(data.clone()), &cli.out),
        Bench::OpenbFragmentation { data } => fragmentation(&openb::data(data.clone()), &cli.out),
        Bench::OpenbTax { data, policy } => tax(&openb::data(data.clone()), policy, &cli.out),
        Bench::MigChurn { requests, node_gpus, seeds } => churn(*node_gpus, *requests, *seeds, &cli.out),
        Bench::Core => core_speed(&cli.out),
        &Bench::Live { nodes, before, pods, gpu_nodes, latencies } => {
            live_speed(live::Size { nodes, before, pods, gpu_nodes, latencies }, &cli.out)
        }
        &Bench::Agent(size) => agent_speed(size, &cli.out),
        Bench::WasmHost => wasm_host(&cli.out),
        Bench::Compile => unreachable!("handled before anything else"),
    }
}

fn baselines(data: &Path, out: &Path) -> Result<bool> {
    let host = openb::host()?;
    let jobs: Vec<_> =
        BASELINES.iter().flat_map(|baseline| openb::jobs(baseline.policy, baseline.settings, false, &TRACES, &SEEDS)).collect();
    let bar = bar(jobs.len());
    let done = openb::run_all(&host, data, &jobs, threads(), &|| bar.inc(1))?;
    bar.finish_and_clear();
    let rows = openb::reproduce(&done, &openb::published(data)?)?;
    let mut titles = vec!["POLICY", "RUNS", "LARGEST DIFFERENCE", "ALLOWED", "AT"];
    titles.extend(TRACES);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let allowed = row.tolerance.map_or("(draws differ)".to_owned(), |tolerance| format!("{tolerance:.2}"));
            let mut cells = vec![row.published.clone(), row.runs.to_string(), format!("{:.3}", row.largest), allowed, row.at.clone()];
            cells.extend(row.means.iter().map(|mean| format!("{mean:.2}")));
            cells
        })
        .collect();
    say("Largest difference from the published allocation, percentage points, over 80 to 130 % asked for; then mean allocation at 100 %\n");
    say(&table::render(&titles, &cells));
    finish(out, "openb-baselines", &rows)?;
    Ok(rows.iter().all(openb::Reproduced::holds))
}

/// The figures of `openb-fragmentation`: mean allocation at 100 %, percent, for each trace.
#[derive(Serialize)]
struct Allocation {
    traces: [&'static str; 5],
    seeds: [u32; 5],
    ours: Vec<f64>,
    fgd_published: Vec<f64>,
    first_fit: Vec<f64>,
    mean: f64,
    mean_of_better_peer: f64,
    seconds: f64,
    threads: usize,
    decisions: usize,
}

fn fragmentation(data: &Path, out: &Path) -> Result<bool> {
    let host = openb::host()?;
    let bar = bar(2 * TRACES.len() * SEEDS.len());
    let (ours, seconds) = openb::whole(&host, data, "fragmentation", threads(), &|| bar.inc(1))?;
    let (first_fit, _) = openb::whole(&host, data, "first-fit", threads(), &|| bar.inc(1))?;
    bar.finish_and_clear();
    let means = |done: &[Done]| openb::means_at_100(&done.iter().collect::<Vec<_>>());
    let figures = Allocation {
        traces: TRACES,
        seeds: SEEDS,
        ours: means(&ours)?,
        fgd_published: published_means(data, "06-FGD")?,
        first_fit: means(&first_fit)?,
        mean: 0.0,
        mean_of_better_peer: 0.0,
        seconds,
        threads: threads(),
        decisions: ours.iter().map(|run| run.result.decisions).sum(),
    };
    let better: Vec<f64> = figures.fgd_published.iter().zip(&figures.first_fit).map(|(a, b)| a.max(*b)).collect();
    let average = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let figures = Allocation { mean: average(&figures.ours), mean_of_better_peer: average(&better), ..figures };
    let row = |name: &str, values: &[f64]| {
        let mut cells = vec![name.to_owned()];
        cells.extend(values.iter().chain([&average(values)]).map(|value| format!("{value:.2}")));
        cells
    };
    let mut titles = vec!["MEAN ALLOCATION AT 100 %"];
    titles.extend(TRACES);
    titles.push("MEAN");
    let rows = [
        row("fragmentation", &figures.ours),
        row("FGD (published)", &figures.fgd_published),
        row("first-fit", &figures.first_fit),
        row("better of the two", &better),
    ];
    say(&table::render(&titles, &rows));
    say(&format!(
        "\n{} runs of fragmentation through its component: {:.1} s on {} threads, {} decisions",
        TRACES.len() * SEEDS.len(),
        figures.seconds,
        figures.threads,
        figures.decisions
    ));
    finish(out, "openb-fragmentation", &figures)?;
    Ok(figures.ours.iter().zip(&better).all(|(ours, peer)| ours >= peer))
}

fn published_means(data: &Path, policy: &str) -> Result<Vec<f64>> {
    let table = openb::published(data)?;
    TRACES
        .iter()
        .map(|trace| {
            let figure = |seed| table.get(&((*trace).to_owned(), policy.to_owned(), seed)).map(|row| row[3]);
            let figures: Vec<f64> = SEEDS.into_iter().filter_map(figure).collect();
            ensure!(figures.len() == SEEDS.len(), "the published table lacks seeds of {policy} on {trace}");
            Ok(figures.iter().sum::<f64>() / figures.len() as f64)
        })
        .collect()
}

fn tax(data: &Path, policies: &[String], out: &Path) -> Result<bool> {
    let host = openb::host()?;
    let bar = bar(policies.len() * TRACES.len() * SEEDS.len());
    let mut rows = Vec::new();
    for name in policies {
        let policy = partita_policy::bundled::by_name(name).with_context(|| format!("no bundled policy is called {name}"))?;
        rows.push(openb::tax(&host, data, policy.name, &SEEDS, &|| bar.inc(1))?);
    }
    bar.finish_and_clear();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let per = |seconds: f64| format!("{:.2}", seconds * 1e6 / row.decisions as f64);
            let middle = row.ratios[row.ratios.len() / 2];
            vec![
                row.policy.clone(),
                row.decisions.to_string(),
                per(row.component_s),
                per(row.native_s),
                format!("{:.3}", row.ratio),
                format!("{middle:.3}"),
                format!("{:.3} to {:.3}", row.ratios[0], row.ratios[row.ratios.len() - 1]),
            ]
        })
        .collect();
    let titles = ["POLICY", "DECISIONS", "COMPONENT US", "NATIVE US", "RATIO", "MEDIAN OF PAIRS", "PAIRS"];
    say(&table::render(&titles, &cells));
    finish(out, "openb-tax", &rows)?;
    Ok(true)
}

/// The figures of `mig-churn`.
#[derive(Serialize)]
struct ChurnFigures<'a> {
    gpus: usize,
    node_gpus: usize,
    load: f64,
    requests: usize,
    seeds: u64,
    rows: &'a [mig_churn::Row],
    published: &'a [mig_churn::Published],
    seconds: f64,
    threads: usize,
    decisions: usize,
}

fn churn(node_gpus: usize, requests: usize, seeds: u64, out: &Path) -> Result<bool> {
    let host = openb::host()?;
    let jobs = mig_churn::jobs(node_gpus, requests, seeds);
    let bar = bar(jobs.len() * seeds as usize);
    let started = Instant::now();
    let done = mig_churn::run_all(&host, &jobs, threads(), &|| bar.inc(1))?;
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let rows = mig_churn::compare(&done);
    let what = format!("100 A100-80GB, {node_gpus} a node, at load 1.0, {requests} requests, seeds 1 to {seeds}");
    say(&format!("{what}: mean and 95 % confidence interval; published in use / accepted\n"));
    say(&table::render(&mig_churn::TITLES, &mig_churn::cells(&rows)));
    let decisions: usize = done.iter().map(|done| done.decisions).sum();
    let per_decision = done.iter().map(|done| done.decisions_s).sum::<f64>() * 1e6 / decisions as f64;
    let runs = jobs.len() as u64 * seeds;
    say(&format!("\n{runs} runs through components: {seconds:.1} s on {} threads, {per_decision:.1} us a decision", threads()));
    let published = &mig_churn::PUBLISHED;
    let figures =
        ChurnFigures { gpus: 100, node_gpus, load: 1.0, requests, seeds, rows: &rows, published, seconds, threads: threads(), decisions };
    finish(out, "mig-churn", &figures)?;
    Ok(rows.iter().all(|row| row.reached != Some(false)))
}

fn core_speed(out: &Path) -> Result<bool> {
    let host = openb::host()?;
    let bar = bar(core::PARTS as usize);
    let rows = core::measure(&host, &|| bar.inc(1))?;
    bar.finish_and_clear();
    say(&table::render(&core::TITLES, &core::cells(&rows)));
    finish(out, "core", &rows)?;
    Ok(rows.iter().all(core::Row::reached))
}

fn live_speed(size: live::Size, out: &Path) -> Result<bool> {
    let figures = live::run(size, &tell)?;
    let cell = |row: &live::Rate| {
        let [own, theirs] = [row.partita, row.kube_scheduler].map(|rate| format!("{rate:.0}"));
        let ratio = format!("{:.2}", row.partita / row.kube_scheduler);
        let goal = format!("{:.0}", row.goal);
        vec![row.shape.to_owned(), row.peer.to_owned(), row.nodes.to_string(), row.pods.to_string(), own, theirs, ratio, goal]
    };
    let cells: Vec<Vec<String>> = figures.rates.iter().map(cell).collect();
    say("Pods bound a second, both schedulers on the same control plane, one after the other\n");
    say(&table::render(&["PODS ASK FOR", "<KUBE-SCHEDULER BY", "NODES", "PODS", "PARTITA/S", "KUBE-SCHEDULER/S", "RATIO", "GOAL"], &cells));
    let live::Latency { nodes, pods, p50, p99 } = figures.latency;
    say(&format!("From created to bound, a new MIG partition each ({pods} pods, {nodes} nodes): p50 {p50:.0} ms, p99 {p99:.0} ms\n"));
    let [lean, full] = figures.decode_us;
    say(&format!("Decoding a pod of a watch: {lean:.1} us with what scheduling needs, {full:.1} us in full\n"));
    finish(out, "live", &figures)?;
    Ok(figures.rates.iter().all(|row| row.partita >= row.kube_scheduler * row.goal) && p50 < 50.0 && p99 < 200.0)
}

fn agent_speed(size: agent::Size, out: &Path) -> Result<bool> {
    let figures = match agent::run(size, openb::host()?, &tell)? {
        Ok(figures) => figures,
        Err(why) => {
            say(&format!("skipped, nothing was measured: no real node on this machine: {why}"));
            return Ok(true);
        }
    };
    let agent::Figures { model, gpus, new_over_warm: [bound, running], after_binding, .. } = &figures;
    say(&format!("Pods one by one on a real node with {gpus} {model}, from created to running; the library behind NVML is not NVIDIA's,"));
    say("so what a driver takes to make a partition is not in these times; GPU work and hand-over by the agent's own histograms\n");
    let (titles, rows) = figures.parts();
    say(&table::render(&titles.iter().map(String::as_str).collect::<Vec<_>>(), &rows));
    say(&format!("\nA new partition over a warm one, medians: {bound:.2} × to be bound, {running:.2} × to run"));
    say(&format!("bound → running is the kubelet's and containerd's, not ours: {after_binding:.0} % of the way with a new partition\n"));
    say("Pods that come at once, ms\n");
    say(&table::render(&agent::AT_ONCE_TITLES, &figures.at_once()));
    finish(out, "agent", &figures)?;
    Ok(figures.holds())
}

fn wasm_host(out: &Path) -> Result<bool> {
    let figures = wasm::measure()?;
    say("What a question costs: fuel is exact, times are this machine's\n");
    let cells: Vec<Vec<String>> = figures
        .costs
        .iter()
        .map(|row| {
            vec![
                row.policy.clone(),
                format!("{:.0}", row.instantiate_us),
                format!("{:.2}", row.small_us),
                row.small_fuel.to_string(),
                format!("{:.1}", row.large_us),
                row.large_fuel.to_string(),
                format!("{:.2} %", row.large_share * 100.0),
                format!("{:.1}", row.lower_us),
                format!("{:.1}", row.lower_us / figures.copy_us),
            ]
        })
        .collect();
    let titles = ["POLICY", "INSTANCE US", "100 GPUS US", "FUEL", "8,000 GPUS US", "FUEL", "OF BUDGET", "PASS COLUMNS US", "OVER MEMCPY"];
    say(&table::render(&titles, &cells));
    say("\nAttacks and how they ended\n");
    let cells: Vec<Vec<String>> = figures
        .attacks
        .iter()
        .map(|row| {
            let held = if row.held { "stopped" } else { "NOT STOPPED" };
            vec![row.attack.clone(), held.to_owned(), format!("{:.1}", row.ms), row.ending.chars().take(90).collect()]
        })
        .collect();
    say(&table::render(&["ATTACK", "", "MS", "<ENDING"], &cells));
    finish(out, "wasm-host", &figures)?;
    Ok(figures.attacks.iter().all(|attack| attack.held) && figures.costs.iter().all(|cost| cost.lower_us <= wasm::LOWER_US_MAX))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn bar(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} runs  {eta} left");
    ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn finish(out: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = out.join(format!("{name}.json"));
    table::write_json(&path, value)?;
    say(&format!("\nwritten: {}", path.display()));
    Ok(())
}

/// Says what goes on.
fn tell(what: &str) {
    drop(writeln!(io::stderr().lock(), "measuring: {what}"));
}

/// Prints a line. A reader that went away, as `head` does, is no failure.
fn say(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

fn say_error(error: &anyhow::Error) {
    drop(writeln!(io::stderr().lock(), "error: {error:#}"));
}
