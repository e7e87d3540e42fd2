//! Tables of TOML, read key by key: a key that nobody asked for is refused.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::{amount, error::Fault, models::Placed};

/// A table whose keys are asked for one by one.
pub(super) struct Keys<'t, 'i> {
    /// What it is in messages.
    what: &'static str,
    table: &'t DeTable<'i>,
    pub(super) span: Range<usize>,
    known: Vec<&'static str>,
}

/// The value of a key.
#[derive(Clone)]
pub(super) struct Value<'t, 'i> {
    key: &'t str,
    pub(super) span: Range<usize>,
    toml: &'t DeValue<'i>,
}

impl<'t, 'i> Keys<'t, 'i> {
    pub(super) fn new(what: &'static str, table: &'t DeTable<'i>, span: Range<usize>) -> Self {
        Self { what, table, span, known: Vec::new() }
    }

    /// The value of a key, if the table has it.
    pub(super) fn maybe(&mut self, key: &'static str) -> Option<Value<'t, 'i>> {
        self.known.push(key);
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value { key: name.get_ref(), span: value.span(), toml: value.get_ref() })
    }

    /// The value of a key that the table must have.
    pub(super) fn value(&mut self, key: &'static str) -> Result<Value<'t, 'i>, Placed> {
        let missing = (Fault::new(format!("is missing from {}", self.what), "add it").column(key), self.span.clone());
        self.maybe(key).ok_or(missing)
    }

    /// What `read` makes of a value, if the table has it.
    pub(super) fn read<T>(&mut self, key: &'static str, read: impl FnOnce(&str) -> Result<T, Fault>) -> Result<Option<T>, Placed> {
        self.maybe(key).map(|value| value.read(read)).transpose()
    }

    /// A yes or no; no if the table lacks it.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, Placed> {
        Ok(self.maybe(key).map(|value| value.flag()).transpose()?.unwrap_or(false))
    }

    /// A list of names; empty if the table lacks it.
    pub(super) fn names(&mut self, key: &'static str) -> Result<Vec<Value<'t, 'i>>, Placed> {
        let all = self.maybe(key).map(|value| value.list()).transpose()?.unwrap_or_default();
        all.iter().try_for_each(|one| one.read(|text| amount::name(text).map(drop)))?;
        Ok(all)
    }

    /// A list of tables, `[[key]]`; empty if the table lacks it.
    pub(super) fn tables(&mut self, key: &'static str, what: &'static str) -> Result<Vec<Keys<'t, 'i>>, Placed> {
        let all = self.maybe(key).map(|value| value.list()).transpose()?.unwrap_or_default();
        all.into_iter().map(|one| one.table(what)).collect()
    }

    /// The keys that begin with `prefix`, which are not to be asked for by name.
    pub(super) fn beginning(&self, prefix: &'static str) -> Vec<Value<'t, 'i>> {
        let all = self.table.iter().filter(|(name, _)| name.get_ref().starts_with(prefix));
        all.map(|(name, value)| Value { key: name.get_ref(), span: value.span(), toml: value.get_ref() }).collect()
    }

    /// Refuses keys that were not asked for, but for those that begin with one of `prefixes`.
    pub(super) fn finish(self, prefixes: &[&str]) -> Result<(), Placed> {
        let known = |name: &str| self.known.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix));
        let unknown = self.table.iter().filter(|(name, _)| !known(name.get_ref())).min_by_key(|(name, _)| name.span().start);
        match unknown {
            Some((name, _)) => {
                let remedy = format!("known are {}", self.known.iter().chain(prefixes).copied().collect::<Vec<_>>().join(", "));
                Err((Fault::new(format!("is no key of {}", self.what), remedy).value(name.get_ref()), name.span()))
            }
            None => Ok(()),
        }
    }
}

impl<'t, 'i> Value<'t, 'i> {
    /// The name of the key.
    pub(super) fn key(&self) -> &'t str {
        self.key
    }

    /// What TOML says it is.
    pub(super) fn toml(&self) -> &'t DeValue<'i> {
        self.toml
    }

    /// A fault of this value.
    pub(super) fn blame(&self, fault: Fault) -> Placed {
        (fault.column(self.key), self.span.clone())
    }

    fn wrong(&self, expected: &str) -> Placed {
        self.blame(Fault::new(format!("is {}", article(self.toml.type_str())), format!("write {expected}")))
    }

    /// Text, or a number as it is written.
    pub(super) fn text(&self) -> Result<&'t str, Placed> {
        match self.toml {
            DeValue::String(text) => Ok(text.as_ref()),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str()),
            DeValue::Float(number) => Ok(number.as_str()),
            _ => Err(self.wrong("a text or a plain number")),
        }
    }

    /// What `read` makes of the text.
    pub(super) fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, Fault>) -> Result<T, Placed> {
        read(self.text()?).map_err(|fault| self.blame(fault))
    }

    fn flag(&self) -> Result<bool, Placed> {
        self.toml.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// The values of a list, each under the key of the list.
    pub(super) fn list(&self) -> Result<Vec<Self>, Placed> {
        let list = self.toml.as_array().ok_or_else(|| self.wrong("a list"))?;
        Ok(list.iter().map(|one| Value { key: self.key, span: one.span(), toml: one.get_ref() }).collect())
    }

    /// A table, called `what` in messages.
    pub(super) fn table(&self, what: &'static str) -> Result<Keys<'t, 'i>, Placed> {
        let table = self.toml.as_table().ok_or_else(|| self.wrong("a table"))?;
        Ok(Keys::new(what, table, self.span.clone()))
    }

    /// One table, or a list of tables.
    pub(super) fn one_or_more(&self, what: &'static str) -> Result<Vec<Keys<'t, 'i>>, Placed> {
        if self.toml.is_table() { Ok(vec![self.table(what)?]) } else { self.list()?.into_iter().map(|one| one.table(what)).collect() }
    }

    /// The keys of a table with their values.
    pub(super) fn entries(&self) -> Result<Vec<Self>, Placed> {
        let table = self.toml.as_table().ok_or_else(|| self.wrong("a table"))?;
        Ok(table.iter().map(|(name, value)| Value { key: name.get_ref(), span: value.span(), toml: value.get_ref() }).collect())
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}
