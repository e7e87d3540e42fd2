//! Runs whose outcome can be told by hand.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test that panics has failed, as it should; the figures are exact")]

mod common;

use std::error::Error;

use common::{Broken, Emptiest, Random, Zeros};
use partita_core::{Config, policy::Partitioner};
use partita_sim::{Cluster, Contender, Options, Outcome, RunResult, SimError, Unplaceable, Workload, openb::allocation_at, simulate};
use proptest::prelude::*;

const WAIT: Options = Options { seed: 1, unplaceable: Unplaceable::Wait, planner: Config::DEFAULT, warm_up: 0, tidy: None };
const DROP: Options = Options { seed: 1, unplaceable: Unplaceable::Drop, planner: Config::DEFAULT, warm_up: 0, tidy: None };

fn cluster(nodes: &str) -> Cluster {
    Cluster::parse("cluster", nodes.as_bytes()).unwrap()
}

fn workload(rows: &[&str]) -> Workload {
    let text = format!("name,namespace,priority,cpu,memory,gpus,gpu_milli,mig,models,arrival,lifetime\n{}", rows.join("\n"));
    Workload::parse("workload", text.as_bytes()).unwrap()
}

fn play(cluster: &Cluster, workload: &Workload, options: &Options, chain: Vec<&mut dyn Partitioner>) -> Result<Outcome, SimError> {
    simulate(cluster, workload, options, &mut [Contender { name: "p".into(), chain }], &mut |_, _| {})
}

fn result(cluster: &Cluster, workload: &Workload, options: &Options) -> RunResult {
    play(cluster, workload, options, vec![&mut Zeros]).unwrap().runs.remove(0).result
}

const ONE_T4: &str = "[[node]]\nname = \"n\"\ncpu = 8\nmemory = \"64Gi\"\ngpus = { model = \"T4\", count = 1 }\n";
const ONE_A30: &str = "[[node]]\nname = \"n\"\ncpu = 8\nmemory = \"64Gi\"\ngpus = { model = \"A30\", count = 1, cut = \"mig\" }\n";

#[test]
fn a_pod_waits_until_another_leaves() {
    let pods = workload(&["a,x,0,1,1Gi,1,,,,0,100", "b,x,0,1,1Gi,1,,,,10,50", "c,y,5,1,1Gi,1,,,,20,50"]);
    let keep = Options { planner: Config { preempt: false, ..Config::DEFAULT }, ..WAIT };
    let result = result(&cluster(ONE_T4), &pods, &keep);
    // a runs 0 to 100; c, of higher priority, 100 to 150; b 150 to 200.
    assert_eq!((result.placed, result.pending, result.dropped), (3, 0, 0));
    assert_eq!((result.waits.max_s, result.waits_by_namespace["x"].max_s, result.waits_by_namespace["y"].max_s), (140.0, 140.0, 80.0));
    assert_eq!((result.waits.mean_s * 3.0).round(), 220.0);
    assert_eq!((result.end_s, result.allocated_mean, result.allocated_end), (200.0, 100.0, 0.0));
    assert_eq!(result.series.waiting.len(), 600);
    assert!(result.unplaced.is_empty() && result.allocation.is_empty());
}

#[test]
fn a_pod_of_higher_priority_evicts_another_which_starts_again() {
    let pods = workload(&["a,x,0,1,1Gi,1,,,,0,100", "b,x,0,1,1Gi,1,,,,10,50", "c,y,5,1,1Gi,1,,,,20,50"]);
    let result = result(&cluster(ONE_T4), &pods, &WAIT);
    // a runs 0 to 20; c 20 to 70; b, which came before a came again, 70 to 120; a 120 to 220.
    assert_eq!((result.placed, result.pending, result.evicted, result.moved), (3, 0, 1, 0));
    assert_eq!((result.waits.max_s, result.end_s, result.allocated_end), (60.0, 220.0, 0.0));
}

#[test]
fn departures_come_before_arrivals_of_the_same_time() {
    let pods = workload(&["a,x,0,1,1Gi,1,,,,0,10", "b,x,0,1,1Gi,1,,,,10,10", "c,x,0,1,1Gi,1,,,,20,0", "d,x,0,1,1Gi,1,,,,20,"]);
    for options in [WAIT, DROP] {
        let result = result(&cluster(ONE_T4), &pods, &options);
        assert_eq!((result.waits.max_s, result.end_s), (0.0, 20.0), "{options:?}");
        // c is gone in the instant in which it came; d comes in the same round and waits for it, or is dropped.
        assert_eq!((result.placed, result.dropped), if options == WAIT { (4, 0) } else { (3, 1) });
    }
}

#[test]
fn pods_that_do_not_fit_are_dropped_and_the_share_asked_for_goes_on() {
    let pods = workload(&["a,x,0,1,1Gi,1,600,,,0,", "b,x,0,1,1Gi,1,500,,,1,", "c,x,0,1,1Gi,,,,,2,", "d,x,0,1,1Gi,1,400,,,3,"]);
    let result = result(&cluster(ONE_T4), &pods, &DROP);
    assert_eq!((result.placed, result.dropped, result.decisions), (3, 1, 4));
    assert_eq!(result.allocation, [(60, 60.0), (110, 60.0), (150, 100.0)]);
    assert_eq!(allocation_at(&result.allocation, 110), Some(60.0));
    assert_eq!(result.unplaced.len(), 1);
    let reason = &result.unplaced[0];
    assert_eq!((reason.short.as_str(), reason.never, reason.pods, reason.example.as_str()), ("gpu", false, 1, "x/b"));
    assert!(reason.reason.contains("100 more milli-GPU"), "{}", reason.reason);
}

#[test]
fn a_pod_that_fits_nowhere_waits_for_ever_with_a_reason_and_counts_in_no_wait() {
    let pods = workload(
        &["a,x,0,1,1Gi,2,,,,0,", "b,x,0,1,1Gi,1,,V100,,5,", "c,x,0,1,1Gi,1,,,,1000,"]
            .map(|row| if row.contains("V100") { "b,x,0,99,1Gi,1,,,,5," } else { row }),
    );
    let result = result(&cluster(ONE_T4), &pods, &WAIT);
    assert_eq!((result.placed, result.pending, result.waits.pods), (1, 2, 1));
    assert!(result.unplaced.iter().all(|group| group.never), "{:?}", result.unplaced);
    assert_eq!(result.unplaced.iter().map(|group| group.pods).sum::<usize>(), 2);
}

#[test]
fn slots_of_partitions_count_as_their_share_of_the_gpu() {
    let pods = workload(&["a,x,0,1,1Gi,,,2g.12gb,,0,", "b,x,0,1,1Gi,,,1g.6gb,A30,1,", "c,x,0,1,1Gi,,,2g.12gb,,2,"]);
    let result = result(&cluster(ONE_A30), &pods, &DROP);
    // Two slots, then one; the third pod has one free slot of the two it needs. It asked for half a GPU all the same.
    assert_eq!(result.allocation, [(50, 50.0), (75, 75.0), (125, 75.0)]);
    assert_eq!((result.unplaced[0].short.as_str(), result.unplaced[0].pods), ("gpu", 1));
}

#[test]
fn a_partition_may_be_asked_for_by_any_of_its_names() {
    let two = "[[node]]\nname = \"n\"\ncpu = 8\nmemory = \"64Gi\"\ngpus = { model = \"A100-80GB\", count = 2, cut = \"mig\" }\n";
    let play = |names: [&str; 5]| {
        let rows = names.map(|name| format!("{name},x,0,1,1Gi,,,{name},A100-80GB,0,"));
        result(&cluster(two), &workload(&rows.each_ref().map(String::as_str)), &WAIT)
    };
    // One GPU whole, six of the eight slots of the other; engines of `+me` there are once on a GPU, so the last pod waits.
    let aliased = play(["7g.79gb", "mig-1g.10gb", "1g.10gb.me", "nvidia.com/mig-3g.39gb", "mig-1g.10gb.me"]);
    assert_eq!((aliased.placed, aliased.pending, aliased.allocated_end), (4, 1, 87.5));
    assert!(matches!(&aliased.unplaced[..], [group] if group.example == "x/mig-1g.10gb.me" && !group.never), "{:?}", aliased.unplaced);
    // Their places are those that their usual names have.
    let usual = play(["7g.80gb", "1g.10gb", "1g.10gb+me", "3g.40gb", "1g.10gb+me.all"]);
    assert_eq!((usual.placed, usual.pending, usual.allocated_end), (4, 1, 87.5));
    assert!(usual.unplaced[0].never, "an A100 has no such profile");
}

#[test]
fn fragmentation_is_the_free_share_that_the_mix_cannot_use() {
    // Mix: three types, equally frequent. After a, 400 are free: usable for a 300, not for a 600 nor for a pod of no GPU.
    let pods = workload(&["a,x,0,1,1Gi,1,600,,,0,", "b,x,0,1,1Gi,1,300,,T4,0,5", "c,x,0,1,1Gi,,,,,0,"]);
    let result = result(&cluster(ONE_T4), &pods, &WAIT);
    assert_eq!(format!("{:.3}", result.fragmentation_end), "66.667");
    // On a MIG GPU: after a 1g at slot 0, slots 2 and 3 of the three free ones can hold a 2g, all three a 1g.
    let pods = workload(&["a,x,0,1,1Gi,,,1g.6gb,,0,", "b,x,0,1,1Gi,,,2g.12gb,,0,1"]);
    let result = self::result(&cluster(ONE_A30), &pods, &WAIT);
    assert_eq!(format!("{:.3}", result.fragmentation_end), format!("{:.3}", 100.0 / 6.0));
}

#[test]
fn a_policy_that_fails_is_counted_and_the_next_of_its_chain_answers() {
    let pods = workload(&["a,x,0,1,1Gi,1,500,,,0,", "b,x,0,1,1Gi,1,500,,,1,"]);
    let cluster = cluster(ONE_T4);
    for (nonsense, cause) in [(false, "trap"), (true, "invalid")] {
        let outcome = play(&cluster, &pods, &DROP, vec![&mut Broken { nonsense }, &mut Zeros]).unwrap();
        let result = &outcome.runs[0].result;
        assert_eq!(result.placed, 2);
        assert!(matches!(&result.failures[..], [failure] if failure.cause == cause && failure.count >= 1), "{:?}", result.failures);
    }
    let alone = play(&cluster, &pods, &WAIT, vec![&mut Broken { nonsense: false }]).unwrap();
    let result = &alone.runs[0].result;
    assert_eq!((result.placed, result.pending, result.unplaced[0].short.as_str()), (0, 2, "policy"));
}

#[test]
fn input_that_cannot_be_played_is_refused() {
    let pods = workload(&["a,x,0,1,1Gi,1,500,,,0,"]);
    let bare = cluster("[[node]]\nname = \"n\"\ncpu = 8\nmemory = \"64Gi\"\n");
    assert!(matches!(play(&bare, &pods, &WAIT, vec![&mut Zeros]), Err(SimError::NoGpu { nodes: 1, pods: 1 })));
    assert!(matches!(play(&bare, &pods, &WAIT, Vec::new()), Err(SimError::NoPolicy)));
    let plain = workload(&["a,x,0,1,1Gi,,,,,0,"]);
    let result = result(&bare, &plain, &WAIT);
    assert_eq!((result.placed, result.allocated_mean, result.fragmentation_end), (1, 0.0, 0.0));
}

#[test]
fn what_the_planner_refuses_is_the_source_of_the_error_and_not_its_message() {
    let mut twice = cluster(ONE_T4);
    twice.models.push(twice.models[0].clone());
    twice.models[1].memory_mib += 1;
    let error = play(&twice, &workload(&["a,x,0,1,1Gi,,,,,0,"]), &WAIT, vec![&mut Zeros]).unwrap_err();
    assert_eq!(error.to_string(), "the planner refused an event");
    let source = error.source().unwrap().to_string();
    assert!(source.contains("T4"), "{source}");
}

#[test]
fn progress_counts_all_arrivals_of_all_contenders() {
    let rows: Vec<String> = (0..600).map(|row| format!("p{row},x,0,1,1Gi,,,,,{row},1")).collect();
    let pods = workload(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    let mut told = Vec::new();
    let (mut zeros, mut random) = (Zeros, Random);
    let mut contenders =
        [Contender { name: "a".into(), chain: vec![&mut zeros] }, Contender { name: "b".into(), chain: vec![&mut random] }];
    simulate(&cluster(ONE_T4), &pods, &WAIT, &mut contenders, &mut |done, total| told.push((done, total))).unwrap();
    assert!(told.len() > 4 && told.is_sorted() && told.iter().all(|entry| entry.1 == 1200), "{told:?}");
    assert_eq!(told.last(), Some(&(1200, 1200)));
}

fn any_cluster() -> impl Strategy<Value = Cluster> {
    let gpus = prop_oneof![
        (1..9u32).prop_map(|count| format!("{{ model = \"T4\", count = {count} }}")),
        (1..5u32).prop_map(|count| format!("{{ model = \"A30\", count = {count}, cut = \"mig\" }}")),
        (1..3u32).prop_map(|count| format!(
            "[{{ model = \"A100-80GB\", count = {count}, cut = \"mig\" }}, {{ model = \"T4\", count = {count} }}]"
        )),
        Just("[]".to_owned()),
    ];
    let node = (gpus, 1..40u32, 1..200u32);
    prop::collection::vec(node, 1..5).prop_map(|nodes| {
        let node = |(row, (gpus, cpu, memory)): (usize, &(String, u32, u32))| {
            format!("[[node]]\nname = \"n{row}\"\ncpu = {cpu}\nmemory = \"{memory}Gi\"\ngpus = {gpus}\n")
        };
        let first = "[[node]]\nname = \"first\"\ncpu = 4\nmemory = \"9Gi\"\ngpus = { model = \"T4\", count = 1 }\n";
        cluster(&format!("{first}{}", nodes.iter().enumerate().map(node).collect::<String>()))
    })
}

fn any_workload() -> impl Strategy<Value = Workload> {
    let gpu = prop_oneof![
        Just(",,,".to_owned()),
        (1..1001u32).prop_map(|milli| format!("1,{milli},,")),
        (1..5u32).prop_map(|count| format!("{count},,,")),
        Just("2,300,,T4".to_owned()),
        prop::sample::select(vec!["1g.6gb", "2g.12gb", "4g.24gb", "1g.10gb", "3g.40gb", "7g.80gb", "none"])
            .prop_map(|name| format!(",,{name},")),
    ];
    let lifetime = prop_oneof![Just(String::new()), (0..200u32).prop_map(|seconds| seconds.to_string())];
    let pod = (gpu, 0..9000u32, 0..20_000u32, -3..4i32, 0..300u32, lifetime);
    prop::collection::vec(pod, 1..60).prop_map(|pods| {
        let row = |(row, (gpu, cpu, memory, priority, at, lifetime)): (usize, &(String, u32, u32, i32, u32, String))| {
            format!("p{row},ns{},{priority},{cpu}m,{memory}Mi,{gpu},{at},{lifetime}", row % 3)
        };
        let rows: Vec<String> = pods.iter().enumerate().map(row).collect();
        workload(&rows.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The core never grants what a node lacks (the ledger would end the run), loses no pod, and decides the same twice.
    #[test]
    fn every_run_adds_up_and_repeats(cluster in any_cluster(), pods in any_workload(), seed: u64, drops: bool) {
        let unplaceable = if drops { Unplaceable::Drop } else { Unplaceable::Wait };
        let options = Options { seed, unplaceable, ..Options::default() };
        let makers: [fn() -> Box<dyn Partitioner>; 3] = [|| Box::new(Zeros), || Box::new(Random), || Box::new(Emptiest)];
        for make in makers {
            let run = || {
                let mut policy = make();
                play(&cluster, &pods, &options, vec![&mut *policy]).unwrap()
            };
            let outcome = run();
            let result = &outcome.runs[0].result;
            prop_assert_eq!(result.placed + result.pending + result.dropped, pods.arrivals.len());
            prop_assert_eq!(result.unplaced.iter().map(|group| group.pods).sum::<usize>(), result.pending + result.dropped);
            prop_assert!(result.unplaced.iter().all(|group| group.short != "policy"));
            for series in [&result.series.allocated, &result.series.fragmentation] {
                prop_assert!(series.iter().all(|value| (0.0..=100.0).contains(value)));
            }
            prop_assert!(result.series.time_s.len() <= 600 && result.series.time_s.is_sorted());
            let stays = pods.arrivals.iter().any(|arrival| arrival.lifetime_ms.is_none());
            prop_assert!(stays || result.allocated_end == 0.0, "every pod left, and {} % are still allocated", result.allocated_end);
            let bytes = |outcome: &Outcome| serde_json::to_string(&outcome.runs[0].result).unwrap();
            prop_assert_eq!(bytes(&outcome), bytes(&run()));
        }
    }
}
