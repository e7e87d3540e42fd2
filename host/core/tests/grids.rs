//! The catalog against the published facts, and tables and names that nobody sane would write.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, fs, path::Path};

use partita_core::{
    layout::{Bag, LayoutError, Layouts, Occupancy, Verdict, Want, pack, victims},
    model::{
        Engines, Grid, GridError, NameError, Profile, ProfileName, Variant,
        catalog::{self, CatalogError},
    },
};
use proptest::prelude::*;
use serde_json::Value;

fn number(value: &Value) -> Option<u64> {
    value.as_u64()
}

fn starts(profile: &Value) -> Vec<u64> {
    profile["placements"].as_array().unwrap().iter().map(|one| one["start"].as_u64().unwrap()).collect()
}

/// One profile of the file against ours. Null in the file is 0 here.
fn check_profile(grid: &Grid, facts: &Value, engines_told: bool) {
    let name = facts["name"].as_str().unwrap();
    let ours = grid.profiles.iter().find(|profile| profile.name == name).unwrap_or_else(|| panic!("{name} is missing"));
    assert_eq!(Some(u64::from(ours.compute)), number(&facts["compute_slices"]), "{name}");
    assert_eq!(Some(u64::from(ours.size)), number(&facts["memory_slots"]), "{name}");
    assert_eq!(Some(u64::from(ours.max)), number(&facts["max_instances"]), "{name}");
    assert_eq!(u64::from(ours.memory_mib), number(&facts["memory_mib"]).unwrap_or(0), "{name}");
    assert_eq!(ours.starts.iter().map(|&start| u64::from(start)).collect::<Vec<_>>(), starts(facts), "{name}");
    let engine = |kind: &str| facts["engines"][kind].as_u64().unwrap_or(0) as u8;
    let told = Engines { decoder: engine("decoder"), encoder: engine("encoder"), jpeg: engine("jpeg"), ofa: engine("ofa") };
    assert_eq!(ours.engines, told, "{name}");
    assert_eq!(engines_told, !facts["engines"].is_null());
    let attribute = |word: &str| facts["attributes"].as_array().unwrap().iter().any(|one| one == word);
    assert_eq!(ours.variant().once(), attribute("me") || attribute("me.all"), "{name}");
}

#[test]
fn the_catalog_equals_the_table_of_published_facts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/mig/mig_profiles.json");
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: {} is not here", path.display());
        return;
    };
    let facts: Value = serde_json::from_str(&text).unwrap();
    let models = facts["models"].as_array().unwrap();
    assert_eq!(models.len(), 16);
    let mut profiles = 0;
    for model in models {
        let listed = model["profiles"].as_array().unwrap();
        let names: Vec<&str> = listed.iter().map(|profile| profile["name"].as_str().unwrap()).collect();
        for name in model["model"].as_str().unwrap().split(" / ") {
            if model["memory_slots"].is_null() {
                let error = catalog::lookup(name).unwrap_err();
                assert_eq!(error, CatalogError::NeedsDriver { model: name.into(), profiles: names.join(", ") });
                continue;
            }
            let grid = catalog::lookup(name).unwrap().grid.unwrap();
            assert_eq!(Some(u64::from(grid.slots)), number(&model["memory_slots"]), "{name}");
            assert_eq!(Some(u64::from(grid.compute)), number(&model["compute_slices"]), "{name}");
            assert_eq!(grid.profiles.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>(), names, "{name}");
            for profile in listed {
                check_profile(&grid, profile, !grid.engines.is_none());
                profiles += 1;
            }
            let plain = Grid { profiles: grid.profiles.iter().filter(|one| one.variant() == Variant::Plain).cloned().collect(), ..grid };
            let published = number(&model["derived_plain_profile_layouts"]["all_valid_placements"]);
            assert_eq!(Some(Layouts::of(&plain).unwrap().count() as u64), published, "{name}");
        }
    }
    assert_eq!(profiles, 107, "11 models of 7 profiles, one of them under 3 names, one of 5 and one of 11");
}

#[test]
fn names_are_read_in_every_spelling_and_written_in_one() {
    for (text, name, resource) in [
        ("nvidia.com/mig-1g.10gb.me", "1g.10gb+me", "nvidia.com/mig-1g.10gb.me"),
        ("mig-1g.10gb", "1g.10gb", "nvidia.com/mig-1g.10gb"),
        ("1g.10gb+me", "1g.10gb+me", "nvidia.com/mig-1g.10gb.me"),
        ("1g.10gb.me", "1g.10gb+me", "nvidia.com/mig-1g.10gb.me"),
        ("1g.24gb.me.all", "1g.24gb+me.all", "nvidia.com/mig-1g.24gb.me.all"),
        ("nvidia.com/mig-2g.48gb.gfx", "2g.48gb+gfx", "nvidia.com/mig-2g.48gb.gfx"),
        ("mig-1g.24gb-me", "1g.24gb-me", "nvidia.com/mig-1g.24gb-me"),
        ("1g.0gb", "1g.0gb", "nvidia.com/mig-1g.0gb"),
    ] {
        let parsed = ProfileName::parse(text).unwrap();
        assert_eq!((parsed.to_string().as_str(), parsed.resource().as_str()), (name, resource));
    }
    let says = |text: &str| ProfileName::parse(text).unwrap_err().to_string();
    for (text, why) in [
        ("", "1 to 48 characters"),
        ("1G.10gb", "'G'; names are lower case"),
        (" 1g.10gb", "' '; names are lower case"),
        ("1g.10gb\u{202e}", "names are lower case"),
        ("nvidia.com/gpu", "is not a MIG resource"),
        ("amd.com/mig-1g.10gb", "is not a MIG resource"),
        ("1c.2g.20gb", "compute instance"),
        ("1g", "not of the form"),
        ("1g10gb", "not of the form"),
        ("01g.10gb", "not of the form"),
        ("0g.10gb", "not of the form"),
        ("1g.99999gb", "not of the form"),
        ("300g.1gb", "not of the form"),
        ("1g.10gb+you", "known endings"),
        ("1g.10gb.me.me", "known endings"),
        ("1g.10gb.-me", "known endings"),
    ] {
        assert!(says(text).contains(why), "{} should say {why}", says(text));
    }
    let mut names = ["7g.40gb", "1g.10gb", "4g.20gb", "1g.10gb+me", "2g.10gb", "1g.5gb"].map(|text| ProfileName::parse(text).unwrap());
    names.sort_unstable();
    assert_eq!(names.map(|name| name.to_string()), ["1g.5gb", "1g.10gb", "1g.10gb+me", "2g.10gb", "4g.20gb", "7g.40gb"]);
}

#[test]
fn a_profile_that_only_a_driver_knows_is_matched_letter_by_letter() {
    let grid = Grid::new(4, 4, vec![Profile::new("1g.6gb+new", 1, 1, 0, &[0, 1], 2), Profile::new("2g.12gb", 2, 2, 0, &[0], 1)]);
    assert_eq!(grid.validate(), Ok(()));
    assert_eq!(grid.resolve("1g.6gb+new"), Ok(0));
    assert!(matches!(grid.resolve("1g.6gb+neu"), Err(NameError::Variant(..))));
    assert!(matches!(grid.resolve("1g.6gb"), Err(NameError::NotOnModel { .. })));
}

#[test]
fn a_table_written_before_aliases_and_engines_were_known_is_still_read() {
    let text =
        r#"{"slots":4,"compute":4,"profiles":[{"name":"1g.6gb","compute":1,"size":1,"memory_mib":5949,"starts":[0,1,2,3],"max":4}]}"#;
    let grid: Grid = serde_json::from_str(text).unwrap();
    assert_eq!(grid, Grid::new(4, 4, vec![Profile::new("1g.6gb", 1, 1, 5949, &[0, 1, 2, 3], 4)]));
    assert_eq!(serde_json::to_string(&grid).unwrap(), text);
    for name in catalog::names() {
        let grid = catalog::builtin(name).unwrap().grid;
        assert_eq!(serde_json::from_str::<Option<Grid>>(&serde_json::to_string(&grid).unwrap()).unwrap(), grid);
    }
}

#[test]
fn a_grid_of_more_layouts_than_any_gpu_is_refused_before_memory_is_gone() {
    let starts: Vec<u8> = (0..12).collect();
    let one = |name: &str| Profile::new(name, 0, 1, 0, &starts, 12);
    let hostile = Grid::new(12, 12, ["a", "b", "c", "d", "e"].map(one).to_vec());
    assert_eq!(hostile.validate(), Ok(()));
    assert_eq!(Layouts::of(&hostile), Err(LayoutError::TooMany));
    assert_eq!(Layouts::of(&Grid::new(12, 12, vec![one("a")])).map(|layouts| layouts.count()), Ok(4096));
}

/// Values that a driver could send: anything at all, and likely ones.
fn grids() -> impl Strategy<Value = Grid> {
    let small = prop_oneof![4 => 0u8..13, 1 => any::<u8>()];
    let engines = (0u8..3, 0u8..3, 0u8..3, 0u8..2).prop_map(|(decoder, encoder, jpeg, ofa)| Engines { decoder, encoder, jpeg, ofa });
    let engines = prop_oneof![2 => Just(Engines::NONE), 1 => engines];
    let name = prop_oneof![4 => "[1-4]g\\.[0-9]{1,2}gb(\\+me|\\.me|-me|\\+gfx)?", 1 => ".{0,40}"];
    let profile = (
        name,
        prop_oneof![3 => 1u8..4, 1 => any::<u8>()],
        small.clone(),
        any::<u32>(),
        prop::collection::vec(small.clone(), 0..6),
        prop_oneof![3 => Just(1u8), 1 => small.clone()],
        prop::collection::vec("[1-4]g\\.[0-9]{1,2}gb", 0..2),
        engines.clone(),
    );
    let profile = profile.prop_map(|(name, compute, size, memory_mib, starts, max, aliases, engines)| {
        // Half of the likely names agree with the slices, or few grids would be legal.
        let compute = ProfileName::parse(&name).map_or(compute, |name| if memory_mib % 2 == 0 { name.compute } else { compute });
        Profile { aliases, engines, ..Profile::new(&name, compute, size, memory_mib, &starts, max) }
    });
    (small, prop_oneof![3 => 4u8..13, 1 => any::<u8>()], prop::collection::vec(profile, 0..5), engines)
        .prop_map(|(slots, compute, profiles, engines)| Grid { engines, ..Grid::new(slots, compute, profiles) })
}

/// A grid made legal where that is easy: what is wrong with single numbers is put right.
fn mended(mut grid: Grid) -> Grid {
    grid.slots = grid.slots.clamp(1, Grid::SLOTS_MAX);
    grid.compute = grid.compute.clamp(1, 12);
    grid.engines = Engines { decoder: 4, encoder: 4, jpeg: 4, ofa: 2 };
    let slots = grid.slots;
    for (row, profile) in grid.profiles.iter_mut().enumerate() {
        profile.compute = profile.compute.clamp(1, grid.compute);
        // Names differ in the amount, and those that may exist once still may.
        let suffix = if profile.variant().once() { "+me" } else { "" };
        profile.name = format!("{}g.{row}gb{suffix}", profile.compute);
        profile.aliases.clear();
        profile.size = profile.size.clamp(1, slots);
        profile.starts.retain(|&start| u16::from(start) + u16::from(profile.size) <= u16::from(slots));
        profile.starts = profile.starts.iter().copied().collect::<BTreeSet<u8>>().into_iter().collect();
        if profile.starts.is_empty() {
            profile.starts.push(0);
        }
    }
    let most: Vec<u8> = grid.profiles.iter().map(|profile| grid.reachable(profile)).collect();
    for (profile, most) in grid.profiles.iter_mut().zip(most) {
        profile.max = profile.max.clamp(1, most.max(1));
    }
    grid
}

/// Everything that can be asked of a valid grid, with numbers that need not make sense.
fn use_it(grid: &Grid) {
    let Ok(layouts) = Layouts::of(grid) else { return };
    assert!(layouts.initial().is_some());
    for profile in 0..=16 {
        assert!(layouts.feasible(layouts.empty(), profile).all(|one| grid.admits(&[], one)));
        assert!(layouts.best(layouts.empty(), profile).is_none_or(|one| grid.admits(&[], one)));
        // Every count that the table promises is one that some layout has.
        if let Some(row) = grid.profiles.get(usize::from(profile)) {
            assert_eq!(layouts.room(layouts.empty())[usize::from(profile)], row.max.min(grid.reachable(row)));
        }
    }
    let gpus = [Occupancy::new(&layouts, 0, &[], &[]).unwrap(); 2];
    for (row, count) in [(0, 1), (1, 2), (200, 1), (0, u32::MAX), (2, 0)] {
        let wants = [Want::same(row, count, 3), Want { rows: vec![Some(0)], count: 1 }, Want { rows: Vec::new(), count: 0 }];
        let found = pack(&gpus, &wants);
        assert!(count < 9 || found == Verdict::Impossible);
        assert_eq!(victims(&gpus, &[], &wants).plan().map(|found| found.packed.placed), found.plan().map(|found| found.placed));
    }
    assert!(!layouts.fits(layouts.empty(), Bag::of(0, Bag::COUNT_MAX)));
}

proptest! {
    #[test]
    fn no_table_panics_and_a_valid_one_has_layouts(grid in grids()) {
        if grid.validate().is_ok() {
            use_it(&grid);
        }
        let grid = mended(grid);
        match grid.validate() {
            Ok(()) => use_it(&grid),
            Err(error) => prop_assert!(matches!(error, GridError::Profiles(0)), "{error}: {grid:?}"),
        }
    }

    #[test]
    fn no_name_panics_and_what_is_read_is_written_the_same(text in prop_oneof![".{0,60}", "(nvidia.com/)?(mig-)?[0-9]{1,4}g\\.[0-9]{1,5}gb[.+-]?(me|me\\.all|gfx)?"]) {
        if let Ok(name) = ProfileName::parse(&text) {
            prop_assert_eq!(ProfileName::parse(&name.to_string()), Ok(name));
            prop_assert_eq!(ProfileName::parse(&name.resource()), Ok(name));
        }
        let grid = catalog::builtin("A100-80GB").unwrap().grid.unwrap();
        let known = grid.resolve(&text).is_ok();
        prop_assert!(!known || ProfileName::parse(&text).is_ok());
        prop_assert!(catalog::lookup(&text).is_err() || catalog::names().any(|name| name == text));
    }
}
