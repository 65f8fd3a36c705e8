//! Members that do only what they are told to: the stage of the scripts.
//!
//! | command | |
//! |---|---|
//! | `group 1 2 3 [learners 4] [option=value ..]` | new members, with quick disks |
//! | `start 4 as 1 2 3` | one more, that knows these voters |
//! | `time N` | the clocks go on |
//! | `tick N` | member N looks at its clock |
//! | `campaign N`, `elect N` | stands for election; the second one with all that belongs to it |
//! | `propose N VALUE ..`, `retract N`, `read N ID`, `transfer N M` | |
//! | `members N voters 1 2 [learners 3]` | begins a change |
//! | `snapshot N INDEX COMPACT`, `install N ok` or `fail`, `fetch N` | |
//! | `slow N`, `quick N`, `stable N [COUNT]` | whether writes finish by themselves; finishes some |
//! | `deliver [FROM TO] [COUNT]`, `drop ..`, `twice ..`, `mail` | messages on their way |
//! | `cut N`, `cut N M`, `heal` | connections; one way with two names |
//! | `crash N [COUNT]`, `restart N` | the first writes on their way survive |
//! | `send FROM TO TERM KIND ..` | a message that nobody sent |
//! | `state` | of all |
//! | `run TIME` | time passes, and everything arrives |

use crate::disk::{Disk, Write};
use crate::{counters::Counters, world::GROUP};
use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use tidemill_raft::{
    Body, Content, Entry, EntryId, Fetch, LogIndex, Membership, Message, Moment, NodeId, Options, Output, Raft, ReadId,
    Role, Snapshot, Term,
};

const ELECTION: u64 = 100;

#[derive(Default)]
pub struct Lab {
    members: BTreeMap<u64, Member>,
    mail: Vec<Message<u64>>,
    cut: BTreeSet<(u64, u64)>,
    now: u64,
    settings: Vec<(String, u64)>,
    said: Vec<String>,
}

struct Member {
    raft: Option<Raft<u64>>,
    disk: Disk,
    memory: BTreeMap<u64, Entry<u64>>,
    quick: bool,
    install: Option<Snapshot>,
    fetches: Vec<Fetch>,
}

fn content(entry: &Entry<u64>) -> String {
    match &entry.content {
        Content::Opening => "-".into(),
        Content::Data(value) => value.to_string(),
        Content::Members(members) => shown(members),
    }
}

fn shown(members: &Membership) -> String {
    let list = |set: &[NodeId]| set.iter().map(|node| node.to_string()).collect::<Vec<_>>().join(",");
    let mut text = format!("{{{}", list(members.voters()));
    if members.is_joint() {
        let _ = write!(text, " from {}", list(members.outgoing()));
    }
    if !members.learners().is_empty() {
        let _ = write!(text, " learning {}", list(members.learners()));
    }
    text + "}"
}

fn told(message: &Message<u64>) -> String {
    let Message { from, to, term, body, .. } = message;
    let body = match body {
        Body::PreVote { last } => format!("would you vote, last {last}"),
        Body::PreVoteAnswer { granted } => format!("would vote: {granted}"),
        Body::Vote { last, transfer } => {
            format!("vote, last {last}{}", if *transfer { ", as the leader asked" } else { "" })
        }
        Body::VoteAnswer { granted } => format!("vote: {granted}"),
        Body::Append { previous, entries, commit } => {
            let entries: Vec<String> =
                entries.iter().map(|entry| format!("{}={}", entry.id(), content(entry))).collect();
            format!("append after {previous} [{}] commit {commit}", entries.join(" "))
        }
        Body::Appended { matched } => format!("appended {matched}"),
        Body::Refused { previous, hint } => format!("refused {previous}, try {hint}"),
        Body::Heartbeat { commit, round } => format!("heartbeat {round} commit {commit}"),
        Body::HeartbeatAnswer { round } => format!("heartbeat {round} answered"),
        Body::Snapshot(snapshot) => format!("snapshot {} {}", snapshot.base, shown(&snapshot.members)),
        Body::SnapshotFailed { index } => format!("snapshot {index} failed"),
        Body::TimeoutNow => "stand now".into(),
        Body::StaleTerm => "your term is old".into(),
        Body::Read { id } => format!("read {}", id.0),
        Body::ReadAnswer { id, index } => format!("read {} from {index:?}", id.0),
    };
    format!("{from}->{to} term {term}: {body}")
}

/// `term/index`.
fn entry_id(text: &str) -> anyhow::Result<EntryId> {
    let (term, index) = text.split_once('/').context("term/index")?;
    Ok(EntryId { term: Term(term.parse()?), index: LogIndex(index.parse()?) })
}

impl Lab {
    pub fn execute(&mut self, command: &str) -> anyhow::Result<Vec<String>> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |at: usize| -> anyhow::Result<u64> { Ok(words.get(at).context("a number is missing")?.parse()?) };
        match words[0] {
            "group" => self.group(&words[1..])?,
            "start" => {
                let voters =
                    words[3..].iter().map(|word| Ok(NodeId(word.parse()?))).collect::<anyhow::Result<Vec<_>>>()?;
                self.start_new(number(1)?, Membership::new(voters, [])?);
            }
            "time" => self.now += number(1)?,
            "tick" => self.act(number(1)?, |raft, now| raft.handle_tick(now))?,
            "campaign" => self.act(number(1)?, |raft, now| raft.campaign(now))?,
            "elect" => self.elect(number(1)?)?,
            "propose" => {
                for at in 2..words.len() {
                    let value = number(at)?;
                    self.try_act(number(1)?, |raft, _| raft.propose(value).map(|(_, output)| output))?;
                }
            }
            "retract" => {
                let raft = self.raft(number(1)?)?;
                let (id, _) = raft.propose(0)?;
                raft.retract(id.index);
            }
            "read" => {
                let id = ReadId(number(2)?);
                self.act(number(1)?, |raft, now| raft.read(now, id))?;
            }
            "transfer" => {
                let to = NodeId(number(2)?);
                self.try_act(number(1)?, |raft, _| raft.transfer_leadership(to))?;
            }
            "members" => {
                let (voters, learners) = sets(&words[3..])?;
                let to = Membership::new(voters, learners)?;
                self.try_act(number(1)?, |raft, _| raft.change_members(to).map(|(_, output)| output))?;
            }
            "snapshot" => self.snapshot(number(1)?, LogIndex(number(2)?), LogIndex(number(3)?))?,
            "install" => self.install(number(1)?, words.get(2) == Some(&"ok"))?,
            "fetch" => self.fetch(number(1)?)?,
            "slow" | "quick" => self.member(number(1)?)?.quick = words[0] == "quick",
            "stable" => self.stable(number(1)?, number(2).unwrap_or(u64::MAX))?,
            "deliver" | "drop" | "twice" => self.mail(words[0], &words[1..])?,
            "mail" => self.said.extend(self.mail.iter().map(told)),
            "cut" => self.cut(number(1)?, number(2).ok()),
            "heal" => self.cut.clear(),
            "crash" => self.crash(number(1)?, number(2).unwrap_or(0))?,
            "restart" => self.restart(number(1)?)?,
            "send" => self.send(&words[1..])?,
            "state" => self.state(),
            "run" => self.run(number(1)?)?,
            other => bail!("no command {other}"),
        }
        Ok(core::mem::take(&mut self.said))
    }

    fn group(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let named: Vec<&str> = words.iter().copied().filter(|word| !word.contains('=')).collect();
        for setting in words.iter().filter(|word| word.contains('=')) {
            let (name, value) = setting.split_once('=').context("option=value")?;
            self.settings.push((name.to_owned(), value.parse()?));
        }
        let mut all = vec!["voters"];
        all.extend(named);
        let (voters, learners) = sets(&all)?;
        let members = Membership::new(voters, learners)?;
        for node in members.members() {
            self.start_new(node.0, members.clone());
        }
        Ok(())
    }

    fn start_new(&mut self, node: u64, members: Membership) {
        let disk = Disk::new(members);
        let member =
            Member { raft: None, disk, memory: BTreeMap::new(), quick: true, install: None, fetches: Vec::new() };
        self.members.insert(node, member);
        self.start(node);
    }

    fn start(&mut self, node: u64) {
        let setting = |name: &str| self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        let mut options = Options {
            election_timeout: ELECTION,
            heartbeat_interval: 10,
            clock_rate_bound: (setting("lease") != Some(0)).then_some(0),
            ..Options::new(GROUP, NodeId(node), 1)
        };
        options.window_messages_max = setting("window").map_or(options.window_messages_max, |value| value as usize);
        options.message_bytes_max = setting("message").map_or(options.message_bytes_max, |value| value as usize);
        options.tail_bytes_max = setting("tail").map_or(options.tail_bytes_max, |value| value as usize);
        options.uncommitted_bytes_max = setting("uncommitted").map_or(1 << 20, |value| value as usize);
        let now = Moment(self.now);
        let Some(member) = self.members.get_mut(&node) else { return };
        let restored = member.disk.restore();
        let durable = (1..=member.disk.last().0).filter_map(|index| member.disk.entry(LogIndex(index)));
        member.memory = durable.map(|entry| (entry.index.0, entry.clone())).collect();
        member.raft = Some(Raft::new(options, restored, now));
    }

    fn member(&mut self, node: u64) -> anyhow::Result<&mut Member> {
        self.members.get_mut(&node).with_context(|| format!("no member {node}"))
    }

    fn raft(&mut self, node: u64) -> anyhow::Result<&mut Raft<u64>> {
        self.member(node)?.raft.as_mut().with_context(|| format!("member {node} is down"))
    }

    fn act(&mut self, node: u64, act: impl FnOnce(&mut Raft<u64>, Moment) -> Output<u64>) -> anyhow::Result<()> {
        let now = Moment(self.now);
        let raft = self.raft(node)?;
        let (role, term) = (raft.role(), raft.term());
        let output = act(raft, now);
        raft.check_invariants();
        let (role_now, term_now) = (raft.role(), raft.term());
        if (role, term) != (role_now, term_now) {
            self.said.push(format!("{node} is {role_now:?} in term {term_now}"));
        }
        self.take(node, output)
    }

    fn try_act<E: std::fmt::Display>(
        &mut self,
        node: u64,
        act: impl FnOnce(&mut Raft<u64>, Moment) -> Result<Output<u64>, E>,
    ) -> anyhow::Result<()> {
        let mut refused = None;
        self.act(node, |raft, now| {
            act(raft, now).unwrap_or_else(|error| {
                refused = Some(error.to_string());
                Output::default()
            })
        })?;
        self.said.extend(refused.map(|why| format!("{node} refuses: {why}")));
        Ok(())
    }

    fn take(&mut self, node: u64, output: Output<u64>) -> anyhow::Result<()> {
        let mut said = Vec::new();
        let member = self.member(node)?;
        if let Some(first) = output.append.first() {
            if !member.memory.split_off(&first.index.0).is_empty() {
                said.push(format!("{node} cuts its log at {}", first.index));
            }
            member.memory.extend(output.append.iter().map(|entry| (entry.index.0, entry.clone())));
        }
        if let Some(id) = output.write {
            let write = Write { id, hard_state: output.hard_state, append: output.append, done_at: 0 };
            member.disk.write(write, &mut Counters::default());
        }
        said.extend(output.committed.map(|index| format!("{node} commits up to {index}")));
        for ended in &output.ended {
            said.push(format!("{node}: {}/{}..{} {:?}", ended.term, ended.first, ended.last, ended.how));
        }
        for read in &output.reads {
            said.push(format!("{node}: read {} from {:?}", read.id.0, read.index.map(|index| index.0)));
        }
        for fetch in output.fetch {
            said.push(format!("{node} wants {}..{} from its log for {}", fetch.first, fetch.last, fetch.to));
            member.fetches.push(fetch);
        }
        if let Some(install) = output.install {
            said.push(format!("{node} fetches the files of {}", install.snapshot.base));
            member.install = Some(install.snapshot);
        }
        if output.manifest_wanted {
            said.push(format!("{node} wants a manifest"));
        }
        let quick = member.quick;
        self.said.extend(said);
        self.mail.extend(output.send);
        if quick { self.stable(node, u64::MAX) } else { Ok(()) }
    }

    fn stable(&mut self, node: u64, count: u64) -> anyhow::Result<()> {
        for _ in 0..count.min(10_000) {
            let member = self.member(node)?;
            let Some(front) = member.disk.queue.front_mut() else { return Ok(()) };
            let write = front.id;
            for later in member.disk.queue.iter_mut().skip(1) {
                later.done_at = 1;
            }
            member.disk.finish(0);
            for later in &mut member.disk.queue {
                later.done_at = 0;
            }
            self.act(node, |raft, _| raft.handle_stable(write))?;
        }
        Ok(())
    }

    fn elect(&mut self, node: u64) -> anyhow::Result<()> {
        self.now += 2 * ELECTION;
        self.act(node, |raft, now| raft.campaign(now))?;
        self.mail("deliver", &[])?;
        self.said.clear();
        self.state();
        Ok(())
    }

    /// `[FROM TO] [COUNT]`.
    fn mail(&mut self, verb: &str, words: &[&str]) -> anyhow::Result<()> {
        let numbers = words.iter().map(|word| Ok(word.parse()?)).collect::<anyhow::Result<Vec<u64>>>()?;
        let (pair, count) = match numbers[..] {
            [] => (None, 10_000),
            [count] => (None, count),
            [from, to] => (Some((from, to)), 10_000),
            [from, to, count] => (Some((from, to)), count),
            _ => bail!("{verb} [FROM TO] [COUNT]"),
        };
        for _ in 0..count {
            let fits = |message: &Message<u64>| pair.is_none_or(|pair| pair == (message.from.0, message.to.0));
            let Some(at) = self.mail.iter().position(fits) else { return Ok(()) };
            let message = self.mail.remove(at);
            match verb {
                "drop" => self.said.push(format!("lost {}", told(&message))),
                "twice" => {
                    self.mail.insert(at, message.clone());
                    self.arrive(message)?;
                    return Ok(());
                }
                _ => self.arrive(message)?,
            }
        }
        if count < 10_000 || self.mail.is_empty() { Ok(()) } else { bail!("messages without end") }
    }

    fn arrive(&mut self, message: Message<u64>) -> anyhow::Result<()> {
        let (from, to) = (message.from.0, message.to.0);
        if self.cut.contains(&(from, to)) || self.members.get(&to).is_none_or(|member| member.raft.is_none()) {
            self.said.push(format!("lost {}", told(&message)));
            return Ok(());
        }
        self.said.push(told(&message));
        self.try_act(to, |raft, now| raft.handle_message(now, message))
    }

    fn cut(&mut self, one: u64, other: Option<u64>) {
        match other {
            Some(other) => drop(self.cut.insert((one, other))),
            None => {
                for other in self.members.keys() {
                    self.cut.extend([(one, *other), (*other, one)]);
                }
            }
        }
    }

    fn crash(&mut self, node: u64, survive: u64) -> anyhow::Result<()> {
        let member = self.member(node)?;
        for write in member.disk.queue.iter_mut().skip(survive as usize) {
            write.done_at = 1;
        }
        member.disk.finish(0);
        member.disk.queue.clear();
        (member.raft, member.install) = (None, None);
        member.fetches.clear();
        Ok(())
    }

    fn restart(&mut self, node: u64) -> anyhow::Result<()> {
        self.start(node);
        let members: Vec<String> = self.raft(node).into_iter().map(|raft| shown(raft.members())).collect();
        self.said.push(format!("{node} is back, with {}", members.join(" ")));
        Ok(())
    }

    fn snapshot(&mut self, node: u64, index: LogIndex, compact: LogIndex) -> anyhow::Result<()> {
        let member = self.member(node)?;
        let raft = member.raft.as_mut().context("a member that is up")?;
        let term = raft.term_at(index).context("an index that the log knows")?;
        let members = raft.members_at(index).clone();
        member.disk.flush(EntryId { term, index }, members, compact);
        let manifest = index.0.to_le_bytes();
        self.act(node, |raft, _| raft.offer_snapshot(index, manifest[..].into(), compact))
    }

    fn install(&mut self, node: u64, ok: bool) -> anyhow::Result<()> {
        let member = self.member(node)?;
        let snapshot = member.install.take().context("an installation")?;
        if !ok {
            return self.act(node, |raft, _| raft.handle_install_failed());
        }
        member.disk.install_files(snapshot.base, snapshot.members);
        member.disk.install_log();
        member.memory.clear();
        self.act(node, |raft, _| raft.handle_installed())
    }

    fn fetch(&mut self, node: u64) -> anyhow::Result<()> {
        for fetch in core::mem::take(&mut self.member(node)?.fetches) {
            let entries = self.member(node)?.memory.range(fetch.first.0..=fetch.last.0);
            let entries = entries.map(|(_, entry)| entry.clone()).collect();
            self.act(node, |raft, _| raft.handle_fetched(fetch.to, entries))?;
        }
        Ok(())
    }

    fn send(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let [from, to, term, kind, rest @ ..] = words else { bail!("send FROM TO TERM KIND ..") };
        let value = |name: &str| rest.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let id = |name: &str| value(name).map_or(Ok(EntryId::default()), entry_id);
        let plain = |name: &str| value(name).map_or(Ok(0), str::parse::<u64>);
        let body = match *kind {
            "append" => {
                let previous = id("previous")?;
                let entries = value("entries").unwrap_or_default().split(',').filter(|id| !id.is_empty());
                let entries = entries.map(|id| {
                    let EntryId { term, index } = entry_id(id)?;
                    Ok(Entry { term, index, content: Content::Data(term.0 * 1000 + index.0) })
                });
                let entries = entries.collect::<anyhow::Result<Vec<_>>>()?;
                Body::Append { previous, entries, commit: LogIndex(plain("commit")?) }
            }
            "vote" => Body::Vote { last: id("last")?, transfer: rest.contains(&"transfer") },
            "pre-vote" => Body::PreVote { last: id("last")? },
            "granted" => Body::VoteAnswer { granted: true },
            "heartbeat" => Body::Heartbeat { commit: LogIndex(plain("commit")?), round: plain("round")? },
            "answered" => Body::HeartbeatAnswer { round: plain("round")? },
            "appended" => Body::Appended { matched: LogIndex(plain("matched")?) },
            "refused" => Body::Refused { previous: LogIndex(plain("previous")?), hint: id("hint")? },
            "stand" => Body::TimeoutNow,
            "snapshot" => {
                let members = Membership::new([NodeId(1), NodeId(2), NodeId(3)], [])?;
                Body::Snapshot(Snapshot { base: id("base")?, members, manifest: [0u8; 8][..].into() })
            }
            other => bail!("no message {other}"),
        };
        let (from, to, term) = (NodeId(from.parse()?), NodeId(to.parse()?), Term(term.parse()?));
        self.mail.push(Message { group: GROUP, from, to, term, body });
        Ok(())
    }

    fn state(&mut self) {
        for (node, member) in &self.members {
            let Some(raft) = &member.raft else {
                self.said.push(format!("{node} down"));
                continue;
            };
            let vote = raft.hard_state().vote;
            let log: Vec<String> = member.memory.values().map(|entry| entry.term.to_string()).collect();
            let role = match raft.role() {
                Role::Follower => format!("follows {}", raft.leader()),
                other => format!("{other:?}").to_lowercase(),
            };
            self.said.push(format!(
                "{node} {role}, term {} vote {vote}, log [{}] base {} stable {} commit {} {}",
                raft.term(),
                log.join(" "),
                raft.base().index,
                raft.stable_index(),
                raft.committed(),
                shown(raft.members())
            ));
        }
    }

    fn run(&mut self, time: u64) -> anyhow::Result<()> {
        for _ in 0..time {
            self.now += 1;
            for node in self.members.keys().copied().collect::<Vec<_>>() {
                if self.member(node)?.raft.is_some() {
                    self.act(node, |raft, now| raft.handle_tick(now))?;
                    self.fetch(node)?;
                    if self.member(node)?.install.is_some() {
                        self.install(node, true)?;
                    }
                }
            }
            self.mail("deliver", &[])?;
        }
        let kept = [" is ", "wants a manifest", "fetches the files", "Dropped", "Unknown", "refuses"];
        self.said.retain(|line| kept.iter().any(|kept| line.contains(kept)));
        self.state();
        Ok(())
    }
}

fn sets(words: &[&str]) -> anyhow::Result<(Vec<NodeId>, Vec<NodeId>)> {
    let (mut voters, mut learners, mut learning) = (Vec::new(), Vec::new(), false);
    for word in words {
        match *word {
            "voters" => learning = false,
            "learners" => learning = true,
            node => {
                let node = NodeId(node.parse()?);
                if learning { learners.push(node) } else { voters.push(node) }
            }
        }
    }
    Ok((voters, learners))
}
