//! What every run of the tests plays.

mod scripts;
mod smoke;
