//! Random clusters, pods and events.

use partita_core::{
    Config, Reuse,
    model::{Cut, Demand, Found, GpuAsk, GpuSpec, Isolation, NodeSpec, Partitioning, PodSpec, Terms, catalog},
};
use proptest::{prelude::*, sample::Index};

/// The models of every cluster.
pub(crate) const MODELS: [&str; 4] = ["A100-80GB", "A30", "T4", "H100-80GB"];
/// The most nodes of a cluster.
pub(crate) const NODES_MAX: usize = 4;

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Arrive(PodSpec),
    /// The user of a partition that was found in use becomes known.
    Runs(PodSpec, Index),
    Leave(Index),
    /// One that was told to stop has stopped.
    Stopped(Index),
    /// One that moved has left its old place.
    Left(Index),
    Time(u64),
    Budget(String, Option<u32>),
    NodeGone(usize),
    NodeBack(usize),
}

fn partitionings() -> impl Strategy<Value = Partitioning> {
    use Partitioning::{Auto, Fixed, Mig, Mps, Off, TimeSlicing};
    prop::sample::select(vec![Fixed, Fixed, Off, Mig, Mps, TimeSlicing, Auto, Auto, Auto])
}

/// Partitions found on a GPU: most legal, some not.
fn found(model: &str, cut: Cut, raw: &[(u8, u8, bool)], sloppy: bool) -> Vec<Found> {
    let known = catalog::builtin(model).unwrap();
    match (cut, known.grid) {
        (Cut::Mig, Some(grid)) => {
            let mut places = Vec::new();
            let mut found = Vec::new();
            for &(profile, start, used) in raw {
                let row = profile % grid.profiles.len() as u8;
                let known = &grid.profiles[usize::from(row)];
                let start = known.starts[usize::from(start) % known.starts.len()];
                let place = partita_core::model::Placement { profile: row, start };
                if sloppy || grid.admits(&places, place) {
                    places.push(place);
                    found.push(Found { profile: Some(known.name.clone()), start, memory_mib: 0, used });
                }
            }
            found
        }
        (Cut::Mps, _) => {
            let share = |&(a, b, used): &(u8, u8, bool)| {
                let memory_mib = if sloppy { known.memory_mib / 2 } else { 1024 + u32::from(a ^ b) % 4 * 512 };
                Found { profile: None, start: 0, memory_mib, used }
            };
            raw.iter().map(share).collect()
        }
        _ => Vec::new(),
    }
}

fn gpu() -> impl Strategy<Value = GpuSpec> {
    let raw = prop::collection::vec((0u8..16, 0u8..8, any::<bool>()), 0..4);
    let uuid = prop_oneof![6 => Just(String::new()), 1 => Just("GPU-a".to_owned()), 1 => Just("GPU-b".to_owned())];
    let unusable = prop_oneof![19 => Just(None), 1 => Just(Some("it fell off the bus".to_owned()))];
    let parts = (prop::sample::select(MODELS.to_vec()), 0usize..3, raw, prop::bool::weighted(0.1), uuid, unusable);
    parts.prop_map(|(model, cut, raw, sloppy, uuid, unusable)| {
        let cut = [Cut::Shares, Cut::Mig, Cut::Mps][cut];
        let cut = if cut == Cut::Mig && catalog::builtin(model).unwrap().grid.is_none() { Cut::Shares } else { cut };
        GpuSpec { model: model.into(), cut, uuid, found: found(model, cut, &raw, sloppy), unusable }
    })
}

/// A cluster of up to [`NODES_MAX`] nodes.
pub(crate) fn nodes() -> impl Strategy<Value = Vec<NodeSpec>> {
    let node = (prop::collection::vec(gpu(), 0..4), partitionings(), 2u32..12, 2u32..12);
    prop::collection::vec(node, 1..=NODES_MAX).prop_map(|nodes| {
        let node = |(row, (gpus, partitioning, cpu, memory)): (usize, (Vec<GpuSpec>, Partitioning, u32, u32))| NodeSpec {
            name: format!("node-{row}"),
            cpu_milli: cpu * 1000,
            memory_mib: memory * 4096,
            gpus,
            partitioning,
            ..NodeSpec::default()
        };
        nodes.into_iter().enumerate().map(node).collect()
    })
}

fn asks() -> impl Strategy<Value = GpuAsk> {
    let profiles = vec![
        "1g.10gb",
        "1g.10gb+me",
        "1g.20gb",
        "2g.20gb",
        "3g.40gb",
        "4g.40gb",
        "7g.80gb",
        "1g.6gb",
        "1g.6gb+me",
        "2g.12gb",
        "2g.12gb+me",
        "4g.24gb",
    ];
    let profile = || prop::sample::select(profiles.clone());
    let isolation = prop::sample::select(vec![Isolation::Shared, Isolation::Memory, Isolation::Hardware]);
    prop_oneof![
        1 => Just(GpuAsk::None),
        2 => prop::sample::select(vec![100u32, 300, 500, 1000]).prop_map(|milli| GpuAsk::Share { count: 1, milli }),
        1 => (2u32..4, prop::sample::select(vec![400u32, 1000])).prop_map(|(count, milli)| GpuAsk::Share { count, milli }),
        4 => profile().prop_map(GpuAsk::mig),
        2 => prop::collection::vec((profile(), 1u32..3), 1..3)
            .prop_map(|some| GpuAsk::Mig { partitions: some.into_iter().map(|(name, count)| (name.to_owned(), count)).collect() }),
        2 => prop::sample::select(vec![1024u32, 2048, 8192, 20_000]).prop_map(|memory_mib| GpuAsk::Mps { memory_mib }),
        2 => (prop::sample::select(vec![1024u32, 6000, 12_000, 40_000]), prop::sample::select(vec![0u32, 10, 30, 60]), isolation)
            .prop_map(|(memory_mib, compute, isolation)| GpuAsk::Floor { memory_mib, compute, isolation }),
    ]
}

pub(crate) fn demands() -> impl Strategy<Value = Demand> {
    let models =
        prop_oneof![5 => Just(vec![]), 1 => Just(vec!["A30".to_owned(), "A100-80GB".to_owned()]), 1 => Just(vec!["H100-80GB".to_owned()])];
    (asks(), models, 0u32..4, 0u32..3).prop_map(|(gpu, models, cpu, memory)| {
        let models = if gpu == GpuAsk::None { vec![] } else { models };
        Demand { cpu_milli: cpu * 1000, memory_mib: memory * 4096, gpu, models, ..Demand::default() }.validated().unwrap()
    })
}

pub(crate) fn pods() -> impl Strategy<Value = PodSpec> {
    let budgets = prop::sample::subsequence(vec!["a".to_owned(), "b".to_owned()], 0..=2);
    let terms = (any::<bool>(), prop::sample::select(vec![0u64, 0, 0, 5000]), budgets, prop::bool::weighted(0.15));
    (demands(), 0i32..4, terms).prop_map(|(demand, priority, (restartable, min_runtime_ms, budgets, never_preempts))| PodSpec {
        name: String::new(),
        namespace: "team".into(),
        priority,
        demand,
        terms: Terms { restartable, min_runtime_ms, budgets, never_preempts },
        ..PodSpec::default()
    })
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::sample::select(vec!["a".to_owned(), "b".to_owned()]);
    let step = prop_oneof![
        16 => pods().prop_map(Step::Arrive),
        1 => (pods(), any::<Index>()).prop_map(|(pod, which)| Step::Runs(pod, which)),
        3 => any::<Index>().prop_map(Step::Leave),
        4 => any::<Index>().prop_map(Step::Stopped),
        3 => any::<Index>().prop_map(Step::Left),
        3 => prop::sample::select(vec![1000u64, 6000, 30_000]).prop_map(Step::Time),
        1 => (name(), prop::option::of(0u32..3)).prop_map(|(name, allowed)| Step::Budget(name, allowed)),
        1 => (0..NODES_MAX).prop_map(Step::NodeGone),
        2 => (0..NODES_MAX).prop_map(Step::NodeBack),
    ];
    prop::collection::vec(step, 1..50)
}

pub(crate) fn configs() -> impl Strategy<Value = Config> {
    (any::<bool>(), 0u32..3, prop::bool::weighted(0.8), any::<bool>()).prop_map(|(first, moves, preempt, patient)| Config {
        seed: 7,
        reuse: if first { Reuse::First } else { Reuse::Free },
        moves,
        preempt,
        patience_ms: if patient { 300_000 } else { 10_000 },
        hold_ms: 20_000,
        holds: 2,
    })
}
