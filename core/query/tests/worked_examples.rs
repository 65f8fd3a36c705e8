//! The worked examples of the language reference, as far as they are executed, and observed answers of upstream.

mod source;

use source::{Run, text, worked_example_source};

fn check(cases: &[(&str, &str)]) {
    let source = worked_example_source();
    for (query, expected) in cases {
        for run in [
            Run::default(),
            Run { partitions: 1, batch_rows: 1000, chunk_rows: 1000, ..Run::default() },
            Run { partitions: 5, batch_rows: 1, chunk_rows: 1, salt: 99, ..Run::default() },
        ] {
            let found = source.run(query, &run).map_or_else(|error| format!("error: {error}"), |answer| text(&answer));
            assert_eq!(found, *expected, "{query} with {run:?}");
        }
    }
}

#[test]
fn aggregates() {
    check(&[
        (
            "SELECT mean(v),count(v),sum(i) FROM n WHERE time>=0 AND time<100s GROUP BY time(20s)",
            "n mean,count,sum 0:2,2,4 20:3.5,2,7 40:7.5,2,15 60:7,1,7 80:10,1,10",
        ),
        ("SELECT first(v),last(v),min(v),max(v) FROM n", "n first,last,min,max 0:1,10,1,10"),
        ("SELECT max(v) FROM n", "n max 90:10"),
        ("SELECT max(v), max(v) FROM n", "n max,max_1 90:10,10"),
        ("SELECT max(v)*2 FROM n", "n max 90:20"),
        ("SELECT min(v), s FROM k", "k min,s 0:1,\"p\""),
        ("SELECT percentile(v,50),percentile(v,100) FROM n", "n percentile,percentile_1 0:5,10"),
        ("SELECT percentile(v,50) FROM n", "n percentile 30:5"),
        ("SELECT percentile(v,0) FROM n", ""),
        (
            "SELECT median(v),mode(v),stddev(v),spread(v) FROM n",
            "n median,mode,stddev,spread 0:6,7,3.1594529363709247,9",
        ),
        ("SELECT stddev(v) FROM n WHERE time>=0 AND time<10s", "n stddev 0:null"),
        (
            "SELECT stddev(v) FROM n WHERE time>=0 AND time<30s GROUP BY time(10s) FILL(none)",
            "n stddev 0:null 10:null 20:null",
        ),
        ("SELECT distinct(s) FROM k", "k distinct 0:\"p\" 0:\"q\" 0:\"r\""),
        ("SELECT DISTINCT s FROM k", "k distinct 0:\"p\" 0:\"q\" 0:\"r\""),
        ("SELECT count(distinct(s)) FROM k", "k count 0:3"),
        ("SELECT count(distinct(s)),mean(v) FROM k", "k count,mean 0:3,5.2"),
        (
            "SELECT distinct(v) FROM n WHERE time>=0 AND time<70s GROUP BY time(30s)",
            "n distinct 0:1 0:3 0:2 30:5 30:8 30:7 60:7",
        ),
        (
            "SELECT distinct(v) FROM n WHERE time>=0 AND time<70s GROUP BY time(30s) ORDER BY time DESC",
            "n distinct 60:7 30:5 30:8 30:7 0:1 0:3 0:2",
        ),
        ("SELECT count(*) FROM k", "k count_b,count_s,count_v 0:5,5,5"),
        ("SELECT mean(*) FROM k", "k mean_v 0:5.2"),
        ("SELECT mean(*) AS z FROM n", "n z_i,z_v 0:5.375,5.375"),
        ("SELECT mean(v)*2+1 FROM n", "n mean 0:11.75"),
        (
            "SELECT mean(v) FROM k WHERE time>=0 AND time<40s GROUP BY time(20s), host",
            "k{host=a} mean 0:2.5 20:null\nk{host=b} mean 0:9 20:6\nk{host=c} mean 0:null 20:6",
        ),
        ("SELECT mean(zzz), mean(v) FROM n", "n mean,mean_1 0:null,5.375"),
        ("SELECT mean(zzz) FROM n", ""),
        ("SELECT count(host) FROM k", ""),
        ("SELECT count(v) FROM n WHERE time>1000s AND time<1100s GROUP BY time(50s)", ""),
        ("SELECT max(v),i FROM n WHERE time>=0 AND time<60s GROUP BY time(30s)", "n max,i 0:3,3 30:8,8"),
        ("SELECT mode(s),first(s),last(s) FROM k", "k mode,first,last 0:\"q\",\"p\",\"q\""),
        ("SELECT first(b),last(b),min(b),max(b) FROM k", "k first,last,min,max 0:true,true,false,true"),
        ("SELECT first(v),mean(v) FROM n WHERE time >= 5s", "n first,mean 5:3,6"),
        (
            "SELECT mean(v) FROM n,k GROUP BY host ORDER BY time DESC",
            "n{host=} mean 0:5.375\nk{host=c} mean 0:6\nk{host=b} mean 0:7.5\nk{host=a} mean 0:2.5",
        ),
        (
            "SELECT mean(v) FROM n WHERE time >= 0 AND time < 100s GROUP BY time(20s) ORDER BY time DESC LIMIT 2",
            "n mean 80:10 60:7",
        ),
        (
            "SELECT mean(v) FROM k GROUP BY host,time(10s) LIMIT 1",
            "k{host=a} mean 0:1\nk{host=b} mean 0:9\nk{host=c} mean 20:6",
        ),
        ("SELECT max(v), i+1 FROM n", "n max,i 90:10,11"),
        ("SELECT first(v), s FROM n,k", "k first,s 0:1,\"p\"\nn first,s 0:1,null"),
        ("SELECT count(v::string) FROM n", ""),
    ]);
}

#[test]
fn rankings() {
    check(&[
        ("SELECT top(v,3) FROM k", "k top 5:9 27:6 27:6"),
        ("SELECT top(v,host,2) FROM k", "k top,host 5:9,\"b\" 27:6,\"c\""),
        ("SELECT bottom(v,host,2),s FROM k", "k bottom,host,s 0:1,\"a\",\"p\" 27:6,\"b\",\"p\""),
        ("SELECT top(v,1) FROM k WHERE time>=0 AND time<30s GROUP BY time(10s)", "k top 5:9 12:4 27:6"),
        ("SELECT top(v,2),i FROM n GROUP BY time(30s)", "n top,i 10:3,3 20:2,2 40:8,8 50:7,7 60:7,7 90:10,10"),
        ("SELECT top(v,3) FROM n ORDER BY time DESC", "n top 40:8 50:7 90:10"),
        ("SELECT top(v,2)*2 FROM k", "k top 5:18 27:12"),
    ]);
}

#[test]
fn fills() {
    let query =
        |fill: &str| format!("SELECT mean(v),count(i) FROM n WHERE time>=50s AND time<110s GROUP BY time(10s) {fill}");
    check(&[
        (&query(""), "n mean,count 50:7,1 60:7,1 70:null,0 80:null,0 90:10,1 100:null,0"),
        (&query("fill(3)"), "n mean,count 50:7,1 60:7,1 70:3,3 80:3,3 90:10,1 100:3,3"),
        (&query("fill(previous)"), "n mean,count 50:7,1 60:7,1 70:7,1 80:7,1 90:10,1 100:10,1"),
        (&query("fill(none)"), "n mean,count 50:7,1 60:7,1 90:10,1"),
        (
            "SELECT mean(v),sum(i) FROM n WHERE time>=50s AND time<110s GROUP BY time(10s) fill(linear)",
            "n mean,sum 50:7,7 60:7,7 70:8,8 80:9,9 90:10,10 100:null,null",
        ),
        ("SELECT v,s FROM k,n fill(5) LIMIT 2", "k v,s 0:1,\"p\" 5:9,\"q\"\nn v,s 0:1,5 10:3,5"),
        ("SELECT mean(v), mean(zzz) FROM n fill(7)", "n mean,mean_1 0:5.375,7"),
        (
            "SELECT mean(v), count(zzz) FROM n WHERE time>=0 AND time<30s GROUP BY time(10s) fill(7)",
            "n mean,count 0:1,7 10:3,7 20:2,7",
        ),
        (
            "SELECT count(s), mean(v) FROM k,n WHERE time>=0 AND time<30s GROUP BY time(10s)",
            "k count,mean 0:2,5 10:1,4 20:2,6\nn count,mean 0:null,1 10:null,3 20:null,2",
        ),
        (
            "SELECT max(v), i FROM n WHERE time>=50s AND time<100s GROUP BY time(10s) fill(previous)",
            "n max,i 50:7,7 60:7,7 70:7,7 80:7,7 90:10,10",
        ),
        (
            "SELECT max(v), i FROM n WHERE time>=50s AND time<100s GROUP BY time(10s)",
            "n max,i 50:7,7 60:7,7 70:null,null 80:null,null 90:10,10",
        ),
        (
            "SELECT count(distinct(v)) FROM n WHERE time>=50s AND time<100s GROUP BY time(10s)",
            "n count 50:1 60:1 70:0 80:0 90:1",
        ),
        ("SELECT max(v)+min(v) FROM n GROUP BY time(30s) fill(3) LIMIT 4", "n max_min 0:4 30:13 60:14 90:20"),
        ("SELECT max(v), count(s) FROM n GROUP BY time(30s) LIMIT 3", "n max,count 0:3,null 30:8,null 60:7,null"),
        ("SELECT sum(v) FROM n WHERE time >= 80s GROUP BY time(30s)", "n sum 60:null 90:10 120:null 150:null 180:null"),
        (
            "SELECT sum(v) FROM n WHERE time >= 80s GROUP BY time(60s) ORDER BY time DESC",
            "n sum 180:null 120:null 60:10",
        ),
    ]);
}

/// Extensions: none of these is an answer of upstream.
#[test]
fn other_orders_than_time() {
    check(&[
        ("SELECT v FROM k ORDER BY v DESC", "k v 5:9 27:6 27:6 12:4 0:1"),
        ("SELECT v, host FROM k ORDER BY v DESC, host DESC LIMIT 3", "k v,host 5:9,\"b\" 27:6,\"c\" 27:6,\"b\""),
        (
            "SELECT v FROM k GROUP BY host ORDER BY v DESC LIMIT 1",
            "k{host=a} v 12:4\nk{host=b} v 5:9\nk{host=c} v 27:6",
        ),
        ("SELECT sum(v) FROM n GROUP BY time(20s) ORDER BY sum(v) LIMIT 2", "n sum 0:4 20:7"),
        ("SELECT difference(v) FROM n ORDER BY difference DESC, time DESC LIMIT 2", "n difference 90:3 40:3"),
        ("SELECT max(v) FROM (SELECT v FROM n ORDER BY v LIMIT 3 OFFSET 1)", "n max 30:5"),
        ("SELECT v FROM n ORDER BY w", "error: ORDER BY w is not a column of the answer"),
        ("SELECT zzz FROM n ORDER BY zzz", ""),
    ]);
}

#[test]
fn tags_alone() {
    check(&[
        ("SELECT host FROM k", "k host 0:\"a\" 5:\"b\" 12:\"a\" 27:\"b\" 27:\"c\""),
        ("SELECT host FROM k, n WHERE v > 5", "k host 5:\"b\" 27:\"b\" 27:\"c\""),
        (
            "SELECT dc FROM k GROUP BY host ORDER BY time DESC LIMIT 1",
            "k{host=c} dc 27:\"y\"\nk{host=b} dc 27:\"y\"\nk{host=a} dc 12:\"y\"",
        ),
        ("SELECT host FROM (SELECT v, host FROM k)", "k host 0:\"a\" 5:\"b\" 12:\"a\" 27:\"b\" 27:\"c\""),
    ]);
}

#[test]
fn raw_selects() {
    check(&[
        ("SELECT v/i, v*2, -v, v+i AS z FROM n LIMIT 1", "n v_i,v,v_1,z 0:1,2,-1,2"),
        ("SELECT i/2, i%2, i&3, i|8, i^1 FROM n LIMIT 2", "n i,i_1,i_2,i_3,i_4 0:0.5,1,1,9,0 10:1.5,1,3,11,2"),
        ("SELECT i/0, v/0, i%0 FROM n LIMIT 1", "n i,v,i_1 0:0,0,0"),
        ("SELECT * FROM k LIMIT 1", "k b,dc,host,s,v 0:true,\"x\",\"a\",\"p\",1"),
        ("SELECT v, v AS v, v FROM n LIMIT 1", "n v_1,v,v_2 0:1,1,1"),
        ("SELECT /v|s/ FROM k LIMIT 1", "k host,s,v 0:\"a\",\"p\",1"),
        ("SELECT v FROM k GROUP BY dc ORDER BY time DESC LIMIT 1", "k{dc=y} v 27:6\nk{dc=x} v 5:9"),
        ("SELECT v FROM n LIMIT 3 OFFSET 2", "n v 20:2 30:5 40:8"),
        ("SELECT v FROM k GROUP BY host SLIMIT 1 SOFFSET 1", "k{host=b} v 5:9 27:6"),
        ("SELECT v FROM k GROUP BY host SOFFSET 1", ""),
        ("SELECT mean(v) FROM k GROUP BY host SLIMIT 1 SOFFSET 1", "k{host=b} mean 0:7.5"),
        ("SELECT mean(v) FROM k GROUP BY host SOFFSET 1", ""),
        ("SELECT v FROM k GROUP BY nosuch LIMIT 1", "k{nosuch=} v 0:1"),
        ("SELECT v, zzz FROM n LIMIT 1", "n v,zzz 0:1,null"),
        ("SELECT zzz FROM n", ""),
        ("SELECT host, zzz FROM k", ""),
        ("SELECT v FROM k,n ORDER BY time DESC LIMIT 1", "n v 90:10\nk v 27:6"),
        ("SELECT v FROM k ORDER BY time DESC", "k v 27:6 27:6 12:4 5:9 0:1"),
        ("SELECT v, host FROM k ORDER BY time DESC LIMIT 2", "k v,host 27:6,\"c\" 27:6,\"b\""),
        ("SELECT v, host FROM k WHERE time = 27s", "k v,host 27:6,\"b\" 27:6,\"c\""),
        // Of points that are equal in time and value the last series has the last one.
        ("SELECT last(v), host FROM k", "k last,host 27:6,\"c\""),
        ("SELECT first(v), host FROM k WHERE time = 27s", "k first,host 27:6,\"b\""),
        ("SELECT v::integer, i::float, v::string FROM n LIMIT 1", "n v,i,v_1 0:1,1,null"),
        (
            "SELECT * FROM k GROUP BY * LIMIT 1",
            "k{dc=x,host=a} b,s,v 0:true,\"p\",1\nk{dc=x,host=b} b,s,v 5:false,\"q\",9\n\
             k{dc=y,host=a} b,s,v 12:true,\"r\",4\nk{dc=y,host=b} b,s,v 27:true,\"p\",6\n\
             k{dc=y,host=c} b,s,v 27:false,\"q\",6",
        ),
        ("SELECT *::tag, v FROM k LIMIT 1", "k dc,host,v 0:\"x\",\"a\",1"),
        ("SELECT *::field FROM k LIMIT 1", "k b,s,v 0:true,\"p\",1"),
        ("SELECT time AS t, v FROM n LIMIT 1", "n v 0:1"),
        ("SELECT v FROM /^[kn]$/ LIMIT 1", "k v 0:1\nn v 0:1"),
        ("SELECT v FROM n WHERE time > '1970-01-01T00:00:50Z'", "n v 60:7 90:10"),
    ]);
}

#[test]
fn conditions() {
    check(&[
        ("SELECT v, i FROM n WHERE v = 3 OR host = '' LIMIT 2", "n v,i 0:1,1 10:3,3"),
        ("SELECT v FROM n WHERE time > 20s OR time < 40s", "n v 30:5"),
        ("SELECT s FROM k WHERE s > 'a'", ""),
        ("SELECT b FROM k WHERE b = true", "k b 0:true 12:true 27:true"),
        ("SELECT v FROM k WHERE true LIMIT 1", "k v 0:1"),
        ("SELECT v FROM n WHERE v > 3 = true LIMIT 1", "n v 30:5"),
        ("SELECT v FROM n WHERE host =~ /./ OR v = 1", "n v 0:1"),
        ("SELECT v FROM k WHERE host = dc", ""),
        ("SELECT v FROM k WHERE host = 'a' AND nosuch != 'q' LIMIT 1", "k v 0:1"),
        ("SELECT v FROM k WHERE nosuch > 5", ""),
        ("SELECT v FROM k WHERE v != s", ""),
        ("SELECT v FROM k WHERE host = 5", ""),
        ("SELECT v FROM k WHERE host != 5", ""),
        ("SELECT v FROM n WHERE -v < -7", "n v 40:8 90:10"),
        ("SELECT v FROM n WHERE v = 3 AND (i=3 OR i=4)", "n v 10:3"),
        ("SELECT v FROM k WHERE s != 'p'", "k v 5:9 12:4 27:6"),
        ("SELECT v FROM n WHERE i/2 = 1", "n v 10:3 20:2"),
        ("SELECT v FROM n WHERE v =~ /3/", ""),
        ("SELECT v FROM k WHERE 'a' = host LIMIT 1", "k v 0:1"),
        ("SELECT v FROM k WHERE host=~/a/ AND host::tag='a' AND v::field > 1", "k v 12:4"),
        ("SELECT v FROM k WHERE b::tag != ''", ""),
        ("SELECT s FROM k WHERE s =~ /p|q/ AND host != 'a'", "k s 5:\"q\" 27:\"p\" 27:\"q\""),
        ("SELECT mean(v) FROM k WHERE v > 100", ""),
        ("SELECT count(v) FROM k WHERE (host = 'a' AND v > 1) OR host = 'c'", "k count 0:2"),
        ("SELECT count(v) FROM k WHERE host =~ /^(a|c)$/", "k count 0:3"),
        ("SELECT v FROM /.*/ WHERE _name = 'n' LIMIT 1", "n v 0:1"),
    ]);
}

#[test]
fn errors() {
    let cases = [
        ("SELECT mean(v), v FROM k", "mixing aggregate and non-aggregate queries is not supported"),
        ("SELECT max(v),min(v),host FROM k", "mixing multiple selector functions with tags or fields is not supported"),
        ("SELECT max(v), mean(v), host FROM k", "mixing aggregate and non-aggregate queries is not supported"),
        ("SELECT time FROM n", "at least 1 non-time field must be queried"),
        ("SELECT 5 FROM n", "field must contain at least one variable"),
        ("SELECT mean(v), 5 FROM n", "field must contain at least one variable"),
        ("SELECT v+s FROM k", "type error: v::float + s::string: incompatible types: float and string"),
        ("SELECT v+host FROM k", "type error: v::float + host::tag: incompatible types: float and tag"),
        ("SELECT host+1 FROM k", "type error: host::tag + 1: incompatible types: tag and integer"),
        ("SELECT s + 'x' FROM k", "type error: s::string + 'x': incompatible types: string and string"),
        ("SELECT v & i FROM n", "type error: v::float & i::integer: incompatible types: float and integer"),
        ("SELECT v FROM n GROUP BY time(10s)", "GROUP BY requires at least one aggregate function"),
        ("SELECT foo(v) FROM n", "undefined function foo()"),
        ("SELECT mean(v,2) FROM n", "invalid number of arguments for mean, expected 1, got 2"),
        ("SELECT mean(5) FROM n", "expected field argument in mean()"),
        ("SELECT mean(sum(v)) FROM n", "expected field argument in mean()"),
        (
            "SELECT distinct(v),mean(v) FROM k",
            "aggregate function distinct() cannot be combined with other functions or fields",
        ),
        (
            "SELECT DISTINCT v, i FROM n",
            "aggregate function distinct() cannot be combined with other functions or fields",
        ),
        ("SELECT top(v,2),mean(v) FROM k", "selector function top() cannot be combined with other functions"),
        ("SELECT mean(s) FROM k", "unsupported mean iterator type: *query.stringInterruptIterator"),
        ("SELECT sum(b) FROM k", "unsupported sum iterator type: *query.booleanInterruptIterator"),
        ("SELECT percentile(v) FROM n", "invalid number of arguments for percentile, expected 2, got 1"),
        ("SELECT percentile(v,i) FROM n", "expected float argument in percentile()"),
        ("SELECT top(v) FROM n", "invalid number of arguments for top, expected at least 2, got 1"),
        ("SELECT top(v,host) FROM k", "expected integer as last argument in top(), found host"),
        ("SELECT top(v,0) FROM k", "limit (0) in top function must be at least 1"),
        (
            "SELECT top(v,3) FROM k LIMIT 2",
            "limit (3) in top function can not be larger than the LIMIT (2) in the select statement",
        ),
        ("SELECT top(v,1,2) FROM k", "only fields or tags are allowed in top(), found 1"),
        ("SELECT top(1,2) FROM k", "expected first argument to be a field in top(), found 1"),
        ("SELECT v FROM n WHERE v", "invalid condition expression: v"),
        ("SELECT v FROM n WHERE time != 5", "invalid time comparison operator: !="),
        ("SELECT v FROM n WHERE mean(v) > 3", "invalid function call in condition: mean(v)"),
        ("SELECT mean(v) FROM n GROUP BY time(10s), time(20s)", "multiple time dimensions not allowed"),
        ("SELECT v FROM n FILL(none)", "fill(none) must be used with a function"),
        ("SELECT v FROM n FILL(linear)", "fill(linear) must be used with a function"),
        ("SELECT mean(*)*2 FROM n", "unsupported expression with wildcard: mean()"),
        ("SELECT *+1 FROM n", "unable to use wildcard in a binary expression"),
        ("SELECT mean(*::tag) FROM n", "unable to use tag wildcard in mean()"),
        ("SELECT * FROM _series", "unable to use system source '_series': use SHOW SERIES instead"),
        ("SELECT v FROM n TZ('Mars/Base')", "unable to find time zone Mars/Base"),
    ];
    let source = worked_example_source();
    for (query, expected) in cases {
        let found = source.run(query, &Run::default()).map(|answer| text(&answer));
        assert_eq!(found, Err(expected.to_owned()), "{query}");
    }
}

#[test]
fn transformations() {
    check(&[
        ("SELECT derivative(v) FROM n", "n derivative 10:0.2 20:-0.1 30:0.3 40:0.3 50:-0.1 60:0 90:0.1"),
        ("SELECT derivative(v,10s) FROM n ORDER BY time DESC", "n derivative 60:-1 50:0 40:1 30:-3 20:-3 10:1 0:-2"),
        (
            "SELECT derivative(mean(v)) FROM n WHERE time>=20s AND time<70s GROUP BY time(10s)",
            "n derivative 20:-1 30:3 40:3 50:-1 60:0",
        ),
        ("SELECT difference(v) FROM n", "n difference 10:2 20:-1 30:3 40:3 50:-1 60:0 90:3"),
        ("SELECT non_negative_difference(v) FROM n", "n non_negative_difference 10:2 30:3 40:3 60:0 90:3"),
        (
            "SELECT difference(first(v)) FROM n WHERE time>=20s AND time<=40s GROUP BY time(10s)",
            "n difference 20:-1 30:3 40:3",
        ),
        ("SELECT elapsed(v,1s) FROM n", "n elapsed 10:10 20:10 30:10 40:10 50:10 60:10 90:30"),
        (
            "SELECT moving_average(v,3) FROM n",
            "n moving_average 20:2 30:3.3333333333333335 40:5 50:6.666666666666667 60:7.333333333333333 90:8",
        ),
        (
            "SELECT moving_average(mean(v),2) FROM n WHERE time>=20s AND time<=40s GROUP BY time(10s)",
            "n moving_average 20:2.5 30:3.5 40:6.5",
        ),
        ("SELECT cumulative_sum(i) FROM n", "n cumulative_sum 0:1 10:4 20:6 30:11 40:19 50:26 60:33 90:43"),
        (
            "SELECT cumulative_sum(mean(v)) FROM n WHERE time>=20s AND time<=40s GROUP BY time(10s)",
            "n cumulative_sum 20:2 30:7 40:15",
        ),
        (
            "SELECT mean(v),derivative(mean(v)) FROM n WHERE time>=50s AND time<100s GROUP BY time(10s) fill(7)",
            "n mean,derivative 50:7,-1 60:7,0 70:7,0 80:7,0 90:10,3",
        ),
        ("SELECT difference(v), cumulative_sum(i) FROM n LIMIT 2", "n difference,cumulative_sum 0:null,1 10:2,4"),
        ("SELECT difference(v)*2 + 1 FROM n LIMIT 2 OFFSET 1", "n difference 20:-1 30:7"),
        ("SELECT difference(v) FROM k GROUP BY host", "k{host=a} difference 12:3\nk{host=b} difference 27:-3"),
        ("SELECT difference(v) FROM k GROUP BY host SLIMIT 1 SOFFSET 1", "k{host=b} difference 27:-3"),
        ("SELECT difference(*) FROM n LIMIT 1", "n difference_i,difference_v 10:2,2"),
        ("SELECT difference(zzz) FROM n", ""),
    ]);
}

#[test]
fn areas_forecasts_and_technical_analysis() {
    check(&[
        ("SELECT integral(v) FROM n", "n integral 0:545"),
        ("SELECT integral(i,1m) FROM n", "n integral 0:9.083333333333332"),
        (
            "SELECT integral(v) FROM n WHERE time>=0 AND time<100s GROUP BY time(25s)",
            "n integral 0:58.75 25:161.25 50:186.25 75:138.75",
        ),
        (
            "SELECT integral(i) FROM n WHERE time>=0 AND time<100s GROUP BY time(25s)",
            "n integral 0:58.75 25:153.75 50:186.25 75:116.25",
        ),
        (
            "SELECT holt_winters(mean(v),3,0) FROM n WHERE time>=0 AND time<100s GROUP BY time(10s)",
            "n holt_winters 100:10.069697569921107 110:10.332523977619035 120:10.536390293720585",
        ),
        ("SELECT sample(v,100) FROM n", "n sample 0:1 10:3 20:2 30:5 40:8 50:7 60:7 90:10"),
        (
            "SELECT abs(difference(v)), round(v) FROM n",
            "error: mixing aggregate and non-aggregate queries is not supported",
        ),
        ("SELECT round(difference(v)/2) FROM n LIMIT 2", "n round 10:1 20:-1"),
        ("SELECT sqrt(v - 2) FROM n LIMIT 2", "n sqrt 0:null 10:1"),
        ("SELECT v FROM n WHERE abs(v - 5) < 1 OR pow(i, 2) = 100", "n v 30:5 90:10"),
        ("SELECT pow(i, 2), floor(v/2), ceil(mean) FROM n LIMIT 1", "n pow,floor,ceil 0:1,0,null"),
    ]);
}

/// The last digit hangs on the order in which a thousand steps are rounded.
#[test]
fn a_forecast_with_a_season() {
    let query = "SELECT holt_winters(mean(v),3,2) FROM n WHERE time>=0 AND time<100s GROUP BY time(10s)";
    let shown = text(&worked_example_source().run(query, &Run::default()).unwrap());
    assert!(shown.starts_with("n holt_winters 100:10.79571313379307"), "{shown}");
    assert!(shown.contains(" 110:11.2673286578982") && shown.contains(" 120:12.0283123806942"), "{shown}");
}

/// Values are compared to four digits, as the reference prints them.
#[test]
fn technical_analysis() {
    let source = worked_example_source();
    for (call, expected) in [
        ("exponential_moving_average(v,2)", vec![2.3333, 2.1111, 4.0370, 6.6790, 6.8930, 6.9643, 8.9881]),
        ("double_exponential_moving_average(v,2)", vec![2.7778, 2.1852, 4.7037, 7.7819, 7.3320, 7.1344, 9.7194]),
        ("triple_exponential_moving_average(v,2)", vec![2.9259, 2.1111, 4.8765, 7.9849, 7.1783, 6.9936, 9.8595]),
        ("triple_exponential_derivative(v,2)", vec![18.60, 52.29, 62.57, 25.34, 10.61, 18.24]),
        ("relative_strength_index(v,2)", vec![62.5, 88.4615, 95.1613, 68.6047, 68.6047, 92.7807]),
        ("chande_momentum_oscillator(v,3)", vec![33.33, 66.67, 71.43, 71.43, 50.0, 50.0]),
        ("kaufmans_efficiency_ratio(v,2)", vec![0.333, 0.5, 1.0, 0.5, 1.0, 1.0]),
        ("kaufmans_adaptive_moving_average(v,2)", vec![2.9297, 3.2064, 5.3369, 5.5592, 6.1995, 7.8886]),
    ] {
        let answer = source.run(&format!("SELECT {call} FROM n"), &Run::default()).unwrap();
        let shown = text(&answer);
        let found: Vec<f64> =
            shown.split(' ').skip(2).map(|row| row.split_once(':').unwrap().1.parse().unwrap()).collect();
        let close = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 6e-3);
        assert!(close, "{call}: {found:?} instead of {expected:?}");
    }
}

#[test]
fn what_streams_refuse() {
    for (query, error) in [
        (
            "SELECT derivative() FROM n",
            "invalid number of arguments for derivative, expected at least 1 but no more than 2, got 0",
        ),
        (
            "SELECT derivative(v, 2) FROM n",
            "second argument to derivative must be a duration, got *influxql.IntegerLiteral",
        ),
        ("SELECT elapsed(v, 0s) FROM n", "duration argument must be positive, got 0s"),
        ("SELECT integral(v, 2) FROM n", "second argument must be a duration"),
        ("SELECT derivative(mean(v)) FROM n", "derivative aggregate requires a GROUP BY interval"),
        ("SELECT derivative(v) FROM n GROUP BY time(1m)", "aggregate function required inside the call to derivative"),
        ("SELECT moving_average(v, 1) FROM n", "moving_average window must be greater than 1, got 1"),
        (
            "SELECT moving_average(v, 1.5) FROM n",
            "second argument for moving_average must be an integer, got *influxql.NumberLiteral",
        ),
        ("SELECT moving_average(v) FROM n", "invalid number of arguments for moving_average, expected 2, got 1"),
        ("SELECT sample(v, 0) FROM n", "sample window must be greater than 1, got 0"),
        ("SELECT sample(v, 'a') FROM n", "expected integer argument in sample()"),
        ("SELECT holt_winters(v, 1, 1) FROM n GROUP BY time(1m)", "must use aggregate function with holt_winters"),
        (
            "SELECT holt_winters(mean(v), 0, 1) FROM n GROUP BY time(1m)",
            "second arg to holt_winters must be greater than 0, got 0",
        ),
        (
            "SELECT holt_winters(mean(v), 1, -1) FROM n GROUP BY time(1m)",
            "third arg to holt_winters cannot be negative, got -1",
        ),
        (
            "SELECT exponential_moving_average(v, 0) FROM n",
            "exponential_moving_average period must be greater than or equal to 1",
        ),
        (
            "SELECT exponential_moving_average(v, 2, 1, 'none') FROM n",
            "exponential_moving_average warmup type must be one of: 'exponential' 'simple'",
        ),
        (
            "SELECT kaufmans_efficiency_ratio(v, 2, 1, 'simple') FROM n",
            "invalid number of arguments for kaufmans_efficiency_ratio, expected at least 2 but no more than 3, got 4",
        ),
        ("SELECT derivative(s) FROM k", "unsupported derivative iterator type: *query.stringInterruptIterator"),
        (
            "SELECT cumulative_sum(b) FROM k",
            "unsupported cumulative sum iterator type: *query.booleanInterruptIterator",
        ),
        ("SELECT sin() FROM n", "invalid number of arguments for sin, expected 1, got 0"),
        ("SELECT mean(sin(v)) FROM n", "expected field argument in mean()"),
        ("SELECT derivative(v), v FROM n", "mixing aggregate and non-aggregate queries is not supported"),
        ("SELECT foo(v) FROM n", "undefined function foo()"),
        ("SELECT v FROM n WHERE derivative(v) > 1", "invalid function call in condition: derivative(v)"),
        ("SELECT sin(s) + 1 FROM k", "type error: sin(s::string) + 1: incompatible types: string and integer"),
    ] {
        let found = worked_example_source().run(query, &Run::default()).map(|answer| text(&answer));
        assert_eq!(found, Err(error.to_owned()), "{query}");
    }
}

#[test]
fn subqueries() {
    check(&[
        ("SELECT max(mean) FROM (SELECT mean(v) FROM k GROUP BY host)", "k max 0:7.5"),
        ("SELECT * FROM (SELECT mean(v) FROM k GROUP BY host)", "k host,mean 0:\"a\",2.5 0:\"b\",7.5 0:\"c\",6"),
        (
            "SELECT * FROM (SELECT first(v), last(s) FROM k GROUP BY host)",
            "k first,host,last 0:1,\"a\",\"r\" 0:9,\"b\",\"p\" 0:6,\"c\",\"q\"",
        ),
        (
            "SELECT * FROM (SELECT v AS z FROM n),(SELECT v FROM k) LIMIT 3",
            "k v,z 0:1,null 5:9,null 12:4,null\nn v,z 0:null,1 10:null,3 20:null,2",
        ),
        ("SELECT first FROM (SELECT first(v) FROM k GROUP BY host)", "k first 0:1 5:9 27:6"),
        (
            "SELECT sum(mean) FROM (SELECT mean(v) FROM k) GROUP BY host",
            "k{host=a} sum 0:2.5\nk{host=b} sum 0:7.5\nk{host=c} sum 0:6",
        ),
        (
            "SELECT max(mean) FROM (SELECT mean(v) FROM n) WHERE time >= 0 AND time < 40s GROUP BY time(20s)",
            "n max 0:2 20:3.5",
        ),
        (
            "SELECT count(mean) FROM (SELECT mean(v) FROM n WHERE time >= 50s AND time < 100s GROUP BY time(10s))",
            "n count 0:3",
        ),
        (
            "SELECT count(mean) FROM (SELECT mean(v) FROM n WHERE time >= 50s AND time < 100s GROUP BY time(10s) fill(0))",
            "n count 0:5",
        ),
        ("SELECT mean FROM (SELECT mean(v) FROM k GROUP BY host) WHERE mean > 5", "k mean 0:7.5 0:6"),
        ("SELECT mean FROM (SELECT mean(v) FROM k GROUP BY host) WHERE host = 'b'", "k mean 0:7.5"),
        ("SELECT mean, host FROM (SELECT mean(v) FROM k) WHERE host = 'b'", ""),
        (
            "SELECT difference(mean) FROM (SELECT mean(v) FROM n WHERE time >= 0 AND time < 60s GROUP BY time(20s))",
            "n difference 20:1.5 40:4",
        ),
        ("SELECT max(d) FROM (SELECT difference(v) AS d FROM n) WHERE time < 40s", "n max 30:3"),
        ("SELECT v * 2 FROM (SELECT v FROM n) ORDER BY time DESC LIMIT 2", "n v 90:20 60:14"),
        ("SELECT max(v) FROM (SELECT v FROM n GROUP BY time(0s))", "n max 90:10"),
        ("SELECT sum(x) FROM (SELECT max(v) AS x FROM (SELECT v FROM k WHERE v > 1) GROUP BY host)", "k sum 0:19"),
        (
            "SELECT count(v), host FROM (SELECT v, host FROM k)",
            "error: mixing aggregate and non-aggregate queries is not supported",
        ),
        ("SELECT last(v), host FROM (SELECT v, host FROM k WHERE time < 20s)", "k last,host 12:4,\"a\""),
        (
            "SELECT mean FROM (SELECT mean(v) FROM n ORDER BY time DESC)",
            "error: subqueries must be ordered in the same direction as the query itself",
        ),
    ]);
}
