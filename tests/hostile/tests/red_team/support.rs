//! Hosts, policies and a question that every test can use.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use partita_core::policy::{Candidates, Demands, Fault, Gpus, Models, NONE, Nodes, Partitioner, View};
use partita_policy::{CompileLimits, Compiler, Host, HostConfig, Limits, LoadError, WasmPolicy};

/// A host that shares its compiled components with other runs of these tests.
pub(crate) fn host() -> &'static Host {
    static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(config(Some(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")))).unwrap());
    &HOST
}

/// The compiler's process of these tests.
pub(crate) fn compiler(limits: CompileLimits) -> Compiler {
    Compiler { program: PathBuf::from(env!("CARGO_BIN_EXE_policy-compile")), args: Vec::new(), limits }
}

pub(crate) fn config(cache_dir: Option<&Path>) -> HostConfig {
    HostConfig { cache_dir: cache_dir.map(Path::to_owned), compiler: compiler(CompileLimits::default()), ceiling: Limits::default() }
}

/// The hostile guest, loaded for `attack`.
pub(crate) fn attacker(attack: &str) -> WasmPolicy {
    load(&partita_hostile::settings(attack)).unwrap()
}

/// The hostile guest with `settings`.
pub(crate) fn load(settings: &str) -> Result<WasmPolicy, LoadError> {
    host().load("attacker", partita_hostile::COMPONENT, settings, Limits::default()).map(|loaded| loaded.policy)
}

/// What an honest call of the hostile guest answers to [`ask`].
pub(crate) const HONEST: [i32; 2] = [7, 7];

/// A decision with `seed` that puts one question.
pub(crate) fn ask(policy: &mut dyn Partitioner, seed: u32) -> Result<Vec<i32>, Fault> {
    policy.ready()?;
    piece(policy, seed)
}

/// A small question with `seed` within a decision: two nodes, three GPUs, and a pod that asks for half of one.
pub(crate) fn piece(policy: &mut dyn Partitioner, seed: u32) -> Result<Vec<i32>, Fault> {
    let view = View {
        seed,
        models: Models { gpus: &[3], memory: &[81_920], slots: &[8] },
        nodes: Nodes {
            cpu_free: &[8_000, 64_000],
            cpu_capacity: &[96_000; 2],
            memory_free: &[32_000, 256_000],
            memory_capacity: &[512_000; 2],
            gpu_pods: &[1, 0],
            like_pods: &[1, 0],
            gpu_start: &[0, 1, 3],
        },
        gpus: Gpus { model: &[0; 3], free: &[500, 1_000, 1_000], used_slots: &[0; 3], warm_slots: &[0; 3], mig: &[0; 3] },
        demands: Demands {
            cpu: &[4_000],
            memory: &[16_000],
            count: &[1],
            milli: &[500],
            weight: &[1],
            model_start: &[0, 0],
            models: &[],
            profile_start: &[0, 0],
            profiles: &[],
        },
        ..View::default()
    };
    let candidates = Candidates { node: &[0, 1], gpu: &[0, 1], profile: &[NONE; 2], slot: &[NONE; 2], ..Candidates::default() };
    let mut scores = vec![1, 2, 3];
    policy.score(&view, 0, &candidates, &mut scores).map(|()| scores)
}
