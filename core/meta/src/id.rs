//! Ids that the metadata hands out. They are never used twice, also not after a drop.

use rkyv::{Archive, Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize,
        )]
        #[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A database.
    DatabaseId(u32)
);
id!(
    /// A retention policy of any database.
    PolicyId(u32)
);
id!(
    /// A shard group; with one shard a group, also the shard's id in SHOW SHARDS.
    ShardGroupId(u64)
);
id!(
    /// A continuous query.
    ContinuousQueryId(u64)
);
