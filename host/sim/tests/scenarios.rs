//! Scenarios: what the reader refuses, word for word, and that whatever it takes can be played.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod common;

use std::fmt::Write as _;

use partita_core::{
    model::{GpuAsk, Isolation, NodeId, Partitioning},
    state::{Grant, Use},
};
use partita_sim::{
    SimError,
    scenario::{Entry, SCENARIO_MAX, Scenario},
};
use proptest::prelude::*;

use common::Zeros;

fn read(text: &str) -> Result<Scenario, String> {
    Scenario::parse("s.toml", text.as_bytes()).map_err(|error| error.to_string())
}

const VALID: &str = r#"
title = "All there is"
policy = "first-fit"

[config]
seed = 7
reuse = "free"
moves = 1
preempt = false
patience = 10
hold = 20.5
holds = 1

[[model]]
name = "X"
memory_mib = 8192
[model.grid]
slots = 2
compute = 2
profiles = [{ name = "1g", compute = 1, size = 1, memory_mib = 4096, starts = [0, 1], max = 2 }]

[[budget]]
name = "web"
allowed = 1

[[node]]
name = "n"
cpu = "8"
memory = "64Gi"
partitioning = "auto"
gpus = [
  { model = "A100-80GB", uuid = "GPU-1", partitions = ["1g.10gb@0 warm", "3g.40gb@4 used by team/a", "1g.10gb@1 used", "1g.10gb@2 used by team/a"] },
  { model = "T4", partitions = ["4Gi used by b", "2Gi warm"] },
  { model = "T4", partitions = ["250 used by c", "500 used by default/d"] },
  { model = "X", count = 2, cut = "mig" },
  { model = "A30", cut = "mig", uuid = "GPU-1", unchecked = true, partitions = ["4g.24gb@0 used", "1g.6gb@0 warm"] },
]

[[node]]
name = "m"

[[pod]]
name = "a"
namespace = "team"
on = "n"
restartable = true
min-runtime = 60
budgets = ["web"]

[[pod]]
name = "b"
on = "n"
mps = "4Gi"

[[pod]]
name = "c"
on = "n"
share = 250

[[pod]]
name = "d"
on = "n"

[[pod]]
name = "e"
priority = -5
cpu = 2
memory = "3G"
gpu = 2
share = 100
models = ["T4", "A30"]
never-preempts = true

[[pod]]
name = "f"
mig = "2 x 1g.10gb + 3g.40gb"

[[pod]]
name = "g"
"nvidia.com/mig-1g.10gb" = 2
"nvidia.com/mig-1g.10gb.me" = 1

[[pod]]
name = "h"
"nvidia.com/gpu-10gb" = 1

[[pod]]
name = "i"
part = { memory = "10Gi", compute = 30, isolation = "memory" }

[[step]]
at = 1.5
arrives = ["f", "h"]
lingers = ["team/a"]
budgets = { web = 0 }

[[step]]
at = 60
ends = ["f", "team/a"]
"#;

#[test]
fn a_scenario_is_read_as_it_is_written() {
    let scenario = read(VALID).unwrap();
    let config = scenario.config;
    assert_eq!(
        (config.seed, config.moves, config.preempt, config.patience_ms, config.hold_ms, config.holds),
        (7, 1, false, 10_000, 20_500, 1)
    );
    assert_eq!((scenario.title.as_deref(), scenario.policy), (Some("All there is"), Some(("first-fit".to_owned(), 3))));
    assert_eq!(scenario.nodes[0].partitioning, Partitioning::Auto);
    assert_eq!(scenario.nodes[0].gpus.len(), 6);
    assert_eq!((scenario.nodes[1].cpu_milli, scenario.nodes[1].memory_mib), (128_000, 1 << 20));
    let asks: Vec<String> = scenario.pods.iter().map(|pod| pod.spec.demand.gpu.to_string()).collect();
    let shown = [
        "1g.10gb + 3g.40gb",
        "an MPS share of 4096 MiB",
        "250 milli-GPU",
        "500 milli-GPU",
        "100 milli-GPU of 2 GPUs",
        "2 x 1g.10gb + 3g.40gb",
        "2 x 1g.10gb + 1g.10gb.me",
        "an MPS share of 9537 MiB",
    ];
    assert_eq!(asks[..8], shown);
    assert_eq!(scenario.pods[8].spec.demand.gpu, GpuAsk::Floor { memory_mib: 10_240, compute: 30, isolation: Isolation::Memory });
    assert_eq!(scenario.pods[1].runs, Some((NodeId(0), Grant(vec![(1, Use::Mps(4096))]))));
    let a = &scenario.pods[0].spec.terms;
    assert_eq!((a.restartable, a.min_runtime_ms, a.budgets.as_slice(), a.never_preempts), (true, 60_000, &["web".to_owned()][..], false));
    assert_eq!((scenario.pods[4].spec.priority, scenario.pods[4].spec.demand.memory_mib), (-5, 2862));
    let steps: Vec<_> =
        scenario.steps.iter().map(|step| (step.at_ms, step.arrives.clone(), step.ends.clone(), step.lingers.clone())).collect();
    assert_eq!(steps, [(0, vec![4, 6, 8], vec![], vec![]), (1500, vec![5, 7], vec![], vec![0]), (60_000, vec![], vec![5, 0], vec![])]);
    assert_eq!(scenario.steps[1].budgets, [("web".to_owned(), 0)]);
}

/// A node with one GPU; line 1 is `[[node]]`, line 4 the GPU.
fn gpu_of(gpu: &str) -> String {
    format!("[[node]]\nname = \"n\"\ngpus = [\n{{ {gpu} }},\n]\n")
}

/// The same with parts on its GPU.
fn parts_of(parts: &str) -> String {
    gpu_of(&format!("model = \"A100-80GB\", partitions = [{parts}]"))
}

/// The same with a pod in line 6, of which line 8 says more.
fn pod_of(pod: &str) -> String {
    format!("{}[[pod]]\nname = \"a\"\n{pod}\n", gpu_of("model = \"A100-80GB\""))
}

const ODD: &str = "correct it, or set unchecked = true on this GPU to see what partita does with such a report";

#[test]
fn nodes_and_gpus_are_refused_with_line_key_value_and_remedy() {
    let (gpu, parts) = (gpu_of, parts_of);
    let node = gpu("model = \"A100-80GB\"");
    let part = "write 1g.10gb@0 (profile and first slot), 10Gi (under MPS), 250 (milli-GPU) or whole, and then warm, used, or used by POD";
    let cases = [
        ("title = \"x\"".to_owned(), "s.toml: has no nodes; add [[node]] with name and gpus".to_owned()),
        ("[[node]]\ncpu = 1".into(), "s.toml:1: name: is missing from [[node]]; add it".into()),
        (format!("{node}{node}"), "s.toml:6: name: \"n\" is the name of the node in line 1 too; give each node its own name".into()),
        (format!("{node}colour = 1"), "s.toml:6: \"colour\" is no key of [[node]]; known are name, cpu, memory, partitioning, gpus".into()),
        (format!("{node}cpu = true"), "s.toml:6: cpu: is a boolean; write a text or a plain number".into()),
        (format!("{node}cpu = 0x10"), "s.toml:6: cpu: is an integer; write a text or a plain number".into()),
        (
            format!("{node}partitioning = \"all\""),
            "s.toml:6: partitioning: \"all\" is no partitioning; write fixed, off, mig, mps, time-slicing or auto".into(),
        ),
        (
            format!("{node}[config]\nreuse = \"last\""),
            "s.toml:7: reuse: \"last\" is no way to reuse partitions; write first or free".into(),
        ),
        (
            gpu("model = \"T4\", cut = \"mig\""),
            "s.toml:4: cut: \"T4\" is a model that MIG cannot cut; use cut = \"shares\", or describe its grid with [[model]]".into(),
        ),
        (gpu("model = \"T4\", count = 65"), "s.toml:4: count: \"65\" is too large for GPUs; the limit is 64".into()),
        (
            gpu("model = \"T4\", count = 0"),
            "s.toml:3: gpus: \"0\" is no number of GPUs for this node; a node has 1 to 64 GPUs, or no gpus key".into(),
        ),
        (
            gpu("model = \"A30\", count = 2, partitions = [\"1g.6gb@0 warm\"]"),
            "s.toml:4: count: is more than the one GPU that has this UUID or these partitions; give each GPU its own table".into(),
        ),
        (parts("\"1g.10gb@0\""), format!("s.toml:4: partitions: \"1g.10gb@0\" is no part of a GPU; {part}")),
        (parts("\"1g.10gb@0 cold\""), format!("s.toml:4: partitions: \"1g.10gb@0 cold\" is no part of a GPU; {part}")),
        (
            parts("\"3g.40gb@2 warm\""),
            format!("s.toml:4: partitions: \"3g.40gb@2 warm\" begins where 3g.40gb cannot; it may at slot 0, 4; {ODD}"),
        ),
        (parts("\"3g.40gb@0 warm\", \"1g.10gb@2 used\""), format!("s.toml:4: partitions: \"1g.10gb@2 used\" overlaps 3g.40gb@0; {ODD}")),
        (
            parts("\"1g.10gb@0 warm\", \"4Gi warm\""),
            "s.toml:4: partitions: \"4Gi warm\" is no part of a GPU that is cut by mig; keep one kind on a GPU".into(),
        ),
        (parts("\"1001 used by a\""), format!("s.toml:4: partitions: \"1001 used by a\" is no part of a GPU; {part}")),
        (
            parts("\"600 used by a\", \"401 used by a\""),
            "s.toml:4: partitions: \"401 used by a\" is more than the 400 milli-GPU left; a GPU has 1000".into(),
        ),
        (
            parts("\"whole warm\""),
            "s.toml:4: partitions: \"whole warm\" is a share of no pod; a share is there only while a pod has it; write used by POD".into(),
        ),
        (
            parts("\"80Gi used\""),
            format!("s.toml:4: partitions: \"80Gi used\" is more than the 81408 MiB for 48 clients that a A100-80GB can promise; {ODD}"),
        ),
        (
            format!("{}{}", gpu("model = \"T4\", uuid = \"u\""), gpu("model = \"T4\", uuid = \"u\"").replace("\"n\"", "\"m\"")),
            format!("s.toml:9: uuid: \"u\" is the UUID of another GPU too; {ODD}"),
        ),
    ];
    for (text, message) in cases {
        assert_eq!(read(&text).unwrap_err(), message, "{text}");
    }
}

#[test]
fn pods_and_steps_are_refused_with_line_key_value_and_remedy() {
    let (parts, pod) = (parts_of, pod_of);
    let cases = [
        (
            parts("\"1g.10gb@0 used by a\""),
            "s.toml:4: partitions: \"a\" is a pod that nobody described; add a [[pod]] of that name; there is none",
        ),
        (
            format!("{}[[pod]]\nname = \"a\"\n", parts("\"1g.10gb@0 used by a\"")),
            "s.toml:4: partitions: \"a\" is a pod that is not said to run; add on = \"n\" to the pod",
        ),
        (
            format!("{}[[pod]]\nname = \"a\"\non = \"n\"\nmig = \"2g.20gb\"", parts("\"1g.10gb@0 used by a\"")),
            "s.toml:8: on: \"a\" asks for 2g.20gb, which is not what it uses; make what it asks for and the partitions that name it agree",
        ),
        (
            format!("{}[[pod]]\nname = \"a\"\non = \"n\"\ncpu = 200", parts("\"1g.10gb@0 used by a\"")),
            "s.toml:8: on: \"a\" does not fit: cpu is short; make what it asks for and the partitions that name it agree",
        ),
        (pod("on = \"m\""), "s.toml:8: on: \"m\" is a node that nobody described; add a [[node]] of that name; known are n"),
        (
            pod("on = \"n\"\ngpu = 1"),
            "s.toml:8: on: \"a\" asks for 1 GPU, which is not what it uses; make what it asks for and the partitions that name it agree",
        ),
        (pod("gpu = 0"), "s.toml:6: pod: \"a\" asks for 0 GPUs on one node; the limit is 64; correct what it asks for"),
        (
            pod("gpu = 1\nmig = \"1g.10gb\""),
            "s.toml:6: \"mig\" is asked for beside gpu; ask in one way: gpu, share, mig, mps, part, or resources of one kind",
        ),
        (
            pod("mig = \"2 1g.10gb\""),
            "s.toml:8: mig: \"2 1g.10gb\" is no list of MIG partitions; write profiles as 1g.10gb, or as 2 x 1g.10gb + 3g.40gb",
        ),
        (
            pod("\"nvidia.com/gpu-10gb\" = 2"),
            "s.toml:8: nvidia.com/gpu-10gb: \"2\" is no number of shares; a pod has one share under MPS; write 1",
        ),
        (
            pod("\"nvidia.com/tpu\" = 2"),
            "s.toml:8: nvidia.com/tpu: \"nvidia.com/tpu\" is no resource of a GPU; known are nvidia.com/gpu, nvidia.com/mig-<profile> and nvidia.com/gpu-<n>gb",
        ),
        (pod("part = { compute = 30 }"), "s.toml:8: memory: is missing from part; add it"),
        (
            pod("part = { memory = \"1Gi\", isolation = \"some\" }"),
            "s.toml:8: isolation: \"some\" is no isolation; write hardware, memory or shared",
        ),
        (
            pod("budgets = [\"web\"]"),
            "s.toml:8: budgets: \"web\" is a disruption budget that nobody described; add a [[budget]] of that name",
        ),
        (pod("restartable = 1"), "s.toml:8: restartable: is an integer; write true or false"),
        (pod("[[pod]]\nname = \"a\""), "s.toml:8: name: \"a\" is the name of the pod in line 6 too; give each pod its own name"),
        (pod("[[step]]\nends = [\"b\"]"), "s.toml:9: ends: \"b\" is a pod that nobody described; add a [[pod]] of that name; known are a"),
        (pod("[[step]]\nends = [\"a\", \"a\"]"), "s.toml:9: ends: \"a\" is not there then; let it arrive before, and end once"),
        (
            pod("[[step]]\narrives = [\"a\"]\n[[step]]\narrives = [\"a\"]"),
            "s.toml:11: arrives: \"a\" arrives in the step of line 8 too; let it come once",
        ),
        (pod("[[step]]\nat = 5\n[[step]]\nat = 4.5"), "s.toml:11: at: \"4.5\" is before the step above; put steps in the order of time"),
        (
            pod("[[step]]\nbudgets = { web = 1 }"),
            "s.toml:9: web: \"web\" is a disruption budget that nobody described; add a [[budget]] of that name",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(read(&text).unwrap_err(), message, "{text}");
    }
    let huge = Scenario::parse("s.toml", &vec![b' '; SCENARIO_MAX + 1]).unwrap_err().to_string();
    assert!(huge.starts_with("s.toml: is larger than 1 MiB"), "{huge}");
}

#[test]
fn a_scenario_has_bounds() {
    let node = |row: usize| format!("[[node]]\nname = \"n{row}\"\n");
    let nodes: String = (0..101).map(node).collect();
    assert_eq!(read(&nodes).unwrap_err(), "s.toml:201: is beyond the limit of 100 nodes; tell a smaller story");
    let pod = |row: usize| format!("[[pod]]\nname = \"p{row}\"\n");
    let pods: String = (0..2001).map(pod).collect();
    assert_eq!(read(&format!("{}{pods}", node(0))).unwrap_err(), "s.toml:4003: is beyond the limit of 2000 pods; tell a smaller story");
    let steps = "[[step]]\n".repeat(201);
    assert_eq!(read(&format!("{}{steps}", node(0))).unwrap_err(), "s.toml:203: is beyond the limit of 200 steps; tell a smaller story");
}

#[test]
fn who_lingers_keeps_their_place_until_they_stop() {
    let text = "[[node]]\nname = \"n\"\ngpus = { model = \"T4\", partitions = [\"whole used by low\"] }\n\
                [[pod]]\nname = \"low\"\non = \"n\"\n[[pod]]\nname = \"high\"\npriority = 1\ngpu = 1\n\
                [[step]]\nlingers = [\"low\"]\narrives = [\"high\"]\n[[step]]\nat = 5\n[[step]]\nstops = [\"low\"]\n";
    let transcript = read(text).unwrap().play("zeros", &mut [&mut Zeros]).unwrap();
    let bound = |step: usize| transcript.steps[step].entries.iter().any(|entry| matches!(entry, Entry::Bind { pod, .. } if pod == "high"));
    assert_eq!([0, 1, 2, 3].map(bound), [false, false, false, true]);
    assert_eq!(transcript.steps[2].waiting[0].held.as_ref().unwrap().waits_for, ["low"]);
    let early = read(&text.replace("lingers = [\"low\"]\n", "")).unwrap().play("zeros", &mut [&mut Zeros]).unwrap_err();
    assert_eq!(
        early.to_string(),
        "s.toml:15: stops: \"low\" was not told to stop or to move, or has done so already; let it linger in the step in which it is told to, or take it from stops"
    );
}

/// An error is of this file and of a line that it has, unless it is about the whole of it.
fn located(error: &partita_sim::InputError, bytes: &[u8]) -> bool {
    let lines = bytes.split(|&byte| byte == b'\n').count() as u64;
    let whole = error.line.is_none() && (error.problem.starts_with("has no") || error.problem.starts_with("is empty"));
    &*error.file == "f" && !error.problem.is_empty() && (whole || error.line.is_some_and(|line| (1..=lines).contains(&line)))
}

/// Reads and, if that works, plays.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    match Scenario::parse("f", bytes) {
        Err(error) => prop_assert!(located(&error, bytes), "{error:?} in {}", String::from_utf8_lossy(bytes)),
        Ok(scenario) => match scenario.play("zeros", &mut [&mut Zeros]) {
            Ok(transcript) => prop_assert!(transcript.to_string().starts_with(scenario.title.as_deref().unwrap_or("policy"))),
            Err(SimError::Input(error)) => prop_assert!(located(&error, bytes), "{error:?}"),
            Err(error) => prop_assert!(false, "{error} in {}", String::from_utf8_lossy(bytes)),
        },
    }
    Ok(())
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let strange: Vec<&'static [u8]> = vec![
        b"",
        b"\0",
        b"\xff",
        b"\"",
        b"\n",
        b"-",
        b"99999999999999999999",
        b"1e400",
        b"=",
        b"[[",
        b"]]",
        b"[[pod]]\n",
        b"{",
        b"}",
        b"'''",
        b"0",
        b"1",
        b" ",
        b"@",
        b"used by a",
        b" warm",
        b"true",
        b"n",
        b"team/a",
        "\u{2028}".as_bytes(),
    ];
    let piece = prop_oneof![4 => prop::sample::select(strange).prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..4)];
    prop::collection::vec((any::<prop::sample::Index>(), 0..5usize, piece), 0..4).prop_map(|edits| {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, cut, piece) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        bytes
    })
}

/// A GPU with what may be on it, a pod that asks for something: lines of a scenario that is always valid.
fn gpu() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{ model = \"A30\", cut = \"mig\" }",
        "{ model = \"A30\", partitions = [\"1g.6gb@1 warm\", \"2g.12gb@2 warm\"] }",
        "{ model = \"A30\", partitions = [\"1g.6gb@0 used\"] }",
        "{ model = \"A100-80GB\" }",
        "{ model = \"A100-80GB\", partitions = [\"1g.20gb@0 warm\", \"3g.40gb@4 warm\"] }",
        "{ model = \"A100-80GB\", partitions = [\"20Gi warm\", \"30Gi warm\", \"5Gi used\"] }",
        "{ model = \"T4\" }",
    ])
}

fn ask() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "gpu = 1",
        "gpu = 2",
        "share = 300",
        "gpu = 2\nshare = 600",
        "mig = \"1g.6gb\"",
        "mig = \"2g.12gb + 1g.6gb\"",
        "mig = \"4g.24gb\"",
        "mig = \"2 x 1g.10gb + 3g.40gb\"",
        "mig = \"7g.80gb\"",
        "mps = \"10Gi\"",
        "mps = \"20Gi\"",
        "part = { memory = \"5Gi\", compute = 10 }",
        "part = { memory = \"10Gi\", compute = 20, isolation = \"memory\" }",
        "part = { memory = \"15Gi\", isolation = \"hardware\" }",
        "",
    ])
}

prop_compose! {
    /// Nodes, then pods of which each comes, and perhaps ends or lingers, in some step.
    fn story()(
        moves in 0..4u32,
        nodes in prop::collection::vec((prop::collection::vec(gpu(), 1..4), prop::sample::select(vec!["fixed", "auto", "mig", "mps", "time-slicing", "off"])), 1..4),
        pods in prop::collection::vec((ask(), 0..4i32, any::<bool>(), 0..6usize, 0..9usize, prop::sample::select(vec!["", "restartable = true", "min-runtime = 25", "never-preempts = true"])), 1..16),
    ) -> String {
        let mut text = format!("[config]\nmoves = {moves}\npatience = 15\nhold = 20\n");
        for (row, (gpus, partitioning)) in nodes.iter().enumerate() {
            let _ = write!(text, "[[node]]\nname = \"n{row}\"\npartitioning = \"{partitioning}\"\ngpus = [{}]\n", gpus.join(", "));
        }
        let mut steps: Vec<[Vec<String>; 3]> = vec![Default::default(); 9];
        for (row, (ask, priority, lingers, from, to, terms)) in pods.iter().enumerate() {
            let _ = write!(text, "[[pod]]\nname = \"p{row}\"\npriority = {priority}\n{ask}\n{terms}\n");
            steps[*from][0].push(format!("\"p{row}\""));
            if to > from {
                steps[*to][1].push(format!("\"p{row}\""));
            }
            if *lingers {
                steps[*from][2].push(format!("\"p{row}\""));
            }
        }
        for (row, [arrives, ends, lingers]) in steps.iter().enumerate() {
            let lists = [("arrives", arrives), ("ends", ends), ("lingers", lingers)].map(|(key, names)| format!("{key} = [{}]\n", names.join(", ")));
            let _ = write!(text, "[[step]]\nat = {}\n{}", row * 10, lists.concat());
        }
        text
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_read_or_refused_with_their_place(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&bytes)?;
    }

    #[test]
    fn a_damaged_scenario_is_played_or_refused_with_its_place(bytes in damaged()) {
        survives(&bytes)?;
    }

    /// The planner's picture of every GPU is what its actions made of it.
    #[test]
    fn any_story_is_played_to_its_end(text in story()) {
        prop_assert!(read(&text).is_ok(), "{:?} in {text}", read(&text));
        survives(text.as_bytes())?;
    }
}

#[test]
fn every_prefix_of_a_scenario_is_played_or_refused_with_its_place() {
    for end in 0..VALID.len() {
        survives(&VALID.as_bytes()[..end]).unwrap();
    }
}
