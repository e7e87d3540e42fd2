//! Whether a table is one that a GPU can have. Tables of unknown models come from a node's driver, so any value may turn up.

use thiserror::Error;

use super::{Engines, Grid, Profile};
use crate::model::ProfileName;

/// The most names that drivers may have for one profile; the most known is one.
pub const ALIASES_MAX: usize = 4;

/// Why a grid is not one that a GPU can have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GridError {
    /// The grid's own size is out of range.
    #[error("a grid has 1 to 12 memory slots and 1 to 12 compute slices, this one has {slots} and {compute}")]
    Size {
        /// Memory slots given.
        slots: u8,
        /// Compute slices given.
        compute: u8,
    },
    /// More profiles than any model has, or none.
    #[error("a grid has 1 to {most} profiles, this one has {0}", most = Grid::PROFILES_MAX)]
    Profiles(usize),
    /// More first slots than any model has.
    #[error("the profiles have {0} first slots together; the limit is {most}", most = Grid::PLACEMENTS_MAX)]
    Placements(usize),
    /// Two profiles have one name.
    #[error("profile {0} is listed twice; keep one")]
    Duplicate(String),
    /// A profile cannot lie on the grid.
    #[error("profile {name}: {problem}")]
    Profile {
        /// Name of the profile.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Grid {
    /// Checks that every profile can lie on the grid, as often as it says, under a name of its own.
    ///
    /// # Errors
    /// The first [`GridError`] found.
    pub fn validate(&self) -> Result<(), GridError> {
        let legal = 1..=Self::SLOTS_MAX;
        if !legal.contains(&self.slots) || !legal.contains(&self.compute) {
            return Err(GridError::Size { slots: self.slots, compute: self.compute });
        }
        if self.profiles.is_empty() || self.profiles.len() > Self::PROFILES_MAX {
            return Err(GridError::Profiles(self.profiles.len()));
        }
        let mut seen: Vec<String> = Vec::new();
        for profile in &self.profiles {
            // Names are read only once they are known to be short.
            check_names(profile).map_err(|problem| GridError::Profile { name: shown(&profile.name), problem })?;
            for name in profile.names() {
                if seen.contains(&name) {
                    return Err(GridError::Duplicate(name));
                }
                seen.push(name);
            }
            self.validate_profile(profile).map_err(|problem| GridError::Profile { name: profile.name.clone(), problem })?;
        }
        let placements = self.profiles.iter().map(|profile| profile.starts.len()).sum();
        if placements > Self::PLACEMENTS_MAX { Err(GridError::Placements(placements)) } else { Ok(()) }
    }

    /// The most partitions of `profile` that fit on an empty GPU, whatever its table says. Drivers are known to report too many (A30);
    /// who reads a table from one takes the smaller number.
    #[must_use]
    pub fn reachable(&self, profile: &Profile) -> u8 {
        let mut starts: Vec<u16> = profile.starts.iter().map(|&start| u16::from(start)).collect();
        starts.sort_unstable();
        // Intervals of one size: taking the leftmost that is free is best.
        let (mut count, mut free, size) = (0u16, 0u16, u16::from(profile.size.max(1)));
        for start in starts {
            if start >= free && start + size <= u16::from(self.slots) {
                (count, free) = (count + 1, start + size);
            }
        }
        let once = if profile.variant().once() { 1 } else { u8::MAX };
        let share = |total: u8, each: u8| total.checked_div(each).unwrap_or(u8::MAX);
        let (total, part) = (self.engines, profile.engines);
        let pairs = [(total.decoder, part.decoder), (total.encoder, part.encoder), (total.jpeg, part.jpeg), (total.ofa, part.ofa)];
        let engines = pairs.into_iter().map(|(total, each)| share(total, each)).min().unwrap_or(u8::MAX);
        (count.min(255) as u8).min(share(self.compute, profile.compute)).min(once).min(engines)
    }

    fn validate_profile(&self, profile: &Profile) -> Result<(), String> {
        if profile.size == 0 || profile.size > self.slots {
            return Err(format!("{} memory slots on a grid of {}", profile.size, self.slots));
        }
        if profile.compute > self.compute {
            return Err(format!("{} compute slices on a GPU of {}", profile.compute, self.compute));
        }
        if let Ok(name) = ProfileName::parse(&profile.name)
            && name.compute != profile.compute
        {
            return Err(format!("{} compute slices, but its name says {}", profile.compute, name.compute));
        }
        if !profile.engines.within(self.engines) {
            return Err(format!("{} on a GPU with {}", listed(profile.engines), listed(self.engines)));
        }
        if profile.max == 0 {
            return Err("max is 0, so it could never exist; leave the profile out".into());
        }
        if profile.starts.is_empty() {
            return Err("no first slot, so it could never exist; leave the profile out".into());
        }
        for (row, &start) in profile.starts.iter().enumerate() {
            let end = u16::from(start) + u16::from(profile.size);
            if end > u16::from(self.slots) {
                return Err(format!("slots {start}..{end} reach past the {} of the grid", self.slots));
            }
            if profile.starts[..row].contains(&start) {
                return Err(format!("first slot {start} is listed twice"));
            }
        }
        let reachable = self.reachable(profile);
        if profile.max > reachable {
            return Err(format!("max is {}, but at most {reachable} fit on the GPU; say {reachable}", profile.max));
        }
        Ok(())
    }
}

fn check_names(profile: &Profile) -> Result<(), String> {
    if profile.aliases.len() > ALIASES_MAX {
        return Err(format!("{} aliases; the limit is {ALIASES_MAX}", profile.aliases.len()));
    }
    for name in std::iter::once(&profile.name).chain(&profile.aliases) {
        if name.is_empty() || name.len() > 32 {
            return Err("a name has 1 to 32 characters".into());
        }
        if let Some(wrong) = name.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("a name holds {wrong:?}; write it like 1g.10gb+me"));
        }
    }
    Ok(())
}

/// The beginning of a name that may be of any length and hold anything.
fn shown(name: &str) -> String {
    name.chars().take(32).flat_map(char::escape_debug).collect()
}

fn listed(engines: Engines) -> String {
    let Engines { decoder, encoder, jpeg, ofa } = engines;
    format!("{decoder} decoders, {encoder} encoders, {jpeg} jpeg engines and {ofa} optical flow accelerators")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog;

    type Change = fn(&mut Grid);

    #[test]
    fn a_grid_that_no_gpu_can_have_is_refused() {
        let good = catalog::builtin("A30").unwrap().grid.unwrap();
        assert_eq!(good.validate(), Ok(()));
        let wrong: &[(Change, &str)] = &[
            (|grid| grid.slots = 0, "1 to 12 memory slots"),
            (|grid| grid.compute = 13, "1 to 12 memory slots"),
            (|grid| grid.profiles.clear(), "1 to 16 profiles"),
            (|grid| grid.profiles = vec![grid.profiles[0].clone(); 17], "1 to 16 profiles"),
            (|grid| grid.profiles.push(grid.profiles[0].clone()), "listed twice"),
            (|grid| grid.profiles[0].aliases.push("1g.6gb.me".into()), "1g.6gb+me is listed twice"),
            (|grid| grid.profiles[0].aliases = vec!["a".into(); 5], "5 aliases"),
            (|grid| grid.profiles[0].name = String::new(), "1 to 32 characters"),
            (|grid| grid.profiles[0].name = "x".repeat(9999), "1 to 32 characters"),
            (|grid| grid.profiles[0].name = "1g 6gb".into(), "holds ' '"),
            (|grid| grid.profiles[0].name = "2g.6gb".into(), "its name says 2"),
            (|grid| grid.profiles[0].size = 0, "0 memory slots"),
            (|grid| grid.profiles[0].size = 5, "5 memory slots"),
            (|grid| grid.profiles[0].compute = 5, "5 compute slices"),
            (|grid| grid.profiles[0].max = 0, "max is 0"),
            (|grid| grid.profiles[0].max = 5, "at most 4 fit"),
            (|grid| grid.profiles[1].max = 2, "at most 1 fit"),
            (|grid| grid.profiles[0].starts.clear(), "no first slot"),
            (|grid| grid.profiles[0].starts.push(4), "reach past"),
            (|grid| grid.profiles[0].starts.push(255), "reach past"),
            (|grid| grid.profiles[0].starts.push(3), "listed twice"),
            (|grid| grid.profiles[0].engines.ofa = 1, "1 optical flow accelerators on a GPU with"),
        ];
        for (change, says) in wrong {
            let mut grid = good.clone();
            change(&mut grid);
            let error = grid.validate().unwrap_err().to_string();
            assert!(error.contains(says), "{error} should say {says}");
        }
        let row = |name: usize| Profile::new(&format!("p{name}"), 1, 1, 0, &[0, 1, 2, 3, 4, 5], 6);
        let many = Grid::new(12, 12, (0..11).map(row).collect());
        assert_eq!(many.validate(), Err(GridError::Placements(66)));
    }

    #[test]
    fn too_high_a_count_from_a_driver_can_be_put_right() {
        let grid = catalog::builtin("RTX-PRO-6000-Blackwell-96GB").unwrap().grid.unwrap();
        for profile in &grid.profiles {
            assert_eq!(grid.reachable(profile), profile.max, "{}", profile.name);
        }
    }
}
