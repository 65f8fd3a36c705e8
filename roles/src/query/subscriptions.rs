//! CREATE, DROP and SHOW SUBSCRIPTION.

use crate::{
    query::{
        StatementError,
        answer_table::{TableColumn, table},
        definitions::change,
        pieces::Answer,
        sources::Session,
    },
    subscriber::{check_destination, mode},
};
use tidemill_influxql::{CreateSubscription, SubscriptionMode};
use tidemill_meta::{Command, Database, Subscription};
use tidemill_query::ResultColumn;

pub(super) async fn create(session: &Session, create: CreateSubscription) -> Result<Answer, StatementError> {
    for url in &create.destinations {
        check_destination(url).map_err(|error| StatementError::Invalid(error.to_string()))?;
    }
    let CreateSubscription { name, database, retention_policy: policy, mode, destinations } = create;
    let subscription = Subscription { name, to_all: mode == SubscriptionMode::All, destinations };
    let answer = change(session, Command::CreateSubscription { database, policy, subscription }).await?;
    session.core.follow_subscriptions();
    Ok(answer)
}

pub(super) async fn drop(
    session: &Session,
    name: String,
    database: String,
    policy: String,
) -> Result<Answer, StatementError> {
    let answer = change(session, Command::DropSubscription { database, policy, name }).await?;
    session.core.follow_subscriptions();
    Ok(answer)
}

/// SHOW SUBSCRIPTIONS: a table for each database that has some.
pub(super) fn show(session: &Session) -> Answer {
    let meta = session.core.meta();
    let of_database = |database: &Database| {
        let all =
            database.policies.iter().flat_map(|policy| policy.subscriptions.iter().map(|one| (&policy.name, one)));
        let all: Vec<(&String, &Subscription)> = all.collect();
        let texts =
            |text: &dyn Fn(&(&String, &Subscription)) -> String| TableColumn::Texts(all.iter().map(text).collect());
        let columns = vec![
            ("retention_policy", texts(&|(policy, _)| (*policy).clone())),
            ("name", texts(&|(_, one)| one.name.clone())),
            ("mode", texts(&|(_, one)| mode(one.to_all).to_owned())),
        ];
        let mut series = table(&database.name, columns);
        let names = series.columns.iter().cloned().chain(["destinations".to_owned()]);
        series.columns = names.collect();
        series.values.push(ResultColumn::StringLists(all.iter().map(|(_, one)| one.destinations.clone()).collect()));
        (!all.is_empty()).then_some(series)
    };
    Answer::of(meta.databases().iter().filter_map(of_database).collect())
}
