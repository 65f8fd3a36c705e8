//! One SELECT statement in parts, which can be left out to make it simpler.

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Name(&'static str),
    Nested(Box<Select>),
}

/// What kind of rows a statement gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Without functions: several rows of a series of the answer may have the same time.
    Raw,
    Selector,
    Aggregate,
    Transformation,
}

/// One SELECT statement, in parts that can be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    pub kind: Kind,
    pub fields: Vec<String>,
    pub sources: Vec<Source>,
    pub conditions: Vec<String>,
    pub dimensions: Vec<String>,
    pub fill: &'static str,
    pub order: &'static str,
    /// LIMIT and OFFSET.
    pub limit: Option<(usize, usize)>,
    /// What cuts windows and shows times, if not UTC.
    pub zone: Option<&'static str>,
}

impl Select {
    /// Without LIMIT, OFFSET and TZ.
    pub fn text(&self) -> String {
        let sources = self.sources.iter().map(|source| match source {
            Source::Name(name) => (*name).to_owned(),
            Source::Nested(select) => format!("({})", select.whole()),
        });
        let conditions = match self.conditions.join(" AND ") {
            none if none.is_empty() => none,
            some => format!(" WHERE {some}"),
        };
        let dimensions = match self.dimensions.join(", ") {
            none if none.is_empty() => none,
            some => format!(" GROUP BY {some}"),
        };
        let sources: Vec<String> = sources.collect();
        let (fields, sources) = (self.fields.join(", "), sources.join(", "));
        format!("SELECT {fields} FROM {sources}{conditions}{dimensions}{}{}", self.fill, self.order)
    }

    /// The whole statement.
    pub fn whole(&self) -> String {
        let limit = match self.limit {
            None => String::new(),
            Some((rows, 0)) => format!(" LIMIT {rows}"),
            Some((rows, skipped)) => format!(" LIMIT {rows} OFFSET {skipped}"),
        };
        format!("{}{limit}{}", self.text(), self.zone_text())
    }

    /// The statement without LIMIT and OFFSET.
    pub fn unlimited(&self) -> String {
        format!("{}{}", self.text(), self.zone_text())
    }

    fn zone_text(&self) -> String {
        self.zone.map_or_else(String::new, |zone| format!(" TZ('{zone}')"))
    }

    pub fn is_nested(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::Nested(_)))
    }

    /// True if this or an inner statement calls one of these functions.
    pub fn calls(&self, names: &[&str]) -> bool {
        let text = self.text();
        names.iter().any(|name| {
            text.match_indices(&format!("{name}("))
                .any(|(at, _)| !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '_'))
        })
    }

    /// Asks for the least and the greatest values in the place of the first and the last, in inner statements too.
    pub fn without_first_and_last(&mut self) {
        for field in &mut self.fields {
            // Texts have no least and no greatest.
            *field = field.replace("first(s)", "count(s)").replace("last(s)", "count(s)");
            *field = field.replace("first(", "min(").replace("last(", "max(");
        }
        for source in &mut self.sources {
            if let Source::Nested(inner) = source {
                inner.without_first_and_last();
            }
        }
    }

    /// The statement with one part left out, in every way: what shrinking tries.
    pub fn simpler(&self) -> Vec<Select> {
        let mut all = Vec::new();
        let mut push = |change: &dyn Fn(&mut Select)| {
            let mut simpler = self.clone();
            change(&mut simpler);
            if simpler != *self {
                all.push(simpler);
            }
        };
        push(&|select| select.limit = None);
        push(&|select| select.limit = select.limit.map(|(rows, _)| (rows, 0)));
        push(&|select| select.zone = None);
        push(&|select| select.order = "");
        push(&|select| select.fill = "");
        // Windows without bounds would reach to now.
        let has_windows = self.text().contains("time(");
        for (at, condition) in self.conditions.iter().enumerate() {
            if !(has_windows && condition.starts_with("time")) {
                push(&|select| drop(select.conditions.remove(at)));
            }
        }
        (0..self.dimensions.len()).for_each(|at| push(&|select| drop(select.dimensions.remove(at))));
        if self.fields.len() > 1 {
            (0..self.fields.len()).for_each(|at| push(&|select| drop(select.fields.remove(at))));
        }
        for (at, source) in self.sources.iter().enumerate() {
            if self.sources.len() > 1 {
                push(&|select| drop(select.sources.remove(at)));
            }
            if let Source::Nested(inner) = source {
                for simpler in inner.simpler() {
                    push(&|select| select.sources[at] = Source::Nested(Box::new(simpler.clone())));
                }
            }
        }
        all
    }
}
