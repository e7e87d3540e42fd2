//! The cases by which nos's planner was described, played through whole rounds: groups MPS, Snapshot and sorting, Planner, Apply.
//!
//! nos plans geometries and lets the scheduler place pods later; partita places pods and cuts GPUs in one plan, so each case is played
//! with its pods, on every arrangement of the partitions that it counts. Where nos's answer was called a defect, the better answer is the
//! one expected here. A GPU under MPS has the memory of the case plus what is promised to nobody. A pod that a case pins to a node is
//! pinned here by the model of the node's GPUs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod brute;
mod script;
mod stage;

use brute::arranged::EMPTY;
use partita_core::{
    Action, Config,
    model::{Cut, Found, GpuAsk, GpuSpec, NodeId, NodeSpec, Partitioning, PodId},
    state::{Event, GpuFault, Refused},
};
use script::{Script, Zeros, mig, whole};
use stage::{Told, a30, clusters, gb, migs, play, pod, shares, staged, times};

/// What became of a case.
enum Case {
    /// It holds as it stands, or with the answer marked as the better one.
    Holds(fn()),
    /// It holds in the form that our model gives it, which is the text.
    InOurForm(&'static str, fn()),
    /// It means nothing to the planner, for this reason.
    Meaningless(&'static str),
}
use Case::{Holds, InOurForm, Meaningless};

/// One node with one GPU under MPS, pods by GB in the order in which they come, and the shares afterwards.
#[track_caller]
fn slices(capacity: u32, used: &[u32], warm: &[u32], asks: &[u32], after: &[(&str, u32)]) {
    let pods: Vec<_> = asks.iter().map(|&ask| pod(gb(ask))).collect();
    play(&[("n1", &[Told::Mps(capacity, used, warm)])], &pods, |played| {
        played.has("n1", 0, after);
    });
}

fn mps_node(name: &str, gpus: usize, capacity: u32) -> NodeSpec {
    NodeSpec { name: name.into(), gpus: vec![GpuSpec::new(&format!("foo-{capacity}"), Cut::Mps); gpus], ..NodeSpec::default() }
}

/// Why the only GPU of a node with those shares is set aside.
fn fault(capacity: u32, found: Vec<Found>) -> Option<GpuFault> {
    let mut node = mps_node("n1", 1, capacity);
    node.gpus[0].found = found;
    staged(Config::DEFAULT, &[node]).node("n1").room.gpus[0].fault.clone()
}

const AGENT: &str =
    "the configuration of the device plugin belongs to the agent of the node, which is told of one node's changes at a time";

const MPS: &[(&str, Case)] = &[
    (
        "MP-01",
        InOurForm("the GPU is set aside, so that the rest of the node serves on", || {
            assert!(matches!(fault(40, shares(&[10; 5], &[20])), Some(GpuFault::Memory { taken: 71_680, capacity: 40_960 })));
        }),
    ),
    (
        "MP-02",
        InOurForm("a share of nothing sets the GPU aside", || {
            assert_eq!(fault(30, shares(&[10, 10], &[10])), None);
            assert_eq!(fault(30, shares(&[0], &[])), Some(GpuFault::Kind(Cut::Mps)));
            assert_eq!(fault(30, shares(&[], &[0])), Some(GpuFault::Kind(Cut::Mps)));
        }),
    ),
    ("MP-03", Holds(|| slices(40, &[10, 10], &[20], &[], &[("10gb", 2), ("20gb", 1)]))),
    (
        "MP-04",
        Holds(|| {
            play(&[("n1", &[Told::Mps(40, &[], &[20, 20])])], &times(2, &gb(20)), |played| {
                played.uses("n1", 0, &[("20gb", 2)]).has("n1", 0, &[("20gb", 2)]);
                assert_eq!(played.changes(), 0);
            });
        }),
    ),
    ("MP-05", Holds(|| slices(40, &[20, 20], &[], &[10, 20], &[("20gb", 2)]))),
    ("MP-06", Holds(|| slices(60, &[10], &[], &[10, 20, 20], &[("10gb", 2), ("20gb", 2)]))),
    ("MP-07", Holds(|| slices(40, &[], &[], &[10; 5], &[("10gb", 4)]))),
    (
        "MP-08",
        InOurForm("the order is that of age: nos's answer where the small pods came first, no space wasted where the large did", || {
            slices(40, &[], &[], &[5, 5, 10, 10, 20, 20], &[("5gb", 2), ("10gb", 2)]);
            slices(40, &[], &[], &[20, 20, 10, 10, 5, 5], &[("20gb", 2)]);
        }),
    ),
    ("MP-09", Holds(|| slices(40, &[20], &[10, 10], &[20], &[("20gb", 2)]))),
    ("MP-10", Holds(|| slices(45, &[20], &[10, 15], &[20], &[("20gb", 2)]))),
    ("MP-11", Holds(|| slices(45, &[20], &[10, 15], &[30, 31, 31, 32, 32], &[("20gb", 1), ("10gb", 1), ("15gb", 1)]))),
    (
        "MP-12",
        Holds(|| {
            play(&[("n1", &[Told::Mps(40, &[10, 10], &[])])], &[pod(gb(20))], |played| {
                played.has("n1", 0, &[("10gb", 2), ("20gb", 1)]);
                assert_eq!(played.changes(), 0);
            });
        }),
    ),
    ("MP-13", Holds(|| slices(40, &[], &[10], &[10, 10], &[("10gb", 2)]))),
    (
        "MP-14",
        Holds(|| {
            for _ in 0..20 {
                slices(45, &[10], &[10, 12, 8], &[20], &[("10gb", 1), ("20gb", 1), ("12gb", 1)]);
                slices(45, &[10], &[8, 10, 12], &[20], &[("10gb", 1), ("20gb", 1), ("12gb", 1)]);
            }
        }),
    ),
    (
        "MP-15",
        InOurForm("labels are read by the agent of the node; here GPUs are told, and a model that nobody described is refused", || {
            let mut played = staged(Config::DEFAULT, &[mps_node("n1", 3, 2)]);
            for gpu in 0..3 {
                played.has("n1", gpu, EMPTY);
            }
            let unknown = Event::NodeAdded(NodeId(1), mps_node("n2", 3, 9));
            assert!(played.planner.apply(unknown).unwrap_err().to_string().contains("foo-9"));
            played.asked(&times(4, &gb(2))).runs(&[Some("n1"), Some("n1"), Some("n1"), None]);
        }),
    ),
    (
        "MP-16",
        Holds(|| {
            play(&[("n1", &[Told::Mps(39, &[], &[10, 10]), Told::Mps(39, &[20], &[]), Told::Mps(39, &[], &[])])], &[], |played| {
                played.has("n1", 0, &[("10gb", 2)]).uses("n1", 1, &[("20gb", 1)]).has("n1", 2, EMPTY);
            });
        }),
    ),
    (
        "MP-17",
        InOurForm("whether anything fits is asked with the smallest share", || {
            let fits = |gpus: &[Told<'_>], node: Option<&str>| {
                play(&[("n1", gpus)], &[pod(gb(1))], |played| {
                    played.runs(&[node]);
                });
            };
            fits(&[Told::Mps(20, &[20], &[])], None);
            fits(&[Told::Mps(80, &[5], &[])], Some("n1"));
            fits(&[Told::Mps(80, &[], &[])], Some("n1"));
            fits(&[], None);
        }),
    ),
    ("MP-18", Meaningless(AGENT)),
    ("MP-19", Meaningless(AGENT)),
    ("MP-20", Meaningless(AGENT)),
    (
        "MP-21",
        InOurForm("nodes are numbers, so that node-1 is not the beginning of node-10", || {
            let nodes = ["node-1", "node-10"].map(|name| mps_node(name, 1, 10));
            let mut played = staged(Config::DEFAULT, &nodes).asked(&times(2, &gb(10)));
            let kept = played.node("node-10").clone();
            played.planner.apply(Event::NodeRemoved(NodeId(0))).unwrap();
            assert_eq!(played.node("node-10"), &kept);
        }),
    ),
];

const MOVES: Config = Config { moves: 2, preempt: false, ..Config::DEFAULT };

const SNAPSHOT: &[(&str, Case)] = &[
    (
        "SN-01",
        Holds(|| {
            play(&[], &[pod(migs(&[("1g.10gb", 2)])).cpu(200)], |played| {
                assert_eq!(
                    (played.plan.waiting.len(), played.reason(0).as_str()),
                    (1, "0/0 nodes fit; no node could take it even when idle")
                );
                let entry = played.planner.cluster().demands().get(played.plan.waiting[0]);
                assert_eq!((entry.wants.len(), entry.wants[0].count), (1, 2));
            });
        }),
    ),
    (
        "SN-02",
        InOurForm("a pod asks for whole GPUs or for partitions, and is told which of them are short", || {
            let asks = [pod(migs(&[("1g.10gb", 2), ("7g.40gb", 1)])).cpu(4000)];
            play(&[("n1", &[Told::Plain("T4")]), ("n2", &[a30(&[("4g.24gb", 1)])])], &asks, |played| {
                let why = played.reason(0);
                assert!(why.contains("2 x 1g.10gb + 7g.40gb") && !why.contains("cpu"), "{why}");
            });
        }),
    ),
    (
        "SN-03",
        InOurForm(
            "there is no fork: what is tried is a copy of one node's room, and a pod that is refused leaves the books as they were",
            || {
                play(&[("n1", &[a30(&[("1g.6gb", 4)])])], &[pod(mig("4g.24gb")).cpu(64_001)], |played| {
                    let before = staged(Config::DEFAULT, std::slice::from_ref(&played.node("n1").spec));
                    assert_eq!(played.node("n1").room, before.node("n1").room);
                    assert!(played.plan.actions.is_empty());
                });
            },
        ),
    ),
    (
        "SN-04",
        InOurForm("moves that are tried and given up change no GPU", || {
            // One of the two in the way would find a place, on a GPU that is cut otherwise; the other finds none.
            let gpus = |model: &str, cut, count| vec![GpuSpec::new(model, cut); count];
            let node = |name: &str, gpus, partitioning| NodeSpec {
                name: name.into(),
                cpu_milli: 100_000,
                memory_mib: 100_000,
                gpus,
                partitioning,
                ..NodeSpec::default()
            };
            let nodes =
                [node("a", gpus("A30", Cut::Mig, 1), Partitioning::Fixed), node("b", gpus("A30", Cut::Shares, 1), Partitioning::Auto)];
            let mut script = Script::of(MOVES, nodes);
            script.runs(0, "a", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]).restartable(0);
            script.runs(1, "a", migs(&[("1g.6gb", 2)]), 0, &[(0, 2, "1g.6gb"), (0, 3, "1g.6gb")]).restartable(1);
            let rooms = |script: &Script| [NodeId(0), NodeId(1)].map(|id| script.planner.cluster().node(id).unwrap().room.clone());
            script.waits(2, mig("4g.24gb"), 0);
            // Both fit on the idle GPU of b, and so does the pod that waits: it is placed without a move.
            assert!(script.round().iter().any(|action| matches!(action, Action::Bind { pod: PodId(2), .. })));
            script.ends(2);
            script.runs(3, "b", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]);
            let before = rooms(&script);
            script.waits(2, mig("4g.24gb"), 0);
            assert!(script.round().is_empty());
            assert_eq!(rooms(&script), before);
        }),
    ),
    (
        "SN-05",
        Holds(|| {
            let node = |name: &str, partitioning| NodeSpec {
                name: name.into(),
                gpus: vec![GpuSpec::new("A100-80GB", Cut::Shares)],
                partitioning,
                ..NodeSpec::default()
            };
            let nodes = [node("plain", Partitioning::Fixed), node("mig", Partitioning::Mig), node("mps", Partitioning::Mps)];
            let played = staged(Config::DEFAULT, &nodes).asked(&[pod(mig("1g.10gb")), pod(gb(10)), pod(whole(1))]);
            played.runs(&[Some("mig"), Some("mps"), Some("plain")]);
        }),
    ),
    (
        "SN-06",
        Holds(|| {
            let mut played = staged(Config::DEFAULT, &[mps_node("n1", 1, 20)]);
            let odd = mps_node("n2", 1, 7);
            assert!(matches!(played.planner.apply(Event::NodeAdded(NodeId(1), odd)), Err(Refused::Node(_))));
            played.planner.apply(Event::NodeAdded(NodeId(1), mps_node("n3", 1, 20))).unwrap();
            played.asked(&times(2, &gb(20))).runs(&[Some("n1"), Some("n3")]);
        }),
    ),
    (
        "TR-01",
        Holds(|| {
            let mut played = staged(Config::DEFAULT, &[]).asked(&[pod(migs(&[("1g.10gb", 1), ("7g.40gb", 2)])), pod(mig("1g.10gb"))]);
            assert_eq!(played.plan.waiting.len(), 2);
            played.planner.apply(Event::PodRemoved(PodId(0))).unwrap();
            let plan = played.planner.round(&mut [&mut Zeros]);
            assert_eq!(plan.waiting, [played.planner.cluster().pod(PodId(1)).unwrap().demand]);
        }),
    ),
    (
        "TR-02",
        Holds(|| {
            let mut played = staged(Config::DEFAULT, &[]);
            assert!(played.planner.apply(Event::PodRemoved(PodId(0))).is_err() && played.planner.queue().is_empty());
            let mut played = played.asked(&[pod(mig("1g.10gb"))]);
            assert!(played.planner.apply(Event::PodRemoved(PodId(7))).is_err());
            assert_eq!(played.planner.queue().len(), 1);
        }),
    ),
    (
        "SO-01",
        Holds(|| {
            let pods = [pod(mig("1g.10gb")).priority(1), pod(mig("7g.79gb")).priority(2)];
            play(&[("n1", &[Told::Mig("A100-80GB", EMPTY, EMPTY)])], &pods, |played| {
                played.runs(&[None, Some("n1")]);
            });
        }),
    ),
    (
        "SO-02",
        InOurForm("among equals the older goes first, whatever its size: one that is large would else wait for ever", || {
            let asks = ["7g.40gb", "1g.5gb", "4g.20gb"].map(|name| pod(mig(name)));
            play(&[("n1", &[Told::Mig("A100-40GB", EMPTY, EMPTY)])], &asks, |played| {
                played.runs(&[Some("n1"), None, None]);
            });
            let asks = ["4g.20gb", "1g.5gb", "7g.40gb"].map(|name| pod(mig(name)));
            play(&[("n1", &[Told::Mig("A100-40GB", EMPTY, EMPTY)])], &asks, |played| {
                played.runs(&[Some("n1"), Some("n1"), None]);
            });
        }),
    ),
    (
        "SO-03",
        Holds(|| {
            play(&[("n1", &[])], &times(3, &GpuAsk::None), |played| {
                let order: Vec<u32> = played
                    .plan
                    .actions
                    .iter()
                    .filter_map(|action| if let Action::Bind { pod, .. } = action { Some(pod.0) } else { None })
                    .collect();
                assert_eq!(order, [0, 1, 2]);
            });
        }),
    ),
];

const PLANNER: &[(&str, Case)] = &[
    (
        "PL-01",
        Holds(|| {
            for count in [0, 2] {
                play(&[], &times(count, &mig("1g.10gb")), |played| assert!(played.plan.actions.is_empty()));
            }
        }),
    ),
    (
        "PL-02",
        InOurForm("GPUs with profiles that their model has not are set aside; the pod without slices runs", || {
            let alien = |name: &str, profile: &str, used| {
                let found = vec![Found { profile: Some(profile.into()), start: 0, memory_mib: 0, used }];
                NodeSpec { name: name.into(), gpus: vec![GpuSpec { found, ..GpuSpec::new("A30", Cut::Mig) }], ..NodeSpec::default() }
            };
            let played = staged(Config::DEFAULT, &[alien("n1", "4g.20gb", true), alien("n2", "1g.5gb", false)])
                .asked(&[pod(mig("4g.20gb")), pod(GpuAsk::None)]);
            played.runs(&[None, Some("n1")]);
            assert_eq!(played.changes(), 0);
            for (node, profile) in [("n1", "4g.20gb"), ("n2", "1g.5gb")] {
                assert_eq!(played.node(node).room.gpus[0].fault, Some(GpuFault::Profile(profile.into())));
            }
        }),
    ),
    ("PL-03", InOurForm(SHORT, short_of_cpu)),
    ("PL-04", InOurForm(SHORT, short_of_cpu)),
    (
        "PL-05",
        InOurForm("what is asked is made, seven of eight, and the free GPU is used before a warm partition goes", || {
            let pods = [2, 3, 2].map(|count| pod(migs(&[("1g.6gb", count)])));
            play(&[("n1", &[a30(&[("4g.24gb", 1)])]), ("n2", &[a30(EMPTY)])], &pods, |played| {
                played.has("n1", 0, &[("1g.6gb", 3)]).has("n2", 0, &[("1g.6gb", 4)]).runs(&[Some("n2"), Some("n1"), Some("n2")]);
            });
        }),
    ),
    (
        "PL-06",
        Holds(|| {
            let nodes: [(&str, &[Told<'_>]); 2] = [
                ("n1", &[a30(&[("1g.6gb", 4)]), a30(&[("1g.6gb", 4)])]),
                ("n2", &[Told::Mig("A100-40GB", EMPTY, &[("1g.5gb", 5), ("2g.10gb", 1)])]),
            ];
            let pods = [migs(&[("3g.20gb", 2)]), mig("4g.24gb"), mig("2g.12gb"), mig("2g.12gb")].map(pod);
            play(&nodes, &pods, |played| {
                played.has("n2", 0, &[("3g.20gb", 2)]).has_some_way("n1", &[&[("4g.24gb", 1)], &[("2g.12gb", 2)]]);
            });
        }),
    ),
    (
        "PL-07",
        InOurForm("the older pod has the warm 1g; beside it and a 2g a 4g fits only if it is the one in the last slot", || {
            let (both, large) = (migs(&[("2g.20gb", 1), ("1g.10gb", 1)]), mig("4g.40gb"));
            let all = [("4g.40gb", 1), ("2g.20gb", 1), ("1g.10gb", 1)];
            let nodes: [(&str, &[Told<'_>]); 1] = [("n1", &[Told::Mig("A100-80GB", EMPTY, &[("1g.10gb", 1)])])];
            for specs in clusters(&nodes) {
                let in_the_way = specs[0].gpus[0].found[0].start < 6;
                let played = staged(Config::DEFAULT, &specs).asked(&[both.clone(), large.clone()].map(pod));
                played.runs(&[Some("n1"), (!in_the_way).then_some("n1")]);
                assert_eq!(played.reason(1).contains("no legal place for 4g.40gb"), in_the_way);
                // The large one first: always all three.
                staged(Config::DEFAULT, &specs).asked(&[large.clone(), both.clone()].map(pod)).has("n1", 0, &all);
            }
        }),
    ),
    ("PL-08", Holds(|| slices(40, &[], &[10], &[10, 5], &[("10gb", 1), ("5gb", 1)]))),
    (
        "PL-09",
        Holds(|| {
            let nodes: [(&str, &[Told<'_>]); 3] = [
                ("n1", &[Told::Mps(40, &[10, 10], &[10, 10])]),
                ("n2", &[Told::Mps(40, &[], &[40]), Told::Mps(40, &[40], &[])]),
                ("n3", &[Told::Mps(20, &[], &[])]),
            ];
            play(&nodes, &[40, 20].map(|ask| pod(gb(ask))), |played| {
                played.runs(&[Some("n2"), Some("n3")]).has("n1", 0, &[("10gb", 4)]).has("n2", 0, &[("40gb", 1)]);
                assert_eq!(played.changes(), 0);
            });
        }),
    ),
    (
        "PL-10",
        InOurForm("the empty GPU is used before a warm share goes; without it both are made where nos makes them", || {
            let n1: &[Told<'_>] = &[Told::Mps(50, &[10], &[40]), Told::Mps(50, &[40], &[])];
            let n2: &[Told<'_>] = &[Told::Mps(40, &[30], &[10])];
            let pods = times(2, &gb(20));
            play(&[("n1", n1), ("n2", n2), ("n3", &[Told::Mps(20, &[], &[])])], &pods, |played| {
                played.has("n3", 0, &[("20gb", 1)]).has("n1", 0, &[("20gb", 1), ("10gb", 1)]).has("n2", 0, &[("10gb", 1), ("30gb", 1)]);
            });
            play(&[("n1", n1), ("n2", n2), ("n3", &[Told::Mps(19, &[], &[])])], &pods, |played| {
                played.has("n1", 0, &[("20gb", 2), ("10gb", 1)]).has("n1", 1, &[("40gb", 1)]).has("n3", 0, EMPTY);
            });
        }),
    ),
    (
        "PL-11",
        Holds(|| {
            play(&[("n1", &[a30(EMPTY)]), ("n2", &[Told::Plain("T4")])], &times(2, &gb(5)), |played| {
                assert!(played.plan.actions.is_empty());
            });
        }),
    ),
    (
        "PL-12",
        Holds(|| {
            let node = [a30(&[("4g.24gb", 1)])];
            let nodes = ["n1", "n2", "n3", "n4", "n5"].map(|name| (name, node.as_slice()));
            play(&nodes, &times(2, &migs(&[("1g.6gb", 4)])), |played| {
                played.runs(&[Some("n1"), Some("n2")]).has("n1", 0, &[("1g.6gb", 4)]).has("n5", 0, &[("4g.24gb", 1)]);
                assert_eq!(played.changed().len(), 2);
            });
        }),
    ),
    (
        "PL-13",
        Holds(|| {
            let nodes: [(&str, &[Told<'_>]); 2] =
                [("n1", &[a30(&[("1g.6gb", 4)])]), ("n2", &[Told::Mig("A30-24GB", EMPTY, &[("4g.24gb", 1)])])];
            play(&nodes, &[pod(mig("1g.6gb")).on("A30-24GB")], |played| {
                played.runs(&[Some("n2")]).has("n2", 0, &[("1g.6gb", 1)]).has("n1", 0, &[("1g.6gb", 4)]);
            });
        }),
    ),
    (
        "PL-14",
        Holds(|| {
            play(&[("n1", &[a30(&[("2g.12gb", 1), ("1g.6gb", 2)])])], &[pod(migs(&[("2g.12gb", 2)]))], |played| {
                played.uses("n1", 0, &[("2g.12gb", 2)]);
            });
        }),
    ),
    (
        "PL-15",
        Holds(|| {
            play(&[("n1", &[a30(&[("2g.12gb", 1), ("1g.6gb", 2)])])], &times(2, &mig("2g.12gb")), |played| {
                played.uses("n1", 0, &[("2g.12gb", 2)]);
            });
        }),
    ),
    (
        "PL-16",
        Holds(|| {
            let gpu = a30(&[("1g.6gb", 4)]);
            play(&[("n1", &[gpu, gpu])], &[pod(migs(&[("4g.24gb", 2)]))], |played| {
                played.uses("n1", 0, &[("4g.24gb", 1)]).uses("n1", 1, &[("4g.24gb", 1)]);
            });
        }),
    ),
    (
        "PL-17",
        Holds(|| {
            let pods = [pod(migs(&[("1g.6gb", 4)])), pod(mig("2g.12gb")).priority(100), pod(mig("1g.6gb")), pod(mig("1g.6gb"))];
            play(&[("n1", &[a30(&[("4g.24gb", 1)])])], &pods, |played| {
                played.runs(&[None, Some("n1"), Some("n1"), Some("n1")]).has("n1", 0, &[("2g.12gb", 1), ("1g.6gb", 2)]);
            });
        }),
    ),
    (
        "PL-18",
        Holds(|| {
            let nodes: [(&str, &[Told<'_>]); 2] =
                [("n1", &[Told::Mig("A100-40GB", EMPTY, EMPTY), a30(&[("1g.6gb", 2)])]), ("n2", &[Told::Mps(45, &[10], &[8, 10, 12])])];
            let pods = [mig("1g.5gb"), mig("2g.12gb"), gb(20), migs(&[("1g.5gb", 2), ("3g.20gb", 1)])].map(pod);
            for specs in clusters(&nodes) {
                let plan = || staged(Config::DEFAULT, &specs).asked(&pods).bytes();
                let first = plan();
                assert!(first.contains("Withdraw") && (0..20).all(|_| plan() == first));
            }
        }),
    ),
];

const SHORT: &str = "what nos's scheduler plugins refuse is here a shortage of the node: no GPU changes for a pod that cannot run";

fn short_of_cpu() {
    let pods = ["1g.6gb", "1g.6gb", "2g.12gb"].map(|name| pod(mig(name)).cpu(64_001));
    play(&[("n1", &[a30(&[("4g.24gb", 1)])])], &pods, |played| {
        assert!(played.plan.actions.is_empty());
        played.has("n1", 0, &[("4g.24gb", 1)]);
    });
}

const APPLY: &[(&str, Case)] = &[
    (
        "AP-01",
        Holds(|| {
            play(&[("n1", &[a30(&[("1g.6gb", 4)])])], &[], |played| assert!(played.plan.actions.is_empty()));
            // What is asked exists: a pod is bound, no GPU changes.
            play(&[("n1", &[a30(&[("1g.6gb", 4)])])], &times(4, &mig("1g.6gb")), |played| {
                assert_eq!((played.changes(), played.plan.actions.len()), (0, 4));
            });
        }),
    ),
    (
        "AP-02",
        InOurForm("an event about a node that is not there is refused and changes nothing", || {
            let mut played = staged(Config::DEFAULT, &[mps_node("n1", 1, 10)]);
            assert!(played.planner.apply(Event::NodeRemoved(NodeId(1))).is_err());
            played.asked(&[pod(gb(10))]).runs(&[Some("n1")]);
        }),
    ),
    ("AP-03", Meaningless("annotations are written by the controller and read by the agent of the node; a plan has actions")),
    (
        "AP-04",
        InOurForm("a node is what its GPUs have, in whatever order that was found", || {
            let one = |profile: &str, start| Found { profile: Some(profile.into()), start, memory_mib: 0, used: false };
            let room = |gpus: &[Vec<Found>]| {
                let gpus = gpus.iter().map(|found| GpuSpec { found: found.clone(), ..GpuSpec::new("A30", Cut::Mig) }).collect();
                staged(Config::DEFAULT, &[NodeSpec { name: "n".into(), gpus, ..NodeSpec::default() }]).node("n").room.clone()
            };
            let (first, empty) = (vec![one("1g.6gb", 0), one("2g.12gb", 2)], Vec::new());
            let same = room(&[first.clone(), empty.clone()]);
            assert_eq!(room(&[first.iter().rev().cloned().collect(), empty.clone()]), same);
            for other in [vec![first.clone()], vec![empty.clone(), first.clone()], vec![first[..1].to_vec(), empty]] {
                assert_ne!(room(&other), same);
            }
        }),
    ),
    (
        "AP-05",
        Holds(|| {
            let names: Vec<String> = (0..100).map(|row| format!("n{row}")).collect();
            let (small, large) = ([a30(&[("1g.6gb", 4)])], [a30(&[("4g.24gb", 1)])]);
            let all = names.iter().enumerate().map(|(row, name)| (name.as_str(), if row == 50 { large.as_slice() } else { &small }));
            play(&all.collect::<Vec<_>>(), &[pod(mig("4g.24gb")), pod(mig("1g.6gb"))], |played| {
                played.runs(&[Some("n50"), Some("n0")]);
                assert_eq!((played.changes(), played.changed().len()), (0, 2));
            });
            play(&all_alike(&names, &small), &[pod(mig("4g.24gb"))], |played| {
                assert_eq!(played.changed().into_iter().collect::<Vec<_>>(), ["n0"]);
            });
        }),
    ),
];

fn all_alike<'a>(names: &'a [String], gpus: &'a [Told<'a>]) -> Vec<(&'a str, &'a [Told<'a>])> {
    names.iter().map(|name| (name.as_str(), gpus)).collect()
}

#[test]
fn the_cases_of_nos_hold() {
    for (group, cases) in [("MPS", MPS), ("Snapshot, tracker, sorting", SNAPSHOT), ("Planner", PLANNER), ("Apply", APPLY)] {
        let (mut hold, mut ours, mut meaningless) = (0, 0, 0);
        for (id, case) in cases {
            match case {
                Holds(check) => {
                    check();
                    hold += 1;
                }
                InOurForm(form, check) => {
                    check();
                    println!("{id} in our form: {form}");
                    ours += 1;
                }
                Meaningless(why) => {
                    println!("{id} means nothing here: {why}");
                    meaningless += 1;
                }
            }
        }
        println!("{group}: of {} cases {hold} hold, {ours} hold in our form, {meaningless} mean nothing here", cases.len());
    }
}
