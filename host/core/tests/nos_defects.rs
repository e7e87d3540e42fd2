//! Defects of nos's partitioning algorithm that concern geometry, each as a test that it is not here. D1, D2, D9 (rounds and priority)
//! and D10, D11 (MPS) are defects of other parts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod brute;

use brute::{
    arranged::{EMPTY, costs, on},
    grid,
};
use partita_core::{
    layout::{Held, Layouts, Occupancy, Want, moves, pack, victims},
    model::Placement,
};

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
fn d7_two_asks_do_not_share_one_warm_partition() {
    let asks = [("2g.12gb", 1), ("2g.12gb", 1)];
    costs(&[("A30", EMPTY, &[("2g.12gb", 1), ("1g.6gb", 2)])], &asks, 1, 2, 1);
}

#[test]
fn d8_one_ask_may_span_gpus() {
    costs(&[("A30", EMPTY, &[("1g.6gb", 4)]), ("A30", EMPTY, &[("1g.6gb", 4)])], &[("4g.24gb", 2)], 2, 8, 2);
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
