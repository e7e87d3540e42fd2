//! The command line: what can be said, and the help that says so.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use partita_cluster::{GpuModel, nodes::GPU_MODELS};

/// A real Kubernetes control plane on this machine, with simulated nodes, for tests and demonstrations.
#[derive(Debug, Parser)]
#[command(name = "partita-cluster", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What may be done to the GPUs of a node: the value of its label `partita.dev/partitioning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Partitioning {
    /// An idle GPU may become anything.
    Auto,
    /// An idle GPU may become whole or be cut by MIG.
    Mig,
    /// An idle GPU may become whole or be shared by MPS.
    Mps,
    /// A GPU is whole or time-sliced.
    TimeSlicing,
    /// Whole GPUs only.
    Off,
}

/// How to print a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the programs, which `up` would do by itself: about ten minutes on two cores the first time.
    Build {
        /// Also build the kubelet and containerd, for a real node: about five minutes more.
        #[arg(long)]
        node: bool,
        /// How to print where they lie.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Start a cluster and keep it until Ctrl-C.
    #[command(after_help = UP_EXAMPLES)]
    Up(Up),
    /// Run the kubectl that was built, on the cluster that `up` started.
    #[command(after_help = KUBECTL_EXAMPLES)]
    Kubectl {
        /// What to tell it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },
}

const UP_EXAMPLES: &str = "\
Examples:
  partita-cluster up
      4 nodes with 8 GPUs each; pods stay pending until a scheduler runs
  partita-cluster up --nodes 100 --model H100-80GB
      100 nodes with 8 H100 each
  partita-cluster up --gpus 0 --with-kube-scheduler
      nodes without GPUs, and pods that run as soon as they are made
  partita-cluster up --model H100-80GB --partitioning mig
      GPUs that may be cut by MIG, and by nothing else
  partita-cluster up --output json --kubeconfig ./config
      one line of JSON when it is ready, and the kubeconfig at a place of your own";

const KUBECTL_EXAMPLES: &str = "\
Examples:
  partita-cluster kubectl get nodes
  partita-cluster kubectl -- get pods --all-namespaces --watch";

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Simulated nodes.
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub(crate) nodes: usize,
    /// The kind of their GPUs.
    #[arg(long, default_value = "A100-80GB", value_parser = models(), value_name = "NAME")]
    pub(crate) model: GpuModel,
    /// GPUs of each; 0 for none.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) gpus: u32,
    /// What may be done to them.
    #[arg(long, value_enum, default_value_t = Partitioning::Auto)]
    pub(crate) partitioning: Partitioning,
    /// Processors of each, as a Kubernetes quantity.
    #[arg(long, default_value = "64", value_name = "QUANTITY")]
    pub(crate) cpu: String,
    /// Memory of each, as a Kubernetes quantity.
    #[arg(long, default_value = "512Gi", value_name = "QUANTITY")]
    pub(crate) memory: String,
    /// Where to write the kubeconfig, instead of the place in the cache where `partita-cluster kubectl` finds it.
    #[arg(long, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Run kube-scheduler too.
    #[arg(long)]
    pub(crate) with_kube_scheduler: bool,
    /// How to print what was started.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

fn models() -> impl TypedValueParser<Value = GpuModel> {
    let found = |name: String| GPU_MODELS.into_iter().find(|model| model.name == name).ok_or("no such model");
    PossibleValuesParser::new(GPU_MODELS.map(|model| model.name)).try_map(found)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn whatever_follows_kubectl_is_for_kubectl() {
        for words in [&["partita-cluster", "kubectl", "--", "get", "-o", "json"][..], &["partita-cluster", "kubectl", "get", "-o", "json"]]
        {
            let Command::Kubectl { arguments } = Cli::try_parse_from(words).unwrap().command else { panic!("{words:?} is kubectl") };
            assert_eq!(arguments, ["get", "-o", "json"]);
        }
    }
}
