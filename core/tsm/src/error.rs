//! Why a value or a block cannot be encoded or decoded.

use tidemill_column::FieldType;

/// Most points that one block may hold, and so the most that any decoder of this crate yields from one input.
///
/// Blocks hold 1000 points by default; old upstream files reach 65535. Run lengths in a block are chosen by whoever
/// wrote the file: eleven bytes can claim 2^64 points, so every count is held against this limit before it is believed.
pub const BLOCK_POINTS_MAX: usize = 65_535;

/// Points of a full block, unless the caller decides otherwise (upstream's snapshots and compactions use the same).
pub const BLOCK_POINTS_DEFAULT: usize = 1000;

const _: () = assert!(BLOCK_POINTS_DEFAULT <= BLOCK_POINTS_MAX);

/// Most bytes that one byte of a snappy block can become: a three-byte copy yields 64 bytes, rounded up.
pub(crate) const SNAPPY_EXPANSION_MAX: usize = 22;

/// The bytes of a block are not what the format allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the {part} end in the middle of a value")]
    Truncated { part: &'static str },
    #[error("the {part} name the unknown encoding {code:#04x}")]
    Encoding { part: &'static str, code: u8 },
    #[error("the {part} claim {claimed} points, more than {BLOCK_POINTS_MAX}")]
    TooManyPoints { part: &'static str, claimed: u64 },
    #[error("a float window of {leading} leading zeros and {significant} significant bits exceeds 64 bits")]
    FloatWindow { leading: u32, significant: u32 },
    #[error("floats scaled by 10^{exponent}, which no double holds exactly")]
    FloatScale { exponent: i32 },
    #[error("the {part} claim words of {width} bits")]
    BitWidth { part: &'static str, width: u32 },
    #[error("row {row} of the floats that stand aside is out of order or past the end")]
    ExceptionRow { row: usize },
    #[error("bytes follow the end of the {part}")]
    Trailing { part: &'static str },
    #[error("the string part is not a snappy block")]
    Snappy,
    #[error("the string part claims {claimed} bytes, more than {held} bytes can hold")]
    SnappyLength { claimed: u64, held: usize },
    #[error("a column of strings would exceed 4 GiB")]
    StringsTooLarge,
    #[error("the block holds no point")]
    Empty,
    #[error("the block has the unknown type {code}")]
    BlockType { code: u8 },
    #[error("the block holds {found} values where {expected} values were expected")]
    FieldType { expected: FieldType, found: FieldType },
    #[error("the block holds {times} times but {values} values")]
    CountMismatch { times: usize, values: usize },
    #[error("time {row} of the block does not exceed the one before it")]
    NotAscending { row: usize },
}

/// The values cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// NaN ends a float stream and so is no value (`tsm-format`, section 2.4).
    #[error("unsupported value: NaN (row {row})")]
    NotANumber { row: usize },
    #[error("the strings of one block take {bytes} bytes, more than snappy can hold")]
    StringsTooLarge { bytes: usize },
}
