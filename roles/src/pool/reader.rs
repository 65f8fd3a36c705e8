//! Blocks of files that are in the pool.
