//! Conditions on labels, looked up once. The rules are those of Kubernetes' `labels.Requirement`.

use std::borrow::Borrow;

use crate::model::constraints::{Operator, Requirement};

/// The longest value of a label, bytes.
const VALUE_MAX: usize = 63;

/// What the value of one label must be. `T` is how values are written: as numbers of words for nodes, as they are for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test<T> {
    Exists,
    Missing,
    /// One of these, sorted.
    In(Vec<T>),
    /// None of these, sorted.
    NotIn(Vec<T>),
    Above(i64),
    Below(i64),
}

impl<T: Ord> Test<T> {
    /// None if the requirement is one that nothing meets: no values where there must be some or the other way round, a bound that is no
    /// number, a value that no label can have. Kubernetes holds a term with such a requirement, whatever its operator, for one that
    /// matches nothing.
    pub(super) fn of(requirement: &Requirement, mut word: impl FnMut(&str) -> T) -> Option<Self> {
        let values = &requirement.values;
        if !values.iter().all(|value| is_value(value)) {
            return None;
        }
        let bound = || if let [value] = values.as_slice() { value.parse().ok() } else { None };
        let none = values.is_empty();
        let mut sorted = || {
            let mut words: Vec<T> = values.iter().map(|value| word(value)).collect();
            words.sort_unstable();
            words.dedup();
            words
        };
        match requirement.operator {
            Operator::In => (!none).then(|| Self::In(sorted())),
            Operator::NotIn => (!none).then(|| Self::NotIn(sorted())),
            Operator::Exists => none.then_some(Self::Exists),
            Operator::DoesNotExist => none.then_some(Self::Missing),
            Operator::Gt => bound().map(Self::Above),
            Operator::Lt => bound().map(Self::Below),
        }
    }

    /// Whether a label with this value, or none, meets it; `number` reads a value as a whole number.
    pub(super) fn holds<V>(&self, value: Option<&V>, number: impl FnOnce(&V) -> Option<i64>) -> bool
    where
        T: Borrow<V>,
        V: Ord + ?Sized,
    {
        let among = |some: &[T], value: &V| some.binary_search_by(|one| one.borrow().cmp(value)).is_ok();
        match self {
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
            Self::In(some) => value.is_some_and(|value| among(some, value)),
            Self::NotIn(some) => value.is_none_or(|value| !among(some, value)),
            Self::Above(bound) => value.and_then(number).is_some_and(|number| number > *bound),
            Self::Below(bound) => value.and_then(number).is_some_and(|number| number < *bound),
        }
    }
}

/// Whether a label can have this value: letters, digits, `-`, `_` and `.`, with a letter or digit at both ends; or nothing at all.
fn is_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= VALUE_MAX && bytes.iter().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(operator: Operator, values: &[&str], value: Option<&str>) -> Option<bool> {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        let test = Test::of(&Requirement { key: "key".into(), operator, values }, str::to_owned)?;
        Some(test.holds(value, |value| value.parse().ok()))
    }

    #[test]
    fn every_operator_means_what_it_does_in_kubernetes() {
        use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
        let table: &[(Operator, &[&str], Option<&str>, bool)] = &[
            (In, &["a", "b"], Some("b"), true),
            (In, &["a", "b"], Some("c"), false),
            (In, &["a"], None, false),
            (In, &[""], Some(""), true),
            (In, &[""], None, false),
            (NotIn, &["a", "b"], Some("c"), true),
            (NotIn, &["a", "b"], Some("a"), false),
            (NotIn, &["a"], None, true),
            (Exists, &[], Some(""), true),
            (Exists, &[], None, false),
            (DoesNotExist, &[], None, true),
            (DoesNotExist, &[], Some("a"), false),
            (Gt, &["4"], Some("5"), true),
            (Gt, &["4"], Some("4"), false),
            (Gt, &["4"], Some("10"), true),
            (Gt, &["4"], Some("007"), true),
            (Gt, &["4"], Some("five"), false),
            (Gt, &["4"], Some("99999999999999999999"), false),
            (Gt, &["4"], None, false),
            (Lt, &["4"], Some("3"), true),
            (Lt, &["4"], Some("4"), false),
            (Lt, &["10"], Some("9"), true),
            (Lt, &["4"], None, false),
        ];
        for &(operator, values, value, expected) in table {
            assert_eq!(holds(operator, values, value), Some(expected), "{value:?} {operator:?} {values:?}");
        }
    }

    #[test]
    fn requirements_that_kubernetes_cannot_read_are_told_apart() {
        use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
        let long = "x".repeat(64);
        let wrong: &[(Operator, &[&str])] = &[
            (In, &[]),
            (NotIn, &[]),
            (Exists, &["a"]),
            (DoesNotExist, &["a"]),
            (Gt, &[]),
            (Gt, &["1", "2"]),
            (Gt, &["1.5"]),
            (Lt, &["-5"]),
            (Lt, &["99999999999999999999"]),
            (In, &["no space"]),
            (NotIn, &["-a"]),
            (In, &[&long]),
        ];
        for &(operator, values) in wrong {
            assert_eq!(holds(operator, values, Some("a")), None, "{operator:?} {values:?}");
        }
    }
}
