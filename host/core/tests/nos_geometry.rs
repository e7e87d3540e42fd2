//! The cases by which nos's geometry code was described, as a table: groups Profiles, Geometry configuration, MIG GPU and MIG node.
//!
//! nos counts partitions and knows no slots, so where a case says `{1g.6gb 2}` ours is checked for every arrangement of two such
//! partitions. nos fills a GPU up with a complete geometry from a list; partita makes what is asked and leaves slots free. Where nos's
//! answer was called a defect, the better answer is the one expected here. Cases that mean nothing in our model say why.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod brute;

use brute::{Gpu, grid};
use partita_core::{
    layout::{Held, Layouts, Occupancy, Packed, Verdict, Want, moves, pack, victims},
    model::{Grid, Placement, ProfileName, catalog},
};

type Counts<'c> = &'c [(&'c str, u32)];

/// What became of a case.
enum Case {
    /// It holds as it stands, or with the answer marked as the better one.
    Holds(fn()),
    /// It holds in the form that our model gives it, which is the text.
    InOurForm(&'static str, fn()),
    /// It means nothing to the algebra of layouts, for this reason.
    Meaningless(&'static str),
}
use Case::{Holds, InOurForm, Meaningless};

/// All ways in which a GPU can have these partitions in use and these warm.
fn arrangements<'g>(grid: &'g Grid, used: Counts<'_>, warm: Counts<'_>) -> Vec<Gpu<'g>> {
    let layouts = Layouts::of(grid).unwrap();
    let list = |counts: Counts<'_>| -> Vec<u8> {
        counts.iter().flat_map(|&(name, count)| vec![grid.resolve(name).unwrap(); count as usize]).collect()
    };
    let (used, warm) = (list(used), list(warm));
    let in_use = used.len();
    let mut found = vec![(layouts.empty(), Gpu { grid, model: 0, used: Vec::new(), warm: Vec::new() })];
    for (row, &profile) in used.iter().chain(&warm).enumerate() {
        let more = |(state, gpu): &(_, Gpu<'g>)| {
            let (state, gpu) = (*state, gpu.clone());
            let after = layouts.feasible(state, profile).collect::<Vec<Placement>>().into_iter().map(move |one| {
                let mut gpu = gpu.clone();
                if row < in_use { gpu.used.push(one) } else { gpu.warm.push(one) }
                (one, gpu)
            });
            after.map(|(one, gpu)| (layouts.with(state, one).unwrap(), gpu)).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(more).collect();
    }
    assert!(!found.is_empty(), "no such GPU");
    found.into_iter().map(|(_, gpu)| gpu).collect()
}

/// Runs `check` with the packing of `asks` on every arrangement of a node.
fn on(gpus: &[(&str, Counts<'_>, Counts<'_>)], asks: Counts<'_>, check: impl Fn(&[Gpu<'_>], Option<Packed>)) {
    let grids: Vec<Grid> = gpus.iter().map(|gpu| grid(gpu.0)).collect();
    let tables: Vec<Layouts> = grids.iter().map(|grid| Layouts::of(grid).unwrap()).collect();
    let mut nodes: Vec<Vec<Gpu<'_>>> = vec![Vec::new()];
    for (grid, &(_, used, warm)) in grids.iter().zip(gpus) {
        let each = arrangements(grid, used, warm);
        nodes = nodes.iter().flat_map(|node| each.iter().map(|gpu| [node.as_slice(), &[gpu.clone()]].concat())).collect();
    }
    for node in nodes {
        let seen: Vec<Occupancy<'_>> = node.iter().zip(&tables).map(|(gpu, table)| gpu.seen(table)).collect();
        let wants: Vec<Want> = asks.iter().map(|&(name, count)| Want::named(name, count, &grids)).collect();
        let packed = pack(&seen, &wants);
        assert!(!matches!(packed, Verdict::Undecided(_)));
        check(&node, packed.plan());
    }
}

fn refused(gpus: &[(&str, Counts<'_>, Counts<'_>)], asks: Counts<'_>) {
    on(gpus, asks, |_, packed| assert_eq!(packed, None));
}

/// The packing makes, destroys and changes this much on every arrangement.
fn costs(gpus: &[(&str, Counts<'_>, Counts<'_>)], asks: Counts<'_>, made: u32, destroyed: u32, changed: u32) {
    on(gpus, asks, |_, packed| {
        let cost = packed.unwrap().cost;
        assert_eq!((cost.made, cost.destroyed, cost.changed), (made, destroyed, changed));
    });
}

fn room(model: &str, used: Counts<'_>, name: &str) -> Vec<u8> {
    let grid = grid(model);
    let table = Layouts::of(&grid).unwrap();
    let row = usize::from(grid.resolve(name).unwrap());
    arrangements(&grid, used, &[]).iter().map(|gpu| table.room(gpu.seen(&table).used())[row]).collect()
}

fn is_mig(text: &str) -> bool {
    text.starts_with("nvidia.com/") && ProfileName::parse(text).is_ok()
}

fn name(text: &str) -> ProfileName {
    ProfileName::parse(text).unwrap()
}

const QUOTA: &str = "gpu-memory is the unit of quotas; layouts are counted in slots, memory in MiB";

const PROFILES: &[(&str, Case)] = &[
    (
        "RS-01",
        Holds(|| {
            let answers = ["", "nvidia.com/gpu", "nvidia.com/mig-1ga1gb", "nvidia.com/mig-1g.1gb"].map(is_mig);
            assert_eq!(answers, [false, false, false, true]);
        }),
    ),
    (
        "RS-02",
        Holds(|| {
            assert_eq!(name("nvidia.com/mig-1g.16gb").gb, 16);
            for wrong in ["", "nvidia.com/gpu", "nvidia.com/mig-1g12agb", "nvidia.com/mig-1g.1gb15gb", "foo/1g2gb"] {
                assert!(ProfileName::parse(wrong).is_err(), "{wrong}");
            }
        }),
    ),
    ("RS-03", Meaningless(QUOTA)),
    ("RS-04", Meaningless(QUOTA)),
    ("RS-05", Meaningless(QUOTA)),
    ("RS-06", Meaningless(QUOTA)),
    ("RS-07", Meaningless(QUOTA)),
    ("RS-08", Meaningless("what a pod requests is summed where pods are read, before there is a demand")),
    ("RS-09", Meaningless("memory is what the driver reports in MiB, not a label in rounded GB")),
    (
        "RS-10",
        Holds(|| {
            assert!(name("3g.20gb") < name("4g.20gb") && name("1g.5gb") < name("1g.10gb"));
            assert!(name("1g.5gb") >= name("1g.5gb"));
            // nos calls each of these smaller than the other.
            assert!(name("2g.10gb") < name("1g.20gb") && name("1g.20gb") > name("2g.10gb"));
        }),
    ),
    ("RS-11", Meaningless("sizes of MPS shares are not profiles of a grid")),
    ("RS-12", Meaningless("ids of replicas belong to the device plugin; a partition is known by GPU, profile and first slot")),
    ("RS-13", Meaningless("subtracting resource lists belongs to nodes, which refuse what would go below zero")),
];

const CONFIGURATION: &[(&str, Case)] = &[
    (
        "CF-01",
        Holds(|| {
            for wrong in [
                r#"{"slots": 4, "compute": 4, "profiles": "A30"}"#,
                r#"{"slots": 4, "compute": 4, "profiles": ["foo"]}"#,
                r#"{"slots": 4, "compute": 4}"#,
                r#"{"profiles": []}"#,
            ] {
                assert!(serde_json::from_str::<Grid>(wrong).is_err(), "{wrong}");
            }
        }),
    ),
    (
        "CF-02",
        Holds(|| {
            assert!(serde_json::from_str::<Grid>("").is_err());
            assert!(Grid::new(4, 4, Vec::new()).validate().is_err());
        }),
    ),
    (
        "CF-03",
        InOurForm("a model has one grid and may have several names", || {
            let [one, other] = ["H100-96GB", "GH200-96GB"].map(|name| catalog::builtin(name).unwrap());
            assert_eq!(one.grid, other.grid);
            assert_ne!(one.name, other.name);
        }),
    ),
    (
        "CF-04",
        InOurForm("the name is a label and the numbers are the geometry, so names are judged where they are asked for", || {
            assert!(ProfileName::parse("invalid").is_err() && ProfileName::parse("gpu-10gb").is_err());
            let negative = r#"{"name": "1g.6gb", "compute": 1, "size": 1, "memory_mib": 0, "starts": [0], "max": -1}"#;
            assert!(serde_json::from_str::<partita_core::model::Profile>(negative).is_err());
        }),
    ),
    (
        "CF-05",
        Holds(|| {
            for grid in catalog::names().filter_map(|name| catalog::builtin(name).unwrap().grid) {
                assert_eq!(grid.validate(), Ok(()));
            }
            // The profiles that nos lists for an A100-80GB although it has none such.
            assert!(grid("A100-80GB").resolve("3g.20gb").is_err() && grid("A100-80GB").resolve("2g.10gb").is_err());
            assert!(grid("A100-80GB").resolve("7g.79gb").is_ok());
        }),
    ),
    ("CF-06", Meaningless("there is no list of complete geometries to choose from")),
];

const EMPTY: Counts<'_> = &[];

const MIG_GPU: &[(&str, Case)] = &[
    ("MG-01", Holds(|| costs(&[("A100-40GB", EMPTY, EMPTY)], &[("7g.40gb", 1)], 1, 0, 1))),
    ("MG-02", Holds(|| refused(&[("A100-40GB", EMPTY, EMPTY)], &[("1g.10gb", 12)]))),
    ("MG-03", Holds(|| refused(&[("A30", &[("1g.6gb", 4)], EMPTY)], &[("4g.24gb", 1)]))),
    ("MG-04", Holds(|| costs(&[("A30", &[("1g.6gb", 2)], &[("2g.12gb", 1)])], &[("1g.6gb", 2)], 2, 1, 1))),
    ("MG-05", Holds(|| costs(&[("A100-40GB", &[("2g.10gb", 1)], EMPTY)], EMPTY, 0, 0, 0))),
    (
        "MG-06",
        InOurForm("a GPU cannot be said to have a profile that its model has not", || {
            assert!(grid("A100-40GB").resolve("2g.20gb").is_err());
        }),
    ),
    ("MG-07", Holds(|| refused(&[("A100-80GB", &[("2g.20gb", 1)], EMPTY)], &[("7g.79gb", 1)]))),
    ("MG-08", Holds(|| costs(&[("A100-80GB", &[("2g.20gb", 1)], &[("2g.20gb", 2)])], &[("2g.20gb", 2)], 0, 0, 0))),
    (
        "MG-09",
        InOurForm("six asks of one each: five are served, which makes seven", || {
            assert!(room("A100-80GB", &[("1g.10gb", 2)], "1g.10gb").into_iter().all(|room| room == 5));
        }),
    ),
    ("MG-10", Holds(|| costs(&[("A100-80GB", &[("3g.40gb", 1)], &[("1g.10gb", 3)])], &[("3g.40gb", 1)], 1, 3, 1))),
    ("MG-11", Holds(|| refused(&[("A30", &[("1g.6gb", 4)], EMPTY)], &[("1g.6gb", 1)]))),
    (
        "MG-12",
        InOurForm("a pod is placed and the GPU cut in one plan: the warm 2g gives way to the second 1g", || {
            costs(&[("A30", &[("1g.6gb", 1)], &[("2g.12gb", 1), ("1g.6gb", 1)])], &[("1g.6gb", 2)], 1, 1, 1);
        }),
    ),
    ("MG-13", Holds(|| costs(&[("A30", &[("1g.6gb", 1)], &[("2g.12gb", 1), ("1g.6gb", 1)])], &[("1g.6gb", 1)], 0, 0, 0))),
    (
        "MG-14",
        Holds(|| {
            let grid = grid("A30");
            let first = Layouts::of(&grid).unwrap().initial().unwrap();
            assert_eq!(grid.profiles[usize::from(first.profile)].name, "4g.24gb");
            costs(&[("A30", EMPTY, &[("1g.6gb", 1)])], &[("4g.24gb", 1)], 1, 1, 1);
            assert!(grid.resolve("1g.5gb").is_err());
        }),
    ),
    (
        "MG-15",
        Holds(|| {
            let mut grid = grid("A30");
            grid.profiles.reverse();
            let first = Layouts::of(&grid).unwrap().initial().unwrap();
            assert_eq!(grid.profiles[usize::from(first.profile)].name, "4g.24gb");
        }),
    ),
    ("MG-16", Holds(d3_equal_places_have_one_order)),
    ("MG-17", Holds(d4_warm_partitions_that_are_wanted_are_credited)),
];

const MIG_NODE: &[(&str, Case)] = &[
    (
        "MN-01",
        InOurForm("labels are read elsewhere; a model that nobody described is refused by name", || {
            assert!(catalog::lookup("Voodoo2").unwrap_err().to_string().contains("Voodoo2"));
        }),
    ),
    (
        "MN-02",
        InOurForm("profiles are checked against the model", || {
            for alien in ["1g.5gb", "2g.20gb", "3g.20gb"] {
                assert!(grid("A30").resolve(alien).is_err());
            }
        }),
    ),
    ("MN-03", Holds(|| costs(&[("A30", EMPTY, EMPTY), ("A30", EMPTY, EMPTY)], &[("4g.24gb", 2)], 2, 0, 2))),
    (
        "MN-04",
        Holds(|| {
            on(&[("A30", EMPTY, EMPTY), ("A30", EMPTY, &[("4g.24gb", 1)])], &[("4g.24gb", 2)], |_, packed| {
                assert_eq!(packed.unwrap().placed.iter().map(|one| one.gpu).collect::<Vec<_>>(), [0, 1]);
            });
        }),
    ),
    (
        "MN-05",
        Holds(|| {
            refused(&[("A30", &[("4g.24gb", 1)], EMPTY), ("A100-40GB", &[("7g.40gb", 1)], EMPTY)], &[("1g.5gb", 4), ("2g.10gb", 1)]);
        }),
    ),
    ("MN-06", InOurForm("what is asked is made, not a full GPU", || costs(&[("A30", &[("1g.6gb", 1)], EMPTY)], &[("1g.6gb", 2)], 2, 0, 1))),
    (
        "MN-07",
        InOurForm("what is asked is made, not a full GPU", || {
            let gpus: [(&str, Counts<'_>, Counts<'_>); 2] =
                [("A30", &[("4g.24gb", 1)], EMPTY), ("A30", &[("1g.6gb", 2)], &[("2g.12gb", 1)])];
            costs(&gpus, &[("1g.6gb", 1)], 1, 1, 1);
        }),
    ),
    (
        "MN-08",
        Holds(|| costs(&[("A30", &[("4g.24gb", 1)], EMPTY), ("A30", EMPTY, &[("1g.6gb", 4)])], &[("4g.24gb", 1)], 1, 4, 1)),
    ),
    (
        "MN-09",
        Holds(|| {
            on(&[("A30", EMPTY, EMPTY), ("A30", EMPTY, EMPTY)], &[("1g.6gb", 3)], |_, packed| {
                assert!(packed.unwrap().placed.iter().all(|one| one.gpu == 0));
            });
        }),
    ),
    (
        "MN-10",
        Holds(|| {
            refused(&[], &[("1g.6gb", 1)]);
            costs(&[("A30", EMPTY, EMPTY)], &[], 0, 0, 0);
            costs(&[], &[], 0, 0, 0);
        }),
    ),
    (
        "MN-11",
        Holds(|| {
            assert!(room("A30", EMPTY, "1g.6gb") == [4] && room("A30", &[("1g.6gb", 1)], "1g.6gb") == [3; 4]);
            assert_eq!(room("A30", &[("4g.24gb", 1)], "1g.6gb"), [0]);
        }),
    ),
    (
        "MN-12",
        InOurForm("with a profile that an A30 has; cpu is counted by the node", || {
            let gpus: [(&str, Counts<'_>, Counts<'_>); 3] = [("A30", EMPTY, EMPTY), ("A30", EMPTY, &[("1g.6gb", 3)]), ("A30", EMPTY, EMPTY)];
            on(&gpus, &[("1g.6gb", 1)], |_, packed| {
                let packed = packed.unwrap();
                assert!(packed.placed[0].gpu == 1 && packed.placed[0].warm && packed.destroyed.is_empty());
            });
        }),
    ),
];

#[test]
fn the_cases_of_nos_hold() {
    for (group, cases) in
        [("Profiles", PROFILES), ("Geometry configuration", CONFIGURATION), ("MIG GPU", MIG_GPU), ("MIG node", MIG_NODE)]
    {
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
