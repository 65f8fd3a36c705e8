//! The statements of the reference query files q, q1..q4, each with what its answer must be.

use crate::devices::GROUPS;

/// Which device groups a statement looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    All,
    One(u64),
    /// Groups whose name matches `[1-k][0-9]`.
    Tens(u64),
}

impl Groups {
    pub fn contains(self, group: u64) -> bool {
        match self {
            Groups::All => true,
            Groups::One(one) => group == one,
            // Group names are "0" to "99": only those with two digits match, by their first one.
            Groups::Tens(k) => (1..=k).contains(&(group / 10)) && group < GROUPS,
        }
    }

    fn condition(self) -> String {
        match self {
            Groups::All => String::new(),
            Groups::One(group) => format!(" where devgroup='{group}'"),
            Groups::Tens(k) => format!(" where devgroup=~/[1-{k}][0-9]/"),
        }
    }
}

/// Functions of q2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Count,
    Mean,
    Sum,
    Max,
    Min,
    Spread,
}

impl Function {
    const ALL: [Function; 6] =
        [Function::Count, Function::Mean, Function::Sum, Function::Max, Function::Min, Function::Spread];

    fn name(self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Mean => "mean",
            Function::Sum => "sum",
            Function::Max => "max",
            Function::Min => "min",
            Function::Spread => "spread",
        }
    }
}

/// What an answer is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Every row of the groups, with all columns.
    Rows,
    /// One figure of the field `temperature`.
    Figure(Function),
    /// count, sum and mean of `temperature`, one row a device group.
    ByGroup,
    /// count, sum and mean of `temperature`, one row a minute, empty ones too, up to now.
    ByMinute,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub text: String,
    pub groups: Groups,
    pub shape: Shape,
}

/// The names of the query files.
pub const FILES: [&str; 5] = ["q", "q1", "q2", "q3", "q4"];

/// The statements of one query file; empty for an unknown name.
pub fn of_file(name: &str) -> Vec<Statement> {
    let tens_then_all = || (1..=9).map(Groups::Tens).chain([Groups::All]);
    let three = "select count(temperature), sum(temperature), mean(temperature) from devices";
    match name {
        "q" => vec![Statement { text: "select * from devices".into(), groups: Groups::All, shape: Shape::Rows }],
        "q1" => (0..10)
            .map(|ten| Groups::One(ten * 10))
            .map(|groups| Statement {
                text: format!("select * from devices{}", groups.condition()),
                groups,
                shape: Shape::Rows,
            })
            .collect(),
        "q2" => Function::ALL
            .into_iter()
            .flat_map(|function| tens_then_all().map(move |groups| (function, groups)))
            .map(|(function, groups)| Statement {
                text: format!("select {}(temperature) from devices{}", function.name(), groups.condition()),
                groups,
                shape: Shape::Figure(function),
            })
            .collect(),
        "q3" => tens_then_all()
            .map(|groups| Statement {
                text: format!("{three}{} group by devgroup", groups.condition()),
                groups,
                shape: Shape::ByGroup,
            })
            .collect(),
        "q4" => tens_then_all()
            .map(|groups| Statement {
                text: format!("{three}{} group by time(1m)", groups.condition()),
                groups,
                shape: Shape::ByMinute,
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_have_the_reference_numbers_of_statements() {
        let counts: Vec<usize> = FILES.iter().map(|file| of_file(file).len()).collect();
        assert_eq!(counts, [1, 10, 60, 10, 10]);
        assert_eq!(of_file("q2")[9].text, "select count(temperature) from devices");
        assert_eq!(of_file("q2")[18].text, "select mean(temperature) from devices where devgroup=~/[1-9][0-9]/");
        assert!(of_file("q3")[1].text.ends_with("where devgroup=~/[1-2][0-9]/ group by devgroup"));
    }

    #[test]
    fn an_unanchored_two_digit_pattern_picks_two_digit_groups() {
        let picked: Vec<u64> = (0..100).filter(|group| Groups::Tens(2).contains(*group)).collect();
        assert_eq!(picked, (10..30).collect::<Vec<_>>());
    }
}
