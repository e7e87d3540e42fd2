//! The command line: what can be said, and the help that says so.

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use partita_core::Config;
use partita_sim::churn::{ChurnMix, MIXES};

use crate::{agent::Agent, spec::PolicySpec};

/// The end of `--help`.
const EXIT: &str = "\
Start with `partita simulate`, which needs nothing; `partita COMMAND --help` has examples.

Exit codes: 0 done; 1 the command could not do its job (the message says why); 2 the command line, or the scenario to explain,
was wrong.";

/// partita makes GPUs in Kubernetes stop idling: it cuts them into partitions for the pods that wait, by policies that are WebAssembly
/// components.
#[derive(Debug, Parser)]
#[command(name = "partita", version, after_help = EXIT, max_term_width = 110)]
pub(crate) struct Cli {
    /// More about what happens, on standard error (-vv for everything).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true, value_name = "WHEN")]
    pub color: Color,
    /// How to write the log, on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true, value_name = "FORMAT")]
    pub log: LogFormat,
    /// Where to send what was done and how long it took: an OpenTelemetry collector that takes OTLP over gRPC.
    #[arg(long, global = true, value_name = "URL")]
    pub otlp: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to write the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line, for log collectors.
    Json,
}

/// How to print a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

/// What comes before a policy's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reuse {
    /// A pod that finds a warm partition of its profile gets it.
    First,
    /// Warm partitions count as free slots.
    Free,
}

impl From<Reuse> for partita_core::Reuse {
    fn from(reuse: Reuse) -> Self {
        match reuse {
            Reuse::First => Self::First,
            Reuse::Free => Self::Free,
        }
    }
}

/// How an openb workload without an order of arrival is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Times {
    /// In the order of the file, one pod a second, to stay.
    Order,
    /// At the times of the trace, running as long as they did there.
    Trace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Schedule a workload on a simulated cluster, under several policies side by side.
    Simulate(Simulate),
    /// Schedule the pods of a Kubernetes cluster that name it as their scheduler.
    Scheduler(Scheduler),
    /// Why a pod of a cluster waits; or play a small scenario with the real planner and tell what it did, and what is on every GPU.
    Explain(Explain),
    /// Run the agent of this machine's node, which cuts its GPUs; or look at them.
    Agent(Box<Agent>),
    /// Write the sample cluster and workload that `simulate` runs by default.
    Sample(Sample),
    /// Look at policies: what is bundled, whether a component is one, what it costs.
    #[command(subcommand)]
    Policy(Policy),
    /// Compile a component read from standard input under limits. Run by partita itself, in a process of its own.
    #[command(hide = true, name = partita_policy::Compiler::SUBCOMMAND)]
    Compile,
}

const SIMULATE_EXAMPLES: &str = "\
Examples:
  partita simulate
      The bundled sample under several policies; writes report.html.
  partita simulate --policy fragmentation --policy first-fit --policy ./mine.wasm
      A policy of your own beside two bundled ones.
  partita simulate --cluster cluster.toml --workload pods.csv --report out.html
      Your own cluster and pods. `partita sample` writes files to start from.
  partita simulate --cluster nodes.csv --workload pods/default.csv --arrivals arrivals/default-42.txt -o json
      The Alibaba openb trace (USENIX ATC'23) in its published order of arrival.
  partita simulate --policy fragmentation:scoring=fgd
      A policy with settings: KEY=VALUE, comma-separated.
  partita simulate --cluster cluster.toml --workload pods.csv --moves 2 --no-preempt
      Room is made by moving at most two pods for one, and nobody is evicted.
  partita simulate --churn uniform --churn bimodal --policy fragmentation --policy first-fit
      MIG partitions that come and go on 100 A100-80GB: slots in use and requests accepted, over ten seeds.";

/// Arguments of `partita simulate`.
#[derive(Debug, Args)]
#[command(after_help = SIMULATE_EXAMPLES)]
pub(crate) struct Simulate {
    /// The cluster: partita's TOML, or openb's nodes CSV. Without it, the bundled sample.
    #[arg(long, value_name = "FILE", requires = "workload")]
    pub cluster: Option<PathBuf>,
    /// The pods: partita's CSV or JSON lines, or openb's pods CSV.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub workload: Option<PathBuf>,
    /// An openb order of arrival: pods arrive one by one, never leave, and are dropped if they do not fit.
    #[arg(long, value_name = "FILE", requires = "workload")]
    pub arrivals: Option<PathBuf>,
    /// How an openb workload without an order of arrival is played.
    #[arg(long, value_enum, default_value_t = Times::Order, value_name = "HOW")]
    pub times: Times,
    /// A bundled policy or a component file, with settings after a colon; repeat to compare. [default: fragmentation, first-fit,
    /// best-fit, spread]
    #[arg(long, value_name = "NAME|FILE.wasm[:KEY=VALUE,...]")]
    pub policy: Vec<PolicySpec>,
    /// Run bundled policies as native code instead of WebAssembly.
    #[arg(long)]
    pub native: bool,
    /// Seed of the random numbers that policies are given, with --churn also of the requests; equal seeds give equal results.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    #[command(flatten)]
    pub planner: PlannerArgs,
    /// Where to write the HTML report. [default: report.html for the sample, none otherwise]
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// How to print the comparison.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
    /// Print the comparison as JSON: short for `-o json`.
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub no_progress: bool,
    // Last: its heading goes for all that follow.
    #[command(flatten)]
    pub churn: ChurnArgs,
}

impl Simulate {
    /// Whether the result is to be printed as JSON.
    pub(crate) fn wants_json(&self) -> bool {
        self.json || self.output == Output::Json
    }
}

/// Arguments that say how the planner decides.
#[derive(Debug, Args)]
pub(crate) struct PlannerArgs {
    /// The most pods that are moved to make room for one; only pods that say `restartable` are.
    #[arg(long, default_value_t = Config::DEFAULT.moves, value_name = "N")]
    pub moves: u32,
    /// Whether warm partitions go before free slots, or the policy alone decides.
    #[arg(long, value_enum, default_value_t = Reuse::First, value_name = "WHICH")]
    pub reuse: Reuse,
    /// Evict nobody: pods of higher priority wait until there is room.
    #[arg(long)]
    pub no_preempt: bool,
}

impl PlannerArgs {
    /// How the planner decides, beside the policies.
    pub(crate) fn config(&self) -> Config {
        let reuse = self.reuse.into();
        Config { reuse, moves: self.moves, preempt: !self.no_preempt, ..Config::DEFAULT }
    }
}

/// Arguments of `partita simulate --churn`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Partitions that come and go")]
pub(crate) struct ChurnArgs {
    /// Play MIG partitions that come and go instead of a workload: how often each profile is asked for. Repeat to compare.
    #[arg(long, value_name = "MIX", value_parser = mixes(), conflicts_with_all = ["cluster", "workload", "arrivals", "times", "report"])]
    pub churn: Vec<&'static ChurnMix>,
    /// Slots that the requests would use if all were accepted, as a multiple of those that there are.
    #[arg(long, default_value_t = 1.0, requires = "churn", allow_negative_numbers = true)]
    pub load: f64,
    /// GPUs of the cluster, four a node.
    #[arg(long, default_value_t = 100, requires = "churn")]
    pub gpus: usize,
    /// Requests of each seed; the first fifth is not counted.
    #[arg(long, default_value_t = 30_000, requires = "churn")]
    pub requests: usize,
    /// Seeds to play, from that of --seed on; all policies play the same.
    #[arg(long, default_value_t = 10, requires = "churn", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
}

/// Reads the name of a mix.
fn mixes() -> impl TypedValueParser<Value = &'static ChurnMix> {
    let names = PossibleValuesParser::new(MIXES.iter().map(|mix| mix.name));
    names.try_map(|name| ChurnMix::by_name(&name).ok_or("no such mix"))
}

const SCHEDULER_EXAMPLES: &str = "\
Examples:
  partita scheduler
      In a cluster, or with KUBECONFIG: schedules pods with `schedulerName: partita`.
  partita scheduler --dry-run
      Decides on the live cluster and prints what it would do. Writes nothing, not even a lease.
  partita scheduler --policy ./mine.wasm:key=value --listen 0.0.0.0:9090 --log json
      By a policy of your own; metrics, health and reasons on port 9090.";

/// Arguments of `partita scheduler`.
#[derive(Debug, Args)]
#[command(after_help = SCHEDULER_EXAMPLES)]
pub(crate) struct Scheduler {
    /// How to reach the cluster. [default: KUBECONFIG, ~/.kube/config, or the pod's own account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The `schedulerName` of the pods that it schedules.
    #[arg(long, default_value = "partita", value_name = "NAME")]
    pub name: String,
    /// A bundled policy or a component file, with settings after a colon. [default: fragmentation]
    #[arg(long, value_name = "NAME|FILE.wasm[:KEY=VALUE,...]")]
    pub policy: Option<PolicySpec>,
    /// Run a bundled policy as native code instead of WebAssembly.
    #[arg(long)]
    pub native: bool,
    /// Decide and print what would be done, as lines or JSON, but write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Where to serve /metrics, /livez, /readyz and /explain/NAMESPACE/POD.
    #[arg(long, default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    pub listen: String,
    /// Who this process is among its replicas; something random is appended, so that no two are the same. [default: host name]
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Act without a lease: only where nothing else of this name can run.
    #[arg(long)]
    pub no_lease: bool,
    /// Namespace of the lease.
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    pub lease_namespace: String,
    /// Name of the lease: one for each `schedulerName`. [default: NAME-scheduler, with NAME as of --name]
    #[arg(long, value_name = "NAME")]
    pub lease_name: Option<String>,
    /// How long the lease lasts after a renewal, seconds. A paused leader stops writing after two thirds of it.
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=300))]
    pub lease_seconds: u64,
    #[command(flatten)]
    pub planner: LivePlannerArgs,
    /// How to print what a dry run would do.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORMAT", requires = "dry_run")]
    pub output: Output,
}

/// Arguments that say how the planner of a live cluster decides.
#[derive(Debug, Args)]
pub(crate) struct LivePlannerArgs {
    /// Whether warm partitions go before free slots, or the policy alone decides.
    #[arg(long, value_enum, default_value_t = Reuse::First, value_name = "WHICH")]
    pub reuse: Reuse,
    /// Evict nobody: pods of higher priority wait until there is room.
    #[arg(long)]
    pub no_preempt: bool,
    /// How long a pod waits before a place is kept free for it, seconds.
    #[arg(long, default_value_t = Config::DEFAULT.patience_ms / 1000, value_name = "SECONDS")]
    pub patience: u64,
    /// How long a place is kept free for a pod, seconds.
    #[arg(long, default_value_t = Config::DEFAULT.hold_ms / 1000, value_name = "SECONDS")]
    pub hold: u64,
    /// The most places that are kept free at a time; 0 keeps none.
    #[arg(long, default_value_t = Config::DEFAULT.holds, value_name = "N")]
    pub holds: u32,
}

impl LivePlannerArgs {
    /// How the planner decides, beside the policies. Nobody is moved: a pod that is stopped is started again by its controller, as another
    /// pod, and nothing keeps its new place for it.
    pub(crate) fn config(&self) -> Config {
        let reuse = self.reuse.into();
        let (patience_ms, hold_ms) = (self.patience.saturating_mul(1000), self.hold.saturating_mul(1000));
        Config { reuse, moves: 0, preempt: !self.no_preempt, patience_ms, hold_ms, holds: self.holds, ..Config::DEFAULT }
    }
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  partita explain pod train-0 -n team
      Why the pod waits, or where it runs and on which partition.
  partita explain --scenario two-gpus.toml
      What happens to the pods of a scenario such as:

        [[node]]
        name = \"a100\"
        gpus = [
          { model = \"A100-80GB\", partitions = [\"1g.10gb@0 warm\", \"3g.40gb@4 used by team/train\"] },
          { model = \"A100-80GB\" },
        ]

        [[pod]]
        name = \"train\"
        namespace = \"team\"
        on = \"a100\"

        [[pod]]
        name = \"api\"
        mig = \"2 x 1g.10gb\"

  partita explain --scenario two-gpus.toml --policy spread -o json
      The same under another policy, for a program.

host/sim/FORMATS.md says what a scenario may hold: how GPUs are cut, disruption budgets, steps in time. Who is told to stop or to move does so at once, before the planner decides again, unless a step says that they linger; who was evicted waits again.";

/// Arguments of `partita explain`.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Explain {
    #[command(subcommand)]
    pub what: Option<ExplainWhat>,
    /// The scenario.
    #[arg(long, value_name = "FILE", required = true)]
    pub scenario: Option<PathBuf>,
    /// A bundled policy or a component file, with settings after a colon. [default: the one that the scenario names, else
    /// fragmentation]
    #[arg(long, value_name = "NAME|FILE.wasm[:KEY=VALUE,...]")]
    pub policy: Option<PolicySpec>,
    /// Run a bundled policy as native code instead of WebAssembly.
    #[arg(long)]
    pub native: bool,
    /// How to print what happens.
    #[arg(short, long, value_enum, default_value_t = Telling::Text, value_name = "FORMAT")]
    pub output: Telling,
}

/// What of a live cluster is explained.
#[derive(Debug, Subcommand)]
pub(crate) enum ExplainWhat {
    /// Why a pod waits, or where it runs and on which partition.
    Pod(ExplainPod),
}

/// Arguments of `partita explain pod`.
#[derive(Debug, Args)]
pub(crate) struct ExplainPod {
    /// Its name, or NAMESPACE/NAME.
    pub pod: String,
    /// Its namespace. [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// How to reach the cluster. [default: KUBECONFIG, ~/.kube/config, or the pod's own account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How to print the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
}

/// How to print what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Telling {
    /// Words and drawings for people.
    Text,
    /// JSON for programs.
    Json,
}

/// Arguments of `partita sample`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  partita sample --seed 7 --out my-sample && \\\n    partita simulate --cluster my-sample/cluster.toml --workload my-sample/workload.csv"
)]
pub(crate) struct Sample {
    /// Seed of the generator; the bundled sample has the default.
    #[arg(long, default_value_t = partita_sim::sample::SEED)]
    pub seed: u64,
    /// Folder to write cluster.toml and workload.csv into; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Overwrite files that are there.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// List the bundled policies.
    List {
        /// How to print the list.
        #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
        output: Output,
    },
    /// Check a component stage by stage: size, imports, world, limits, compilation, settings.
    #[command(after_help = "Example:\n  partita policy check mine.wasm:key=value")]
    Check {
        /// The component file, or the name of a bundled policy, with settings after a colon.
        #[arg(value_name = "FILE[:KEY=VALUE,...]")]
        policy: PolicySpec,
        /// How to print the result.
        #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
        output: Output,
    },
    /// Measure what a policy costs: fuel, time and memory at 100, 1,000 and 8,000 GPUs.
    #[command(after_help = "Example:\n  partita policy bench fragmentation -o json")]
    Bench {
        /// The component file, or the name of a bundled policy, with settings after a colon.
        #[arg(value_name = "FILE[:KEY=VALUE,...]")]
        policy: PolicySpec,
        /// How to print the figures.
        #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
        output: Output,
    },
}
