//! Ids inside one index.

/// A series of one database in one partition: its place in the dictionary, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u32);

/// A field of one measurement in one partition. Name and type together make a field: a name that changed its type
/// after all its points were deleted is another field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub u32);
