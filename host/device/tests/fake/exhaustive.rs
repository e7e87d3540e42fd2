//! Whatever the fake library permits is what the core's layouts permit: every layout, every placement beside it.

use std::collections::BTreeSet;

use partita_core::{
    layout::Layouts,
    model::{Grid, Placement, catalog},
};
use partita_device::{Driver, discover::look, nvml::Code};

use crate::support::Machine;

/// One model of each geometry, and how many layouts it has.
const GEOMETRIES: [(&str, usize); 3] = [("A30", 76), ("H100-80GB", 2319), ("RTX-PRO-6000-Blackwell-96GB", 717)];

struct Walk<'w> {
    driver: &'w dyn Driver,
    gpu: &'w str,
    ids: &'w [u32],
    grid: &'w Grid,
    layouts: &'w Layouts,
    placements: Vec<Placement>,
    seen: BTreeSet<Vec<Placement>>,
}

impl Walk<'_> {
    /// At a layout that is on the GPU: every placement is tried, and every layout that is reached for the first time is walked on from.
    fn on(&mut self, layout: &[Placement]) {
        let state = self.layouts.state(layout.iter().copied()).unwrap_or_else(|error| panic!("{layout:?} is no layout: {error}"));
        for placement in self.placements.clone() {
            let (row, size) = (usize::from(placement.profile), self.grid.profiles[usize::from(placement.profile)].size);
            let made = self.driver.create(self.gpu, self.ids[row], (placement.start.into(), size.into()));
            let legal = self.layouts.with(state, placement).is_some();
            match made {
                Ok(instance) => {
                    assert!(legal, "{placement:?} beside {layout:?} was made, and is no layout");
                    let mut next = layout.to_vec();
                    next.push(placement);
                    next.sort_unstable();
                    if self.seen.insert(next.clone()) {
                        self.on(&next);
                    }
                    self.driver.destroy(self.gpu, instance).unwrap();
                }
                Err(error) => {
                    assert_eq!(error.code(), Some(Code::INSUFFICIENT_RESOURCES), "{placement:?} beside {layout:?}: {error}");
                    assert!(!legal, "{placement:?} beside {layout:?} was refused, and is a layout");
                }
            }
        }
    }
}

#[test]
fn every_layout_and_no_other_can_be_made() {
    for (name, count) in GEOMETRIES {
        let machine = Machine::cut(name);
        let driver = machine.nvml();
        let gpu = look(&driver, &machine.uuid(0)).unwrap();
        let grid = catalog::builtin(name).unwrap().grid.unwrap();
        let layouts = Layouts::of(&grid).unwrap();
        let starts = |row: usize| grid.profiles[row].starts.iter().map(move |&start| Placement { profile: row as u8, start });
        let placements = (0..grid.profiles.len()).flat_map(starts).collect();
        let seen = BTreeSet::from([Vec::new()]);
        let (uuid, ids) = (gpu.info.uuid.as_str(), gpu.table.ids.as_slice());
        let mut walk = Walk { driver: &driver, gpu: uuid, ids, grid: &grid, layouts: &layouts, placements, seen };
        walk.on(&[]);
        assert_eq!((walk.seen.len(), layouts.count()), (count, count), "{name}");
        assert_eq!(machine.truth(0), [], "{name}");
    }
}

#[test]
fn what_is_no_placement_cannot_be_made() {
    for name in catalog::names() {
        let Some(grid) = catalog::builtin(name).unwrap().grid else { continue };
        let machine = Machine::cut(name);
        let driver = machine.nvml();
        let gpu = look(&driver, &machine.uuid(0)).unwrap();
        for (profile, &id) in grid.profiles.iter().zip(&gpu.table.ids) {
            for start in (0..16).filter(|start| !profile.starts.contains(start)) {
                let error = driver.create(&gpu.info.uuid, id, (start.into(), profile.size.into())).unwrap_err();
                assert_eq!(error.code(), Some(Code::INVALID_ARGUMENT), "{name} {} at {start}: {error}", profile.name);
            }
        }
        assert_eq!(machine.truth(0), [], "{name}");
    }
}
