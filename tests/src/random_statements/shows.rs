//! Statements about what there is.

use super::one;
use tidemill_perf::random::Sequence;

/// Statements about what there is, asked after every change.
pub const SHOWS: [&str; 6] = [
    "SHOW MEASUREMENTS",
    "SHOW SERIES",
    "SHOW TAG KEYS",
    "SHOW TAG VALUES WITH KEY IN (host, region)",
    "SHOW FIELD KEYS",
    "SHOW SERIES FROM m WHERE host =~ /[ab]/",
];

/// A statement about what there is.
pub fn show(random: &mut Sequence) -> String {
    let from = one(random, &["", "", " FROM m", " FROM k", " FROM /m|k/", " FROM nosuch"]);
    let condition = one(
        random,
        &[
            "",
            "",
            " WHERE host = 'a'",
            " WHERE host != 'a'",
            " WHERE host =~ /[ab]/",
            " WHERE host !~ /a|b/",
            " WHERE region = ''",
            " WHERE region != '' AND host = 'b'",
            " WHERE host = 'a' OR region = 'x'",
            " WHERE nosuch = ''",
            " WHERE nosuch = 'a'",
        ],
    );
    let limit = one(random, &["", "", "", " LIMIT 2", " LIMIT 1 OFFSET 1", " LIMIT 3 OFFSET 2"]);
    let key = one(random, &["= host", "!= host", "=~ /o/", "IN (host, region)", "= nosuch"]);
    match random.below(7) {
        0 => {
            let with = one(random, &["", " WITH MEASUREMENT = m", " WITH MEASUREMENT =~ /k|m/"]);
            format!("SHOW MEASUREMENTS{with}{condition}{limit}")
        }
        1 => format!("SHOW SERIES{from}{condition}"),
        2 => format!("SHOW TAG KEYS{from}{condition}{limit}"),
        3 => format!("SHOW FIELD KEYS{from}{limit}"),
        4 => format!("SHOW TAG KEY CARDINALITY{from}"),
        _ => format!("SHOW TAG VALUES{from} WITH KEY {key}{condition}{limit}"),
    }
}
