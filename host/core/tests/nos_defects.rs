//! Defects of nos's partitioning algorithm, each as a test that it is not here: those that concern geometry by the algebra of layouts,
//! those of other parts, and the geometry again where priorities and nodes matter, by whole rounds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod brute;
mod script;
mod stage;

use brute::{
    arranged::{EMPTY, costs, on},
    grid,
};
use partita_core::{
    Config,
    layout::{Held, Layouts, Occupancy, Want, moves, pack, victims},
    model::{NodeId, Placement},
};
use script::{Script, mig};
use stage::{Told, a30, gb, migs, play, pod, times};

#[test]
fn d1_a_pod_that_has_a_place_gets_no_second_one() {
    let node = [a30(&[("4g.24gb", 1)])];
    let nodes = ["n1", "n2", "n3", "n4", "n5"].map(|name| (name, node.as_slice()));
    play(&nodes, &times(2, &migs(&[("1g.6gb", 4)])), |played| {
        played.runs(&[Some("n1"), Some("n2")]);
        assert_eq!((played.changed().len(), played.changes()), (2, 2));
        for untouched in ["n3", "n4", "n5"] {
            played.has(untouched, 0, &[("4g.24gb", 1)]);
        }
    });
}

#[test]
fn d2_what_is_tried_in_vain_changes_nothing() {
    // A pod for which no node has cpu, though n1 could be cut for it, and one whose moves are given up.
    play(&[("n1", &[a30(&[("4g.24gb", 1)])]), ("n2", &[Told::Plain("T4")])], &[pod(mig("1g.6gb")).cpu(64_001)], |played| {
        played.has("n1", 0, &[("4g.24gb", 1)]);
        assert!(played.plan.actions.is_empty() && played.node("n1").later.is_empty());
    });
    let mut script = Script::new(Config { moves: 2, preempt: false, ..Config::DEFAULT }, &[("a", "A30", 1), ("b", "A30", 1)]);
    script.runs(0, "a", mig("1g.6gb"), 0, &[(0, 0, "1g.6gb")]).restartable(0);
    script.runs(1, "a", mig("2g.12gb"), 0, &[(0, 2, "2g.12gb")]).restartable(1);
    script.runs(2, "b", mig("2g.12gb"), 0, &[(0, 0, "2g.12gb")]);
    script.waits(3, mig("4g.24gb"), 0);
    let rooms = |script: &Script| [0, 1].map(|id| script.planner.cluster().node(NodeId(id)).unwrap().clone());
    let before = rooms(&script);
    assert!(script.round().is_empty());
    assert_eq!(rooms(&script), before);
}

#[test]
fn d3_equal_places_have_one_order() {
    let grid = grid("A100-40GB");
    let table = Layouts::of(&grid).unwrap();
    let ask = || pack(&[Occupancy::new(&table, 0, &[], &[]).unwrap()], &[Want::named("1g.5gb", 1, [&grid])]).plan().unwrap();
    let first = ask();
    // The last slot: it keeps 4g and three 2g possible.
    assert_eq!(first.placed[0].placement.start, 6);
    assert!((0..2000).all(|_| ask() == first));
}

#[test]
fn d4_warm_partitions_that_are_wanted_are_credited() {
    // 3g on the right half costs three of seven; two of the four left are used.
    costs(&[("A100-40GB", EMPTY, &[("1g.5gb", 7)])], &[("1g.5gb", 2), ("3g.20gb", 1)], 1, 3, 1);
}

#[test]
fn d5_what_exists_is_counted_once() {
    costs(&[("A30", EMPTY, &[("2g.12gb", 1), ("1g.6gb", 2)])], &[("2g.12gb", 2)], 1, 2, 1);
}

#[test]
fn d6_a_warm_partition_on_a_gpu_that_may_not_be_used_does_not_count() {
    let grid = grid("A30");
    let table = Layouts::of(&grid).unwrap();
    let row = |name: &str| grid.resolve(name).unwrap();
    let small = [0, 1, 2, 3].map(|start| Placement { profile: row("1g.6gb"), start });
    let whole = [Placement { profile: row("4g.24gb"), start: 0 }];
    let gpus = [small.as_slice(), &whole].map(|warm| Occupancy::new(&table, 0, &[], warm).unwrap());
    let packed = pack(&gpus, &[Want { rows: vec![None, Some(row("1g.6gb"))], count: 1 }]).plan().unwrap();
    assert_eq!((packed.placed[0].gpu, packed.destroyed), (1, vec![(1, whole[0])]));
}

#[test]
fn d6_a_warm_partition_on_a_node_that_may_not_be_used_does_not_count() {
    let nodes: [(&str, &[Told<'_>]); 2] = [("n1", &[a30(&[("1g.6gb", 4)])]), ("n2", &[Told::Mig("A30-24GB", EMPTY, &[("4g.24gb", 1)])])];
    play(&nodes, &[pod(mig("1g.6gb")).on("A30-24GB")], |played| {
        played.runs(&[Some("n2")]).has("n2", 0, &[("1g.6gb", 1)]).has("n1", 0, &[("1g.6gb", 4)]);
    });
}

#[test]
fn d7_two_pods_and_one_warm_partition_are_served_in_one_round() {
    play(&[("n1", &[a30(&[("2g.12gb", 1), ("1g.6gb", 2)])])], &times(2, &mig("2g.12gb")), |played| {
        played.runs(&[Some("n1"), Some("n1")]).uses("n1", 0, &[("2g.12gb", 2)]);
    });
}

#[test]
fn d7_two_asks_do_not_share_one_warm_partition() {
    let asks = [("2g.12gb", 1), ("2g.12gb", 1)];
    costs(&[("A30", EMPTY, &[("2g.12gb", 1), ("1g.6gb", 2)])], &asks, 1, 2, 1);
}

#[test]
fn d8_one_ask_may_span_gpus() {
    costs(&[("A30", EMPTY, &[("1g.6gb", 4)]), ("A30", EMPTY, &[("1g.6gb", 4)])], &[("4g.24gb", 2)], 2, 8, 2);
}

#[test]
fn d8_one_pod_may_span_the_gpus_of_a_node() {
    let gpu = a30(&[("1g.6gb", 4)]);
    play(&[("n1", &[gpu]), ("n2", &[gpu, gpu])], &[pod(migs(&[("4g.24gb", 2)]))], |played| {
        played.runs(&[Some("n2")]).uses("n2", 0, &[("4g.24gb", 1)]).uses("n2", 1, &[("4g.24gb", 1)]).has("n1", 0, &[("1g.6gb", 4)]);
    });
}

#[test]
fn d9_priority_decides_what_a_gpu_is_cut_into() {
    let small = pod(migs(&[("1g.6gb", 4)]));
    for pods in [[small.clone(), pod(mig("2g.12gb")).priority(100)], [pod(mig("2g.12gb")).priority(100), small]] {
        let first = usize::from(pods[0].priority == 0);
        play(&[("n1", &[a30(&[("4g.24gb", 1)])])], &pods, |played| {
            let mut expected = [None; 2];
            expected[first] = Some("n1");
            played.runs(&expected).has("n1", 0, &[("2g.12gb", 1)]);
        });
    }
}

#[test]
fn d10_a_new_share_of_the_size_of_a_warm_one_is_not_lost() {
    play(&[("n1", &[Told::Mps(40, &[], &[10])])], &times(2, &gb(10)), |played| {
        played.uses("n1", 0, &[("10gb", 2)]).has("n1", 0, &[("10gb", 2)]);
        assert_eq!(played.changes(), 0);
    });
}

#[test]
fn d11_which_warm_shares_stay_is_the_same_every_time() {
    let orders: [&[u32]; 6] = [&[8, 10, 12], &[8, 12, 10], &[10, 8, 12], &[10, 12, 8], &[12, 8, 10], &[12, 10, 8]];
    for warm in orders {
        play(&[("n1", &[Told::Mps(45, &[10], warm)])], &[pod(gb(20))], |played| {
            played.has("n1", 0, &[("10gb", 1), ("12gb", 1), ("20gb", 1)]);
        });
    }
}

#[test]
fn d12_an_empty_gpu_is_used_before_warm_partitions_are_destroyed_on_the_first_node() {
    let nodes: [(&str, &[Told<'_>]); 3] = [("n1", &[a30(&[("1g.6gb", 4)])]), ("n2", &[a30(&[("4g.24gb", 1)])]), ("n3", &[a30(EMPTY)])];
    play(&nodes, &[pod(mig("2g.12gb"))], |played| {
        played.runs(&[Some("n3")]).has("n1", 0, &[("1g.6gb", 4)]).has("n2", 0, &[("4g.24gb", 1)]);
        assert_eq!(played.changes(), 0);
    });
}

#[test]
fn d12_an_empty_gpu_is_cut_before_warm_partitions_are_destroyed() {
    on(&[("A30", EMPTY, &[("1g.6gb", 4)]), ("A30", EMPTY, EMPTY)], &[("2g.12gb", 1)], |_, packed| {
        let packed = packed.unwrap();
        assert!(packed.placed[0].gpu == 1 && packed.destroyed.is_empty());
    });
}

#[test]
fn d13_room_is_made_by_moving_or_evicting_and_no_more_than_needed() {
    let grid = grid("A30");
    let table = Layouts::of(&grid).unwrap();
    let small = grid.resolve("1g.6gb").unwrap();
    let at = |start| Placement { profile: small, start };
    let gpus = [[at(0)], [at(2)]].map(|used| Occupancy::new(&table, 0, &used, &[]).unwrap());
    let held = [(0, 0), (1, 2)].map(|(gpu, start)| Held { id: u32::from(gpu), gpu, placement: at(start), cost: Some(1) });
    let want = [Want::named("4g.24gb", 1, [&grid, &grid])];
    let moved = moves(&gpus, &held, &want, 2).plan().unwrap();
    assert!(moved.one_by_one && moved.moves.len() == 1);
    assert_eq!(victims(&gpus, &held, &want).plan().unwrap().victims, [0]);
}

#[test]
fn d14_first_slots_decide_and_not_counts() {
    // Half of the GPU is free in both, but 4g starts at 0 only.
    let free = |start| {
        let grid = grid("A100-40GB");
        let table = Layouts::of(&grid).unwrap();
        let used = [Placement { profile: grid.resolve("3g.20gb").unwrap(), start }];
        pack(&[Occupancy::new(&table, 0, &used, &[]).unwrap()], &[Want::named("4g.20gb", 1, [&grid])])
    };
    assert!(free(0).is_impossible());
    assert_eq!(free(4).plan().unwrap().placed[0].placement.start, 0);
}
