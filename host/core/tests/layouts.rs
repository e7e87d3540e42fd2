//! The algebra of layouts against a solver that tries everything: every legal layout of every model, and nodes of several GPUs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod brute;

use brute::{Gpu, grid};
use partita_core::{
    layout::{Bag, Held, Layouts, Occupancy, Verdict, Want, moves, pack, possible, victims},
    model::{Grid, Placement, Variant, catalog},
};
use proptest::prelude::*;

/// Grids that differ in geometry: every model of the catalog is one of them.
fn geometries() -> Vec<(Grid, Layouts)> {
    let mut found: Vec<(Grid, Layouts)> = Vec::new();
    for grid in catalog::names().filter_map(|name| catalog::builtin(name).unwrap().grid) {
        let layouts = Layouts::of(&grid).unwrap();
        if !found.iter().any(|known| known.1 == layouts) {
            found.push((grid, layouts));
        }
    }
    found
}

fn partitions(layouts: &Layouts) -> Vec<Vec<Placement>> {
    layouts.all().map(|state| layouts.placements(state).collect()).collect()
}

#[test]
fn the_numbers_of_legal_layouts_are_the_published_ones() {
    let count = |model: &str, keep: fn(Variant) -> bool| {
        let mut grid = grid(model);
        grid.profiles.retain(|profile| keep(profile.variant()));
        Layouts::of(&grid).unwrap().count()
    };
    for model in catalog::names().filter(|name| catalog::builtin(name).unwrap().grid.is_some_and(|grid| grid.slots == 8)) {
        assert_eq!(count(model, |variant| variant == Variant::Plain), 723, "{model}");
        assert_eq!(count(model, |_| true), 2319, "{model}");
    }
    for model in ["A30", "RTX-PRO-6000-Blackwell-96GB"] {
        assert_eq!(count(model, |variant| variant == Variant::Plain), 26, "{model}");
    }
    assert_eq!(count("A30", |_| true), 76);
    assert_eq!(count("RTX-PRO-6000-Blackwell-96GB", |_| true), 717);
    assert_eq!(geometries().len(), 3, "eight slots of all generations are one geometry");
}

#[test]
fn placing_freeing_and_room_are_exact_beside_every_layout() {
    for (grid, layouts) in geometries() {
        for state in layouts.all() {
            let others: Vec<Placement> = layouts.placements(state).collect();
            assert!(brute::legal(&grid, &others));
            for (profile, &room) in (0u8..).zip(layouts.room(state)) {
                let places = brute::places(&grid, &others, profile);
                assert_eq!(layouts.feasible(state, profile).collect::<Vec<_>>(), places);
                assert_eq!(u32::from(room), brute::room(&grid, &others, profile));
                for start in 0..=u8::MAX {
                    let placement = Placement { profile, start };
                    let after = layouts.with(state, placement);
                    assert_eq!(after.is_some(), places.contains(&placement));
                    assert!(after.is_none_or(|after| layouts.without(after, placement) == Some(state)));
                }
                let best = layouts.best(state, profile);
                assert_eq!(best.is_some(), !places.is_empty());
                let kept = |one: Placement| layouts.kept(layouts.with(state, one).unwrap());
                assert!(best.is_none_or(|best| places.iter().all(|&one| kept(one) <= kept(best))));
            }
        }
    }
}

#[test]
fn packing_two_and_three_profiles_is_exact_beside_every_layout() {
    for (grid, layouts) in geometries() {
        let profiles = grid.profiles.len() as u8;
        for (row, others) in partitions(&layouts).into_iter().enumerate() {
            let state = layouts.state(others.iter().copied()).unwrap();
            let gpu = [Occupancy::new(&layouts, 0, &others, &[]).unwrap()];
            for (a, b) in (0..profiles).flat_map(|a| (a..profiles).map(move |b| (a, b))) {
                let fits = brute::fits(&grid, &others, &[a, b]);
                let bag = Bag::one(usize::from(a)).plus(Bag::one(usize::from(b)));
                assert_eq!(layouts.fits(state, bag), fits);
                assert_eq!(possible(&gpu, &[Want::same(a, 1, 1), Want::same(b, 1, 1)]) == Verdict::Possible(()), fits);
                // Of the triples, a different one beside each layout.
                let c = (row % usize::from(profiles)) as u8;
                let three = bag.plus(Bag::one(usize::from(c)));
                assert_eq!(layouts.fits(state, three), fits && brute::fits(&grid, &others, &[a, b, c]));
            }
        }
    }
}

/// Splits the partitions of a layout into those in use and warm ones, differently from layout to layout.
fn split(partitions: &[Placement], pattern: usize) -> (Vec<Placement>, Vec<Placement>) {
    let (used, warm): (Vec<_>, Vec<_>) = partitions.iter().enumerate().partition(|(row, _)| pattern >> row & 1 == 1);
    let only = |list: Vec<(usize, &Placement)>| list.into_iter().map(|(_, &one)| one).collect();
    (only(used), only(warm))
}

fn check_pack(gpus: &[Gpu<'_>], seen: &[Occupancy<'_>], wants: &[Want]) {
    let packed = pack(seen, wants).plan();
    assert_eq!(packed.is_some(), possible(seen, wants) == Verdict::Possible(()));
    let best = brute::cheapest(gpus, &brute::each(wants));
    let cost = packed.as_ref().map(|packed| packed.cost);
    assert_eq!(cost.map(|cost| (cost.made, cost.destroyed, cost.changed, cost.touched)), best, "{wants:?} on {gpus:?}");
    let Some(packed) = packed else { return };
    assert!(packed.cheapest);
    check_plan(gpus, wants, &packed.placed, &packed.destroyed);
}

/// Everything wanted is placed, on free slots, beside what is in use and the warm partitions that stay.
fn check_plan(gpus: &[Gpu<'_>], wants: &[Want], placed: &[partita_core::layout::Placed], destroyed: &[(u8, Placement)]) {
    for (row, want) in (0u32..).zip(wants) {
        let mine: Vec<_> = placed.iter().filter(|one| one.want == row).collect();
        assert_eq!(mine.len(), want.count as usize);
        assert!(mine.iter().all(|one| want.rows[usize::from(one.gpu)] == Some(one.placement.profile)));
    }
    for (index, gpu) in gpus.iter().enumerate() {
        let here = placed.iter().filter(|one| usize::from(one.gpu) == index);
        let gone = |one: &Placement| destroyed.contains(&(index as u8, *one));
        let mut after: Vec<Placement> = gpu.used.iter().chain(gpu.warm.iter().filter(|one| !gone(one))).copied().collect();
        for one in here {
            assert_eq!(one.warm, gpu.warm.contains(&one.placement));
            if !one.warm {
                after.push(one.placement);
            }
        }
        assert!(brute::legal(gpu.grid, &after), "{after:?}");
    }
}

#[test]
fn warm_partitions_are_reused_and_spared_beside_every_layout() {
    for (grid, layouts) in geometries() {
        let profiles = grid.profiles.len() as u8;
        for (row, all) in partitions(&layouts).into_iter().enumerate() {
            let (used, warm) = split(&all, row * 37 % 128);
            let gpus = [Gpu { grid: &grid, model: 0, used, warm }];
            let seen = [gpus[0].seen(&layouts)];
            for profile in 0..profiles {
                check_pack(&gpus, &seen, &[Want::same(profile, 1, 1)]);
            }
            let other = (row % usize::from(profiles)) as u8;
            check_pack(&gpus, &seen, &[Want::same(other, 1, 1), Want::same((other + 1) % profiles, 1, 1)]);
        }
    }
}

fn holders(gpus: &[Gpu<'_>], cost: impl Fn(u32) -> Option<u64>) -> Vec<Held> {
    let all = (0u8..).zip(gpus).flat_map(|(gpu, one)| one.used.iter().map(move |&placement| (gpu, placement)));
    (0u32..).zip(all).map(|(id, (gpu, placement))| Held { id, gpu, placement, cost: cost(id) }).collect()
}

fn check_victims(gpus: &[Gpu<'_>], seen: &[Occupancy<'_>], held: &[Held], wants: &[Want]) {
    let found = victims(seen, held, wants);
    let best = brute::victims(gpus, held, &brute::each(wants));
    assert!(!matches!(found, Verdict::Undecided(_)));
    let found = found.plan();
    let price = found.as_ref().map(|found| (found.victims.len(), found.cost));
    assert_eq!(price, best, "{wants:?} on {gpus:?} with {held:?}");
    let Some(found) = found else { return };
    let mut after = gpus.to_vec();
    for one in held.iter().filter(|one| found.victims.contains(&one.id)) {
        let gpu = &mut after[usize::from(one.gpu)];
        gpu.used.retain(|other| *other != one.placement);
        gpu.warm.push(one.placement);
    }
    check_plan(&after, wants, &found.packed.placed, &found.packed.destroyed);
}

#[test]
fn victims_are_the_fewest_and_cheapest_beside_every_layout() {
    for (grid, layouts) in geometries() {
        let profiles = grid.profiles.len() as u8;
        for (row, used) in partitions(&layouts).into_iter().enumerate() {
            let gpus = [Gpu { grid: &grid, model: 0, used, warm: Vec::new() }];
            let seen = [gpus[0].seen(&layouts)];
            let cost = |id: u32| (!(row as u32 + id).is_multiple_of(7)).then_some(u64::from((id * 5 + row as u32) % 11));
            let held = holders(&gpus, cost);
            for profile in 0..profiles {
                check_victims(&gpus, &seen, &held, &[Want::same(profile, 1, 1)]);
            }
            let other = (row % usize::from(profiles)) as u8;
            check_victims(&gpus, &seen, &held, &[Want::same(other, 2, 1)]);
        }
    }
}

/// GPUs as (model, layout, which of its partitions are in use), and wants as (name, count).
type Numbers = (Vec<(usize, prop::sample::Index, usize)>, Vec<(prop::sample::Index, u32)>);

/// A node of one to three GPUs of two models, in any layout, and some wants.
fn nodes() -> impl Strategy<Value = Numbers> {
    let gpu = (0usize..3, any::<prop::sample::Index>(), 0usize..128);
    let want = (any::<prop::sample::Index>(), 1u32..3);
    (prop::collection::vec(gpu, 1..4), prop::collection::vec(want, 1..3))
}

/// Runs `check` on the node that the numbers describe.
fn on_node((gpus, wants): Numbers, check: impl Fn(&[Gpu<'_>], &[Occupancy<'_>], &[Want])) {
    let models = [("A30", 1), ("A100-40GB", 0), ("A100-80GB", 2)].map(|(name, model)| (grid(name), model));
    let tables: Vec<Layouts> = models.iter().map(|model| Layouts::of(&model.0).unwrap()).collect();
    let read = |&(model, layout, pattern): &(usize, prop::sample::Index, usize)| {
        let state = tables[model].all().nth(layout.index(tables[model].count())).unwrap();
        let all: Vec<Placement> = tables[model].placements(state).collect();
        let (used, warm) = split(&all, pattern);
        Gpu { grid: &models[model].0, model: models[model].1, used, warm }
    };
    let built: Vec<Gpu<'_>> = gpus.iter().map(read).collect();
    let seen: Vec<Occupancy<'_>> = built.iter().zip(&gpus).map(|(gpu, of)| gpu.seen(&tables[of.0])).collect();
    // Names that two models share, in different sizes, and names of one only.
    let names = ["1g.10gb", "mig-1g.10gb", "1g.6gb", "2g.20gb", "3g.20gb", "3g.39gb", "3g.40gb", "2g.12gb+me", "1g.10gb+me", "7g.79gb"];
    let wants: Vec<Want> =
        wants.iter().map(|&(name, count)| Want::named(names[name.index(names.len())], count, built.iter().map(|gpu| gpu.grid))).collect();
    check(&built, &seen, &wants);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn packing_on_several_gpus_is_exact_and_cheapest(node in nodes()) {
        on_node(node, check_pack);
    }

    #[test]
    fn victims_on_several_gpus_are_the_fewest_and_cheapest(
        node in nodes(),
        costs in prop::collection::vec(prop::option::weighted(0.9, 0u64..9), 32),
        shared in prop_oneof![Just(32u32), 2u32..6],
    ) {
        on_node(node, |gpus, seen, wants| {
            let mut held = holders(gpus, |id| costs[id as usize % costs.len()]);
            held.truncate(12);
            // With a small `shared` ids have several partitions, on several GPUs too.
            for one in &mut held {
                one.id %= shared;
            }
            check_victims(gpus, seen, &held, wants);
        });
    }

    #[test]
    fn moves_are_the_fewest_and_cheapest(node in nodes(), costs in prop::collection::vec(prop::option::weighted(0.8, 0u64..9), 32)) {
        on_node(node, |gpus, seen, wants| {
            let held = holders(gpus, |id| costs[id as usize % costs.len()]);
            let wants = &wants[..1];
            let found = moves(seen, &held, wants, 2);
            let best = brute::movers(gpus, &held, &brute::each(wants), 2);
            let Verdict::Possible(found) = found else {
                assert_eq!((best, found), (None, Verdict::Impossible));
                return;
            };
            assert_eq!(Some((found.moves.len(), found.cost)), best);
            let mut after = gpus.to_vec();
            for (row, one) in found.moves.iter().enumerate() {
                let from = held.iter().find(|held| held.id == one.id).unwrap();
                assert_eq!((from.gpu, from.placement), one.from);
                after[usize::from(one.from.0)].used.retain(|other| *other != one.from.1);
                let to = usize::from(one.to.0);
                assert!(!found.one_by_one || after[to].grid.admits(&after[to].used, one.to.1), "move {row} finds its place taken");
                after[to].used.push(one.to.1);
            }
            for one in &found.placed {
                after[usize::from(one.gpu)].used.push(one.placement);
            }
            assert!(after.iter().all(|gpu| brute::legal(gpu.grid, &gpu.used)));
        });
    }
}

#[test]
fn thirteen_partitions_of_which_twelve_fit_are_refused_by_a_bound_and_not_by_search() {
    let table = Layouts::of(&grid("H100-80GB")).unwrap();
    let gpus = [Occupancy::new(&table, 0, &[], &[]).unwrap(); 3];
    let row = grid("H100-80GB").resolve("1g.20gb").unwrap();
    assert_eq!(pack(&gpus, &[Want::same(row, 13, 3)]), Verdict::Impossible);
    assert_eq!(pack(&gpus, &[Want::same(row, 12, 3)]).plan().unwrap().placed.len(), 12);
}

/// GPUs of one A30 model with partitions in use, each (profile, first slot, id); id 9 may not move.
fn a30s<'l>(grid: &Grid, table: &'l Layouts, gpus: &[&[(&str, u8, u32)]]) -> (Vec<Occupancy<'l>>, Vec<Held>) {
    let at = |&(name, start, _): &(&str, u8, u32)| Placement { profile: grid.resolve(name).unwrap(), start };
    let seen = gpus.iter().map(|gpu| Occupancy::new(table, 0, &gpu.iter().map(at).collect::<Vec<_>>(), &[]).unwrap());
    let held = (0u8..).zip(gpus).flat_map(|(gpu, parts)| {
        parts.iter().map(move |part| Held { id: part.2, gpu, placement: at(part), cost: (part.2 != 9).then_some(1) })
    });
    (seen.collect(), held.collect())
}

#[test]
fn moves_come_in_an_order_that_can_be_followed_or_say_that_there_is_none() {
    let grid = grid("A30");
    let table = Layouts::of(&grid).unwrap();
    let want = |name: &str, gpus: usize, only: usize| {
        let row = grid.resolve(name).ok();
        vec![Want { rows: (0..gpus).map(|index| if index == only { row } else { None }).collect(), count: 1 }]
    };
    // 0 can go only where 1 is, so 1 leaves first.
    let (first, second, third) =
        ([("2g.12gb", 0, 0), ("2g.12gb", 2, 9)], [("1g.6gb", 0, 1), ("2g.12gb", 2, 9)], [("2g.12gb", 0, 9), ("1g.6gb", 2, 9)]);
    let (gpus, held) = a30s(&grid, &table, &[&first, &second, &third]);
    let plan = moves(&gpus, &held, &want("2g.12gb", 3, 0), 2).plan().unwrap();
    assert_eq!((plan.moves.iter().map(|one| one.id).collect::<Vec<_>>(), plan.one_by_one), (vec![1, 0], true));
    assert_eq!(moves(&gpus, &held, &want("2g.12gb", 3, 0), 1), Verdict::Impossible);
    // 0 and 1 change places.
    let (first, second) = ([("1g.6gb", 0, 0), ("2g.12gb", 2, 9)], [("2g.12gb", 0, 1), ("2g.12gb", 2, 9)]);
    let (gpus, held) = a30s(&grid, &table, &[&first, &second]);
    let plan = moves(&gpus, &held, &want("1g.6gb", 2, 1), 2).plan().unwrap();
    assert_eq!((plan.moves.len(), plan.one_by_one), (2, false));
}

#[test]
fn of_a_pod_that_moves_a_partition_that_can_stay_stays() {
    let grid = grid("A30");
    let table = Layouts::of(&grid).unwrap();
    let (gpus, held) = a30s(&grid, &table, &[&[("1g.6gb", 0, 5)], &[("1g.6gb", 0, 5)]]);
    let plan = moves(&gpus, &held, &[Want { rows: vec![grid.resolve("4g.24gb").ok(), None], count: 1 }], 1).plan().unwrap();
    assert_eq!((plan.moves.len(), plan.moves[0].from.0, plan.moves[0].to.0, plan.cost), (1, 0, 1, 1));
}

#[test]
fn two_asks_for_one_profile_are_dealt_out_as_they_may_be_placed() {
    let grid = grid("A30");
    let table = Layouts::of(&grid).unwrap();
    let gpus = [Occupancy::new(&table, 0, &[], &[]).unwrap(); 2];
    let whole = grid.resolve("4g.24gb").ok();
    let anywhere = Want { rows: vec![whole, whole], count: 1 };
    let only_first = Want { rows: vec![whole, None], count: 1 };
    let wants = [anywhere, only_first];
    assert_eq!(possible(&gpus, &wants), Verdict::Possible(()));
    let placed = pack(&gpus, &wants).plan().unwrap().placed;
    assert_eq!(placed.iter().map(|one| (one.gpu, one.want)).collect::<Vec<_>>(), [(0, 1), (1, 0)]);
}
