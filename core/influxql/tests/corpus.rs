//! Queries as people write them: each parses, and its exact text parses back to the same tree.

use tidemill_influxql::parse_query;

#[rustfmt::skip]
const QUERIES: &[&str] = &[
    "SELECT mean(v),count(v),sum(i) FROM n WHERE time>=0 AND time<100s GROUP BY time(20s)",
    "SELECT first(v),last(v),min(v),max(v) FROM n",
    "SELECT max(v) FROM n",
    "SELECT min(v), s FROM k",
    "SELECT percentile(v,50),percentile(v,100) FROM n",
    "SELECT percentile(v,0) FROM n",
    "SELECT median(v),mode(v),stddev(v),spread(v) FROM n",
    "SELECT stddev(v) FROM n WHERE time>=0 AND time<10s",
    "SELECT top(v,3) FROM k",
    "SELECT top(v,host,2) FROM k",
    "SELECT bottom(v,host,2),s FROM k",
    "SELECT top(v,1) FROM k WHERE time>=0 AND time<30s GROUP BY time(10s)",
    "SELECT derivative(v) FROM n",
    "SELECT derivative(v,10s) FROM n ORDER BY time DESC",
    "SELECT derivative(mean(v)) FROM n WHERE time>=20s AND time<70s GROUP BY time(10s)",
    "SELECT difference(v) FROM n",
    "SELECT difference(first(v)) FROM n WHERE time>=20s AND time<=40s GROUP BY time(10s)",
    "SELECT elapsed(v,1s) FROM n",
    "SELECT moving_average(v,3) FROM n",
    "SELECT moving_average(mean(v),2) FROM n WHERE time>=20s AND time<=40s GROUP BY time(10s)",
    "SELECT cumulative_sum(i) FROM n",
    "SELECT cumulative_sum(mean(v)) FROM n WHERE time>=20s AND time<=40s GROUP BY time(10s)",
    "SELECT integral(v) FROM n",
    "SELECT integral(v) FROM n WHERE time>=0 AND time<100s GROUP BY time(25s)",
    "SELECT distinct(s) FROM k",
    "SELECT distinct(v) FROM n WHERE time>=0 AND time<70s GROUP BY time(30s)",
    "SELECT mean(v),count(i) FROM n WHERE time>=50s AND time<110s GROUP BY time(10s)",
    "SELECT mean(v),derivative(mean(v)) FROM n WHERE time>=50s AND time<100s GROUP BY time(10s) fill(7)",
    "SELECT v,s FROM k,n fill(5) LIMIT 2",
    "SELECT v/i, v*2, -v, v+i AS z FROM n LIMIT 1",
    "SELECT i/2, i%2, i&3, i|8, i^1 FROM n LIMIT 2",
    "SELECT i/0, v/0, i%0 FROM n LIMIT 1",
    "SELECT mean(v)*2+1 FROM n",
    "SELECT * FROM k LIMIT 1",
    "SELECT count(*) FROM k",
    "SELECT mean(*) AS z FROM n",
    "SELECT v, v AS v, v FROM n LIMIT 1",
    "SELECT /v|s/ FROM k LIMIT 1",
    "SELECT mean(v) FROM k WHERE time>=0 AND time<40s GROUP BY time(20s), host",
    "SELECT v FROM k GROUP BY dc ORDER BY time DESC LIMIT 1",
    "SELECT v FROM n OFFSET 2",
    "SELECT v FROM k GROUP BY host SLIMIT 1 SOFFSET 1",
    "SELECT v FROM k GROUP BY nosuch",
    "SELECT max(mean) FROM (SELECT mean(v) FROM k GROUP BY host)",
    "SELECT * FROM (SELECT mean(v) FROM k GROUP BY host)",
    "SELECT * FROM (SELECT first(v), last(s) FROM k GROUP BY host)",
    "SELECT * FROM (SELECT v AS z FROM n),(SELECT v FROM k) LIMIT 3",
    "SELECT first FROM (SELECT first(v) FROM k GROUP BY host)",
    "SELECT max(v),i FROM n WHERE time>=0 AND time<60s GROUP BY time(30s)",
    "SELECT mean(zzz), mean(v) FROM n",
    "SELECT v, zzz FROM n LIMIT 1",
    "SELECT count(v) FROM n WHERE time>1000s AND time<1100s GROUP BY time(50s)",
    "SELECT exponential_moving_average(v,2) FROM n",
    "SELECT holt_winters(mean(v),3,0) FROM n WHERE time>=0 AND time<100s GROUP BY time(10s)",
    "SHOW SERIES FROM k WHERE host='a'",
    "SHOW TAG VALUES WITH KEY IN (host,dc) LIMIT 2",
    "SHOW TAG VALUES CARDINALITY WITH KEY = host",
    "SHOW SERIES CARDINALITY",
    "SHOW SERIES EXACT CARDINALITY",
    "SHOW MEASUREMENT EXACT CARDINALITY",
    "SHOW TAG KEY CARDINALITY",
    "SHOW FIELD KEY CARDINALITY",
];

#[test]
fn the_corpus_parses_and_prints() {
    for text in QUERIES {
        let query = parse_query(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(parse_query(&format!("{query:#}")), Ok(query), "{text}");
    }
}
