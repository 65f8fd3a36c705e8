//! The five field types and one value of any of them.

use rkyv::{Archive, Deserialize, Serialize};
/// Type of a field. The discriminants are the block type bytes of the TSM format (`tsm-format`, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum FieldType {
    Float = 0,
    Integer = 1,
    Boolean = 2,
    String = 3,
    Unsigned = 4,
}

impl FieldType {
    /// All types, in the order of their codes.
    pub const ALL: [FieldType; 5] =
        [FieldType::Float, FieldType::Integer, FieldType::Boolean, FieldType::String, FieldType::Unsigned];

    /// The type with this code, if there is one.
    pub fn from_code(code: u8) -> Option<FieldType> {
        FieldType::ALL.into_iter().find(|t| *t as u8 == code)
    }

    /// The code that files and log entries carry.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The name that SHOW FIELD KEYS and error texts use.
    pub fn name(self) -> &'static str {
        match self {
            FieldType::Float => "float",
            FieldType::Integer => "integer",
            FieldType::Boolean => "boolean",
            FieldType::String => "string",
            FieldType::Unsigned => "unsigned",
        }
    }
}

impl std::fmt::Display for FieldType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One field value. Strings are bytes: line protocol does not validate UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Float(f64),
    Integer(i64),
    Boolean(bool),
    String(Box<[u8]>),
    Unsigned(u64),
}

impl Value {
    pub fn field_type(&self) -> FieldType {
        match self {
            Value::Float(_) => FieldType::Float,
            Value::Integer(_) => FieldType::Integer,
            Value::Boolean(_) => FieldType::Boolean,
            Value::String(_) => FieldType::String,
            Value::Unsigned(_) => FieldType::Unsigned,
        }
    }
}
