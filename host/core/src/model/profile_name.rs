//! Names of MIG profiles: what people and drivers write, and the one form that partita compares.
//!
//! NVIDIA's tools write `1g.10gb+me`; its device plugin, whose resource names cannot hold a plus, writes `nvidia.com/mig-1g.10gb.me`.
//! Both are one profile here. What a name cannot tell is which names mean the same partition on different drivers (`7g.79gb` and
//! `7g.80gb` of an A100): such names are aliases in the table of the model.

use std::{cmp::Ordering, fmt, str::FromStr};

use thiserror::Error;

use super::{Grid, Profile};

/// The longest name that is read at all. The longest known, a resource name with `me.all`, has 30 bytes.
pub const NAME_MAX: usize = 48;

/// The vendor's part of an extended resource.
const VENDOR: &str = "nvidia.com/";
/// What marks the resource as a MIG partition.
const PREFIX: &str = "mig-";

/// What sets a profile apart from the plain one of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// The plain profile.
    Plain,
    /// `-me`: without media engines.
    NoMedia,
    /// `+gfx`: with graphics.
    Graphics,
    /// `+me`: with the media engines of which a GPU has one set.
    Media,
    /// `+me.all`: with all media engines of the GPU.
    AllMedia,
}

impl Variant {
    const ALL: [(Self, &'static str); 5] =
        [(Self::Plain, ""), (Self::NoMedia, "-me"), (Self::Graphics, "+gfx"), (Self::Media, "+me"), (Self::AllMedia, "+me.all")];

    /// As NVIDIA's tools write it, after the size.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::NoMedia => "-me",
            Self::Graphics => "+gfx",
            Self::Media => "+me",
            Self::AllMedia => "+me.all",
        }
    }

    /// Whether a GPU can have one such partition only.
    #[must_use]
    pub fn once(self) -> bool {
        matches!(self, Self::Media | Self::AllMedia)
    }
}

/// A profile's name, taken apart. The order is that of size: memory, then compute slices, then variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProfileName {
    /// Compute slices: the number before `g`.
    pub compute: u8,
    /// The memory in the name, rounded by NVIDIA as it likes: a label, not an amount.
    pub gb: u16,
    /// What sets it apart from the plain profile.
    pub variant: Variant,
}

/// Why a text is not the name of a profile, or not of one that a GPU has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Empty or too long.
    #[error("a profile's name has 1 to {NAME_MAX} characters, this one has {0}; write it like 1g.10gb")]
    Length(usize),
    /// Letters are lower case and there are no spaces.
    #[error("profile {0:?} holds {1:?}; names are lower case without spaces, like 1g.10gb+me")]
    Character(String, char),
    /// Another resource than a MIG partition.
    #[error("{0:?} is not a MIG resource; those are named {VENDOR}{PREFIX}1g.10gb")]
    Resource(String),
    /// A compute instance inside a partition.
    #[error("profile {0:?} names a compute instance inside a partition, which partita does not cut; leave out the part before the g")]
    ComputeInstance(String),
    /// Not of the form `<slices>g.<memory>gb`.
    #[error("profile {0:?} is not of the form <slices>g.<memory>gb, like 1g.10gb")]
    Form(String),
    /// Something unknown after the size.
    #[error("profile {0:?} ends in {1:?}; known endings are +me, +me.all, -me and +gfx")]
    Variant(String, String),
    /// A good name, but the model has no such profile.
    #[error("there is no profile {asked} on this model; it has {has}")]
    NotOnModel {
        /// The name asked for, in its one form.
        asked: String,
        /// The names that the model has.
        has: String,
    },
}

impl ProfileName {
    /// Reads a name as people, drivers or the device plugin write it: `1g.10gb`, `mig-1g.10gb`, `nvidia.com/mig-1g.10gb.me`,
    /// `1g.10gb+me`.
    ///
    /// # Errors
    /// A [`NameError`] that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > NAME_MAX {
            return Err(NameError::Length(text.chars().count()));
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | '/');
        if let Some(wrong) = text.chars().find(|&c| !plain(c)) {
            return Err(NameError::Character(text.into(), wrong));
        }
        let bare = match text.strip_prefix(VENDOR) {
            Some(resource) => resource.strip_prefix(PREFIX).ok_or_else(|| NameError::Resource(text.into()))?,
            None if text.contains('/') => return Err(NameError::Resource(text.into())),
            None => text.strip_prefix(PREFIX).unwrap_or(text),
        };
        let form = || NameError::Form(text.into());
        let (compute, rest) = number(bare).ok_or_else(form)?;
        if rest.starts_with("c.") {
            return Err(NameError::ComputeInstance(text.into()));
        }
        let (gb, suffix) = rest.strip_prefix("g.").and_then(number).ok_or_else(form)?;
        let suffix = suffix.strip_prefix("gb").ok_or_else(form)?;
        let (compute, gb) = (u8::try_from(compute).map_err(|_| form())?, u16::try_from(gb).map_err(|_| form())?);
        if compute == 0 {
            return Err(form());
        }
        // A dot stands for the plus that resource names cannot hold.
        let same = |known: &str| suffix == known || (known.starts_with('+') && suffix.strip_prefix('.') == known.strip_prefix('+'));
        let variant = Variant::ALL.into_iter().find(|(_, known)| same(known));
        let (variant, _) = variant.ok_or_else(|| NameError::Variant(text.into(), suffix.into()))?;
        Ok(Self { compute, gb, variant })
    }

    /// The extended resource under which the kubelet counts such partitions: `nvidia.com/mig-1g.10gb.me`.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("{VENDOR}{PREFIX}{}", self.to_string().replace('+', "."))
    }
}

/// A number without leading zeros and of at most four digits, and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(digits);
    let canonical = (1..=4).contains(&digits.len()) && (digits == "0" || !digits.starts_with('0'));
    if canonical { Some((digits.parse().ok()?, rest)) } else { None }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}g.{}gb{}", self.compute, self.gb, self.variant.suffix())
    }
}

impl FromStr for ProfileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl Ord for ProfileName {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.gb, self.compute, self.variant).cmp(&(other.gb, other.compute, other.variant))
    }
}

impl PartialOrd for ProfileName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The form in which names are compared: NVIDIA's, or the text itself where it is none of NVIDIA's names. A node's driver may know
/// profiles that partita does not; they are matched letter by letter.
#[must_use]
pub(super) fn normal(text: &str) -> String {
    ProfileName::parse(text).map_or_else(|_| text.to_owned(), |name| name.to_string())
}

impl Profile {
    /// What the name says sets it apart from the plain profile; plain where the name is not NVIDIA's.
    #[must_use]
    pub fn variant(&self) -> Variant {
        // The checker of placements asks often: names that cannot be a variant are not read.
        if self.name.ends_with("gb") { Variant::Plain } else { ProfileName::parse(&self.name).map_or(Variant::Plain, |name| name.variant) }
    }

    /// Every name it answers to, its own first, in the form in which names are compared.
    pub fn names(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.name).chain(&self.aliases).map(|name| normal(name))
    }
}

impl Grid {
    /// The row of the profile that `asked` names, in any of its spellings and aliases.
    ///
    /// # Errors
    /// What is wrong with the name, or that this model has no such profile.
    pub fn resolve(&self, asked: &str) -> Result<u8, NameError> {
        let wanted = normal(asked);
        if let Some(row) = self.profiles.iter().position(|profile| profile.names().any(|name| name == wanted)) {
            return Ok(row as u8);
        }
        let has: Vec<&str> = self.profiles.iter().map(|profile| profile.name.as_str()).collect();
        ProfileName::parse(asked).and(Err(NameError::NotOnModel { asked: wanted, has: has.join(", ") }))
    }
}
