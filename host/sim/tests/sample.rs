//! The bundled sample.

mod common;

use common::{Emptiest, Zeros};
use partita_sim::{Contender, Options, sample, simulate};

#[test]
fn the_files_are_what_the_generator_makes() {
    let (cluster, workload) = sample::generate(sample::SEED);
    assert!(cluster == sample::CLUSTER, "sample/cluster.toml differs from what the generator makes; write it anew");
    assert!(workload == sample::WORKLOAD, "sample/workload.csv differs from what the generator makes; write it anew");
    assert_ne!(sample::generate(sample::SEED + 1).1, workload);
}

#[test]
fn it_is_a_mixed_cluster_and_a_working_day() {
    let (cluster, workload) = sample::bundled().unwrap();
    assert_eq!((cluster.nodes.len(), cluster.gpus(), workload.pods.len()), (40, 240, sample::PODS));
    let mut namespaces: Vec<&str> = workload.pods.iter().map(|pod| pod.namespace.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    assert_eq!(namespaces, ["chat", "data", "research", "training", "vision"]);
    let last = workload.arrivals.last().unwrap().at_ms / 1000;
    assert!((8 * 3600..13 * 3600).contains(&last), "{last}");
}

#[test]
fn it_is_contended_so_that_policies_differ() {
    let (cluster, workload) = sample::bundled().unwrap();
    let (mut zeros, mut emptiest) = (Zeros, Emptiest);
    let mut contenders =
        [Contender { name: "first".into(), chain: vec![&mut zeros] }, Contender { name: "emptiest".into(), chain: vec![&mut emptiest] }];
    let outcome = simulate(&cluster, &workload, &Options::default(), &mut contenders, &mut |_, _| {}).unwrap();
    let [first, emptiest] = &outcome.runs[..] else { panic!("two runs") };
    assert!(first.result.waits.mean_s > 300.0, "{:?}", first.result.waits);
    assert!(emptiest.result.waits.mean_s > 1.1 * first.result.waits.mean_s, "{:?}", emptiest.result.waits);
    assert_eq!((first.result.pending, first.result.unplaced.len()), (4, 1), "the four pods of a card that is not there");
    assert!(first.result.unplaced[0].never);
}
