//! The cases by which nos's geometry code was described, as a table: groups Profiles, Geometry configuration, MIG GPU and MIG node.
//!
//! nos counts partitions and knows no slots, so where a case says `{1g.6gb 2}` ours is checked for every arrangement of two such
//! partitions. nos fills a GPU up with a complete geometry from a list; partita makes what is asked and leaves slots free. Where nos's
//! answer was called a defect, the better answer is the one expected here. Cases that mean nothing in our model say why.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod brute;

use std::cell::RefCell;

use brute::{
    arranged::{Counts, EMPTY, costs, on, refused, room},
    grid,
};
use partita_core::{
    layout::Layouts,
    model::{Grid, Profile, ProfileName, catalog},
};

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
            assert!(serde_json::from_str::<Profile>(negative).is_err());
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
    (
        "MG-16",
        Holds(|| {
            let (first, again) = (RefCell::new(None), [("A100-40GB", EMPTY, EMPTY)]);
            for _ in 0..20 {
                on(&again, &[("1g.5gb", 1)], |_, packed| assert_eq!(*first.borrow_mut().get_or_insert_with(|| packed.clone()), packed));
            }
        }),
    ),
    ("MG-17", Holds(|| costs(&[("A100-40GB", EMPTY, &[("1g.5gb", 7)])], &[("1g.5gb", 2), ("3g.20gb", 1)], 1, 3, 1))),
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
    ("MN-08", Holds(|| costs(&[("A30", &[("4g.24gb", 1)], EMPTY), ("A30", EMPTY, &[("1g.6gb", 4)])], &[("4g.24gb", 1)], 1, 4, 1))),
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
            let gpus: [(&str, Counts<'_>, Counts<'_>); 3] =
                [("A30", EMPTY, EMPTY), ("A30", EMPTY, &[("1g.6gb", 3)]), ("A30", EMPTY, EMPTY)];
            on(&gpus, &[("1g.6gb", 1)], |_, packed| {
                let packed = packed.unwrap();
                assert!(packed.placed[0].gpu == 1 && packed.placed[0].warm && packed.destroyed.is_empty());
            });
        }),
    ),
];

#[test]
fn the_cases_of_nos_hold() {
    for (group, cases) in [("Profiles", PROFILES), ("Geometry configuration", CONFIGURATION), ("MIG GPU", MIG_GPU), ("MIG node", MIG_NODE)]
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
