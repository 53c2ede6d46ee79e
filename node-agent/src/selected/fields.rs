//! Some fields of an object. The others are passed over as they are read: not kept, and not decoded.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Which ones.
pub trait Names {
    /// Their names.
    const NAMES: &'static [&'static str];
}

/// What of a spec says whom an Egg is for, and whether it denies.
#[derive(Clone, Debug, Default)]
pub struct Spec;

impl Names for Spec {
    const NAMES: &'static [&'static str] = &["podSelector", "namespaceSelector", "mode"];
}

/// What of a status says whether an Egg was accepted.
#[derive(Clone, Debug, Default)]
pub struct Status;

impl Names for Status {
    const NAMES: &'static [&'static str] = &["conditions", "inForceGeneration"];
}

/// These fields, as they are written. What is no object has none: nothing here is an error, as one object that cannot be read would
/// else be the end of all others' list.
#[derive(Clone, Debug, Default)]
pub struct Fields<N> {
    values: Map<String, Value>,
    names: PhantomData<N>,
}

impl<N: Names> Fields<N> {
    /// What a field says; null if it is not there.
    pub fn get(&self, name: &str) -> &Value {
        debug_assert!(N::NAMES.contains(&name));
        self.values.get(name).unwrap_or(&Value::Null)
    }
}

impl<'de, N: Names> Deserialize<'de> for Fields<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = deserializer.deserialize_any(Reader(PhantomData::<N>))?;
        Ok(Fields { values, names: PhantomData })
    }
}

struct Reader<N>(PhantomData<N>);

macro_rules! nothing_of {
    ($($visit:ident($type:ty)),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self::Value, E> { Ok(Map::new()) })*
    };
}

impl<'de, N: Names> Visitor<'de> for Reader<N> {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if N::NAMES.contains(&name.as_str()) {
                values.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(values)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Map::new())
    }

    nothing_of!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Map::new())
    }
}
