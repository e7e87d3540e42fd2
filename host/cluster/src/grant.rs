//! What a pod got of its node's GPUs, as text: the annotation [`crate::translate::keys::GRANT`], written with the binding.
//!
//! `0:1g.10gb@3,1:500m,2:mps/10240`: of GPU 0 the MIG partition 1g.10gb at slot 3, of GPU 1 half (a whole GPU is `1000m`), of GPU 2 a
//! share of 10,240 MiB under MPS. One way to write each grant, so equal grants are equal texts. Whoever may edit a pod may edit its
//! annotations, so what is read back is hostile until the core has found it to fit.

use std::fmt::Write;

use partita_core::{
    model::{MILLI, NodeSpec, Placement},
    state::{Grant, Models, Use},
};
use thiserror::Error;

use crate::crd::INDEX_MAX;

/// The longest text that is read: 64 GPUs with a dozen partitions each stay below it.
pub const LENGTH_MAX: usize = 32_768;
/// The most parts: what every slot of every GPU could be.
pub const PARTS_MAX: usize = 1024;
/// What marks a share under MPS.
const MPS: &str = "mps/";

/// Why a grant cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrantError {
    /// Too long to be one.
    #[error("the grant has {0} characters or parts, more than any node's GPUs have; take the annotation off the pod")]
    Length(usize),
    /// A part that is none.
    #[error("{0:?} is no part of a grant; such parts are 0:1g.10gb@3, 1:500m and 2:mps/10240")]
    Part(String),
    /// A profile that the GPU does not have.
    #[error("GPU {index} has no profile {profile:?}; take the annotation off the pod, or describe the model as its driver does")]
    Profile {
        /// Index of the GPU.
        index: u8,
        /// The profile, or the row of one that is not in its table.
        profile: String,
    },
    /// Parts that cannot be together, or in this order.
    #[error("the parts on GPU {0} are not in order, or are not partitions and still several")]
    Order(u8),
}

/// Writes a grant. `profile` gives the name of a row of the profiles of the GPU with an index.
///
/// # Errors
/// If a GPU has no such row, or the grant is none that [`parse`] would read back.
pub fn print(grant: &Grant, profile: &dyn Fn(u8, u8) -> Option<String>) -> Result<String, GrantError> {
    in_order(grant)?;
    let mut text = String::new();
    for (row, &(index, used)) in grant.0.iter().enumerate() {
        let comma = if row == 0 { "" } else { "," };
        let part = match used {
            Use::Share(milli) => format!("{milli}m"),
            Use::Mps(memory_mib) => format!("{MPS}{memory_mib}"),
            Use::Partition(place) => {
                let name = profile(index, place.profile).filter(|name| is_name(name));
                let name = name.ok_or_else(|| GrantError::Profile { index, profile: format!("row {}", place.profile) })?;
                format!("{name}@{}", place.start)
            }
        };
        let _ = write!(text, "{comma}{index}:{part}");
    }
    Ok(text)
}

/// Reads a grant. `row` gives the row of a name among the profiles of the GPU with an index.
///
/// # Errors
/// If the text is not the one way to write a grant, or names what the GPU does not have.
pub fn parse(text: &str, row: &dyn Fn(u8, &str) -> Option<u8>) -> Result<Grant, GrantError> {
    if text.is_empty() {
        return Ok(Grant::default());
    }
    if text.len() > LENGTH_MAX {
        return Err(GrantError::Length(text.len()));
    }
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > PARTS_MAX {
        return Err(GrantError::Length(parts.len()));
    }
    let grant = Grant(parts.into_iter().map(|part| one(part, row)).collect::<Result<_, _>>()?);
    in_order(&grant).map(|()| grant)
}

fn one(part: &str, row: &dyn Fn(u8, &str) -> Option<u8>) -> Result<(u8, Use), GrantError> {
    let wrong = || GrantError::Part(part.chars().take(64).collect());
    let (index, what) = part.split_once(':').ok_or_else(wrong)?;
    let index = number(index).and_then(|index| u8::try_from(index).ok()).filter(|&index| index <= INDEX_MAX).ok_or_else(wrong)?;
    let used = if let Some((name, start)) = what.rsplit_once('@') {
        let start = number(start).and_then(|start| u8::try_from(start).ok()).filter(|&start| start < 16).ok_or_else(wrong)?;
        if !is_name(name) {
            return Err(wrong());
        }
        let profile = row(index, name).ok_or_else(|| GrantError::Profile { index, profile: name.into() })?;
        Use::Partition(Placement { profile, start })
    } else if let Some(memory) = what.strip_prefix(MPS) {
        Use::Mps(number(memory).filter(|&memory| memory > 0).ok_or_else(wrong)?)
    } else {
        let milli = what.strip_suffix('m').and_then(number).filter(|milli| (1..=MILLI).contains(milli));
        Use::Share(milli.ok_or_else(wrong)?)
    };
    Ok((index, used))
}

/// A number as it is printed: no sign, no leading zero.
fn number(text: &str) -> Option<u32> {
    let canonical = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// Whether a profile's name can stand in a grant.
fn is_name(name: &str) -> bool {
    (1..=48).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b',' | b':' | b'@'))
}

/// Indices never fall, only partitions share one, and those are in the order of their places, each once.
fn in_order(grant: &Grant) -> Result<(), GrantError> {
    let good = |before: &(u8, Use), after: &(u8, Use)| match (before, after) {
        ((a, Use::Partition(first)), (b, Use::Partition(second))) if a == b => first < second,
        ((a, _), (b, _)) => a < b,
    };
    match grant.0.windows(2).find(|pair| !good(&pair[0], &pair[1])) {
        Some(pair) => Err(GrantError::Order(pair[1].0)),
        None => Ok(()),
    }
}

/// What [`print`] asks, for a node whose models the core knows.
pub fn profile_of<'a>(node: &'a NodeSpec, models: &'a Models) -> impl Fn(u8, u8) -> Option<String> + 'a {
    move |index, row| {
        let gpu = node.gpus.get(usize::from(index))?;
        Some(models.grid(models.id(&gpu.model)?)?.profiles.get(usize::from(row))?.name.clone())
    }
}

/// What [`parse`] asks, for a node whose models the core knows.
pub fn row_of<'a>(node: &'a NodeSpec, models: &'a Models) -> impl Fn(u8, &str) -> Option<u8> + 'a {
    move |index, name| {
        let gpu = node.gpus.get(usize::from(index))?;
        models.grid(models.id(&gpu.model)?)?.resolve(name).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 3] = ["1g.10gb", "1g.10gb+me", "7g.80gb"];

    fn name(index: u8, row: u8) -> Option<String> {
        (index != 9).then(|| NAMES.get(usize::from(row)).map(ToString::to_string))?
    }

    fn row(index: u8, name: &str) -> Option<u8> {
        (index != 9).then(|| NAMES.iter().position(|known| *known == name).map(|row| row as u8))?
    }

    fn place(profile: u8, start: u8) -> Use {
        Use::Partition(Placement { profile, start })
    }

    #[test]
    fn a_grant_of_each_kind() {
        let grant = Grant(vec![(0, place(0, 3)), (0, place(1, 0)), (1, Use::Share(500)), (2, Use::Mps(10_240)), (63, Use::Share(1000))]);
        let text = "0:1g.10gb@3,0:1g.10gb+me@0,1:500m,2:mps/10240,63:1000m";
        assert_eq!(print(&grant, &name), Ok(text.into()));
        assert_eq!(parse(text, &row), Ok(grant));
        assert_eq!((print(&Grant::default(), &name), parse("", &row)), (Ok(String::new()), Ok(Grant::default())));
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        for text in [
            "0",
            "0:",
            ":500m",
            "64:500m",
            "256:1m",
            "-1:1m",
            "00:1m",
            "0:0m",
            "0:1001m",
            "0:01m",
            "0:500",
            "0:m",
            "0:mps/0",
            "0:mps/",
            "0:mps/4294967296",
            "0:1g.10gb@16",
            "0:1g.10gb@-1",
            "0:@1",
            "0:1g:10gb@1",
            "0:500m,",
            " 0:500m",
            "0:500m ",
            "0:５00m",
            "0:a\n@1",
        ] {
            assert!(matches!(parse(text, &row), Err(GrantError::Part(_))), "{text:?} {:?}", parse(text, &row));
        }
        for text in [
            "1:500m,0:500m",
            "0:500m,0:500m",
            "0:1g.10gb@1,0:1g.10gb@1",
            "0:1g.10gb+me@0,0:1g.10gb@1",
            "0:1g.10gb@1,0:500m",
            "0:mps/1,0:mps/2",
        ] {
            assert!(matches!(parse(text, &row), Err(GrantError::Order(_))), "{text}");
        }
        assert_eq!(parse("9:7g.80gb@0", &row), Err(GrantError::Profile { index: 9, profile: "7g.80gb".into() }));
        assert_eq!(parse("0:9g.99gb@0", &row), Err(GrantError::Profile { index: 0, profile: "9g.99gb".into() }));
        assert!(matches!(parse(&"0:1m,".repeat(LENGTH_MAX), &row), Err(GrantError::Length(_))));
        assert!(matches!(parse(&vec!["0:1m"; PARTS_MAX + 1].join(","), &row), Err(GrantError::Length(_))));
        assert!(matches!(print(&Grant(vec![(0, place(7, 0))]), &name), Err(GrantError::Profile { index: 0, .. })));
        assert!(matches!(print(&Grant(vec![(0, place(0, 0))]), &|_, _| Some("a,b".into())), Err(GrantError::Profile { .. })));
        assert!(matches!(print(&Grant(vec![(1, Use::Share(1)), (0, Use::Share(1))]), &name), Err(GrantError::Order(0))));
    }

    fn grants() -> impl Strategy<Value = Grant> {
        let used = prop_oneof![
            (1u32..=1000).prop_map(Use::Share),
            (1u32..).prop_map(Use::Mps),
            (0u8..3, 0u8..16).prop_map(|(profile, start)| place(profile, start))
        ];
        prop::collection::btree_map(10u8..64, used, 0..8).prop_map(|parts| Grant(parts.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(grant in grants()) {
            prop_assert_eq!(parse(&print(&grant, &name).unwrap(), &row), Ok(grant));
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "([0-9]{1,2}:(1g.10gb(\\+me)?@[0-9]{1,2}|[0-9]{1,4}m|mps/[0-9]{1,5}),?){0,4}|.{0,30}") {
            if let Ok(grant) = parse(&text, &row) {
                prop_assert_eq!(print(&grant, &name), Ok(text));
            }
        }
    }
}
