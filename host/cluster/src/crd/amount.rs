//! Amounts of resources in our own objects.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::quantity::{Quantity, QuantityError};

/// An amount, as written: `4`, `"500m"` or `40Gi`. Never negative.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount(pub String);

/// Amounts by name of the resource.
pub type AmountList = BTreeMap<String, Amount>;

impl Amount {
    /// The amount.
    ///
    /// # Errors
    /// If it is no quantity, which the schema refuses.
    pub fn quantity(&self) -> Result<Quantity, QuantityError> {
        Quantity::parse(&self.0)
    }
}

impl From<Quantity> for Amount {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount, such as 4 or \"40Gi\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                Ok(Amount(text.into()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// What a written amount looks like; what a pattern lets pass, [`Quantity::parse`] reads unless it is beyond all bounds.
const PATTERN: &str = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$";

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maxLength": 40,
            "pattern": PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_amounts() {
        let list: AmountList = serde_json::from_str(r#"{"cpu": 4, "memory": "40Gi"}"#).unwrap();
        assert_eq!(list["cpu"].quantity(), Ok(Quantity::units(4)));
        assert_eq!(list["memory"].quantity(), Ok(Quantity::units(40 << 30)));
        assert!(serde_json::from_str::<Amount>("[]").unwrap_err().to_string().contains("such as 4"));
        assert_eq!(Amount::from(Quantity::units(3)).0, "3");
    }
}
