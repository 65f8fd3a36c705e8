//! Calls and replies.

use super::{DecodeError, Parts, seal, unseal};
use crate::{
    data::{
        message::{CallError, MetaChangeError},
        series_admission::SeriesRefusal,
    },
    links::{RemoteCall, RemoteReply},
    replica::{FilePart, ProposeError},
};
use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, rancor::Error};
use tidemill_meta::{Applied, MetaError};
use tidemill_raft::{LogIndex, NodeId};

/// What the other node wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Call(RemoteCall),
    /// Read something; what, is for whoever answers.
    Read(Bytes),
    /// Bytes of a file of the group, under this number.
    File {
        part: FilePart,
        number: u64,
    },
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Answered {
    Reply(RemoteReply),
    /// A fragment of a piece of what was read.
    Read {
        bytes: Bytes,
        /// Of its piece.
        is_last: bool,
    },
    /// The file has gone out, or why not.
    File(Result<(), String>),
    /// Nothing was done.
    NotUnderstood,
}

const BUSY: &str = "too much waits on the node that leads the partition";

#[derive(Archive, Serialize)]
enum AskedImage {
    Propose,
    Command,
    ChangeMeta,
    OutwaitWrites,
    Describe,
    AwaitAll,
    Acquaint(u64),
    Queries,
    KillQuery(u64),
    Examine { mends: bool },
    Read,
    File { name: String, offset: u64, length: u64, number: u64 },
    HandOver { to: u64 },
    Pool,
    PoolStore,
}

#[derive(Archive, Serialize, Deserialize)]
enum AnsweredImage {
    Read { is_last: bool },
    Done(Option<CallErrorImage>),
    MetaChanged { index: u64, applied: Applied },
    MetaRefused(MetaError),
    MetaFailed(CallErrorImage),
    Description,
    File(Option<String>),
    NotUnderstood,
    Pool,
}

#[derive(Archive, Serialize, Deserialize)]
enum CallErrorImage {
    Busy,
    DiskFull,
    TooLarge(String),
    NotLeader(u64),
    Overtaken,
    Stopped(String),
    NewSeries { why: String, series: Vec<u64> },
    Forgotten { through: u64 },
    Unknown(String),
}

pub fn encode_asked(shape: u64, asked: &Asked) -> Bytes {
    let (image, payload): (AskedImage, &[u8]) = match asked {
        Asked::Call(RemoteCall::Propose(batch)) => (AskedImage::Propose, batch),
        Asked::Call(RemoteCall::Command(command)) => (AskedImage::Command, command),
        Asked::Call(RemoteCall::ChangeMeta(command)) => (AskedImage::ChangeMeta, command),
        Asked::Call(RemoteCall::OutwaitWrites) => (AskedImage::OutwaitWrites, &[]),
        Asked::Call(RemoteCall::Describe) => (AskedImage::Describe, &[]),
        Asked::Call(RemoteCall::Acquaint(folder)) => (AskedImage::Acquaint(*folder), &[]),
        Asked::Call(RemoteCall::AwaitAll) => (AskedImage::AwaitAll, &[]),
        Asked::Call(RemoteCall::Queries) => (AskedImage::Queries, &[]),
        Asked::Call(RemoteCall::KillQuery(id)) => (AskedImage::KillQuery(*id), &[]),
        Asked::Call(RemoteCall::Examine { mends }) => (AskedImage::Examine { mends: *mends }, &[]),
        Asked::Call(RemoteCall::Pool(call)) => (AskedImage::Pool, call),
        Asked::Call(RemoteCall::PoolStore(call)) => (AskedImage::PoolStore, call),
        Asked::Read(order) => (AskedImage::Read, order),
        Asked::Call(RemoteCall::HandOver(to)) => (AskedImage::HandOver { to: to.0 }, &[]),
        Asked::File { part: FilePart { name, offset, length }, number } => {
            (AskedImage::File { name: name.clone(), offset: *offset, length: *length, number: *number }, &[])
        }
    };
    seal(shape, &image, [payload].into_iter())
}

pub fn decode_asked(shape: u64, bytes: &Bytes) -> Result<Asked, DecodeError> {
    let (image, payload) = unseal::<AskedImage>(shape, bytes)?;
    let parts = Parts::new(payload, bytes);
    let asked = match image {
        ArchivedAskedImage::Propose => return Ok(Asked::Call(RemoteCall::Propose(parts.rest()))),
        ArchivedAskedImage::Command => return Ok(Asked::Call(RemoteCall::Command(parts.rest()))),
        ArchivedAskedImage::ChangeMeta => return Ok(Asked::Call(RemoteCall::ChangeMeta(parts.rest()))),
        ArchivedAskedImage::Pool => return Ok(Asked::Call(RemoteCall::Pool(parts.rest()))),
        ArchivedAskedImage::PoolStore => return Ok(Asked::Call(RemoteCall::PoolStore(parts.rest()))),
        ArchivedAskedImage::Read => return Ok(Asked::Read(parts.rest())),
        ArchivedAskedImage::OutwaitWrites => Asked::Call(RemoteCall::OutwaitWrites),
        ArchivedAskedImage::Describe => Asked::Call(RemoteCall::Describe),
        ArchivedAskedImage::Acquaint(folder) => Asked::Call(RemoteCall::Acquaint(folder.to_native())),
        ArchivedAskedImage::AwaitAll => Asked::Call(RemoteCall::AwaitAll),
        ArchivedAskedImage::HandOver { to } => Asked::Call(RemoteCall::HandOver(NodeId(to.to_native()))),
        ArchivedAskedImage::Queries => Asked::Call(RemoteCall::Queries),
        ArchivedAskedImage::KillQuery(id) => Asked::Call(RemoteCall::KillQuery(id.to_native())),
        ArchivedAskedImage::Examine { mends } => Asked::Call(RemoteCall::Examine { mends: *mends }),
        ArchivedAskedImage::File { name, offset, length, number } => {
            let name = name.as_str().to_owned();
            let part = FilePart { name, offset: offset.to_native(), length: length.to_native() };
            Asked::File { part, number: number.to_native() }
        }
    };
    parts.end()?;
    Ok(asked)
}

pub fn encode_answered(shape: u64, answered: &Answered) -> Bytes {
    let mut payload: &[u8] = &[];
    let image = match answered {
        Answered::Reply(RemoteReply::Done(result)) => AnsweredImage::Done(result.as_ref().err().map(Into::into)),
        Answered::Reply(RemoteReply::MetaChanged(Ok((index, applied)))) => {
            AnsweredImage::MetaChanged { index: index.0, applied: applied.clone() }
        }
        Answered::Reply(RemoteReply::MetaChanged(Err(MetaChangeError::Meta(error)))) => {
            AnsweredImage::MetaRefused(error.clone())
        }
        Answered::Reply(RemoteReply::MetaChanged(Err(MetaChangeError::Call(error)))) => {
            AnsweredImage::MetaFailed(error.into())
        }
        Answered::Reply(RemoteReply::Description(description)) => {
            payload = description;
            AnsweredImage::Description
        }
        Answered::Reply(RemoteReply::Pool(reply)) => {
            payload = reply;
            AnsweredImage::Pool
        }
        Answered::Read { bytes, is_last } => {
            payload = bytes;
            AnsweredImage::Read { is_last: *is_last }
        }
        Answered::File(result) => AnsweredImage::File(result.as_ref().err().cloned()),
        Answered::NotUnderstood => AnsweredImage::NotUnderstood,
    };
    seal(shape, &image, [payload].into_iter())
}

pub fn decode_answered(shape: u64, bytes: &Bytes) -> Result<Answered, DecodeError> {
    let (image, payload) = unseal::<AnsweredImage>(shape, bytes)?;
    let parts = Parts::new(payload, bytes);
    let image: AnsweredImage = rkyv::deserialize::<_, Error>(image).map_err(|_| DecodeError::Archive)?;
    match image {
        AnsweredImage::Description => return Ok(Answered::Reply(RemoteReply::Description(parts.rest()))),
        AnsweredImage::Pool => return Ok(Answered::Reply(RemoteReply::Pool(parts.rest()))),
        AnsweredImage::Read { is_last } => return Ok(Answered::Read { bytes: parts.rest(), is_last }),
        _ => parts.end()?,
    }
    let changed = |result| Answered::Reply(RemoteReply::MetaChanged(result));
    Ok(match image {
        AnsweredImage::Done(None) => Answered::Reply(RemoteReply::Done(Ok(()))),
        AnsweredImage::Done(Some(error)) => Answered::Reply(RemoteReply::Done(Err(error.into()))),
        AnsweredImage::MetaChanged { index, applied } => changed(Ok((LogIndex(index), applied))),
        AnsweredImage::MetaRefused(error) => changed(Err(error.into())),
        AnsweredImage::MetaFailed(error) => changed(Err(CallError::from(error).into())),
        AnsweredImage::Description => Answered::Reply(RemoteReply::Description(Bytes::new())),
        AnsweredImage::Pool => Answered::Reply(RemoteReply::Pool(Bytes::new())),
        AnsweredImage::Read { is_last } => Answered::Read { bytes: Bytes::new(), is_last },
        AnsweredImage::File(None) => Answered::File(Ok(())),
        AnsweredImage::File(Some(why)) => Answered::File(Err(why)),
        AnsweredImage::NotUnderstood => Answered::NotUnderstood,
    })
}

impl From<&CallError> for CallErrorImage {
    fn from(error: &CallError) -> CallErrorImage {
        match error {
            CallError::Refused(ProposeError::Busy(_)) => CallErrorImage::Busy,
            CallError::Refused(ProposeError::DiskFull) => CallErrorImage::DiskFull,
            CallError::Refused(ProposeError::TooLarge(why)) => CallErrorImage::TooLarge(why.clone()),
            CallError::Refused(ProposeError::NotLeader(leader)) => CallErrorImage::NotLeader(leader.0),
            CallError::Refused(ProposeError::Overtaken) => CallErrorImage::Overtaken,
            CallError::Refused(ProposeError::Stopped(why)) => CallErrorImage::Stopped(why.clone()),
            CallError::NewSeries(SeriesRefusal { why, series }) => {
                CallErrorImage::NewSeries { why: why.clone(), series: series.clone() }
            }
            CallError::Forgotten { through } => CallErrorImage::Forgotten { through: *through },
            CallError::Unknown(why) => CallErrorImage::Unknown(why.clone()),
        }
    }
}

impl From<CallErrorImage> for CallError {
    fn from(image: CallErrorImage) -> CallError {
        CallError::Refused(match image {
            CallErrorImage::Busy => ProposeError::Busy(BUSY),
            CallErrorImage::DiskFull => ProposeError::DiskFull,
            CallErrorImage::TooLarge(why) => ProposeError::TooLarge(why),
            CallErrorImage::NotLeader(leader) => ProposeError::NotLeader(NodeId(leader)),
            CallErrorImage::Overtaken => ProposeError::Overtaken,
            CallErrorImage::Stopped(why) => ProposeError::Stopped(why),
            CallErrorImage::NewSeries { why, series } => return CallError::NewSeries(SeriesRefusal { why, series }),
            CallErrorImage::Forgotten { through } => return CallError::Forgotten { through },
            CallErrorImage::Unknown(why) => return CallError::Unknown(why),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_meta::{DatabaseId, ShardGroupId};

    const SHAPE: u64 = 5;

    fn data() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    fn asked() -> impl Strategy<Value = Asked> {
        prop_oneof![
            data().prop_map(|batch| Asked::Call(RemoteCall::Propose(batch))),
            data().prop_map(|command| Asked::Call(RemoteCall::Command(command))),
            data().prop_map(|command| Asked::Call(RemoteCall::ChangeMeta(command))),
            Just(Asked::Call(RemoteCall::OutwaitWrites)),
            Just(Asked::Call(RemoteCall::Describe)),
            any::<u64>().prop_map(|folder| Asked::Call(RemoteCall::Acquaint(folder))),
            Just(Asked::Call(RemoteCall::AwaitAll)),
            Just(Asked::Call(RemoteCall::Queries)),
            any::<u64>().prop_map(|id| Asked::Call(RemoteCall::KillQuery(id))),
            any::<bool>().prop_map(|mends| Asked::Call(RemoteCall::Examine { mends })),
            data().prop_map(|call| Asked::Call(RemoteCall::Pool(call))),
            data().prop_map(|call| Asked::Call(RemoteCall::PoolStore(call))),
            data().prop_map(Asked::Read),
            (".{0,40}", any::<[u64; 3]>()).prop_map(|(name, [offset, length, number])| {
                let part = FilePart { name, offset, length };
                Asked::File { part, number }
            }),
        ]
    }

    fn call_error() -> impl Strategy<Value = CallError> {
        let refused = |error: ProposeError| CallError::Refused(error);
        prop_oneof![
            Just(refused(ProposeError::Busy(BUSY))),
            Just(refused(ProposeError::DiskFull)),
            ".{0,20}".prop_map(move |why| refused(ProposeError::TooLarge(why))),
            any::<u64>().prop_map(move |node| refused(ProposeError::NotLeader(NodeId(node)))),
            Just(refused(ProposeError::Overtaken)),
            ".{0,20}".prop_map(move |why| refused(ProposeError::Stopped(why))),
            (".{0,20}", prop::collection::vec(any::<u64>(), 0..5))
                .prop_map(|(why, series)| CallError::NewSeries(SeriesRefusal { why, series })),
            any::<u64>().prop_map(|through| CallError::Forgotten { through }),
            ".{0,20}".prop_map(CallError::Unknown),
        ]
    }

    fn reply() -> impl Strategy<Value = RemoteReply> {
        let applied = (prop::collection::vec(any::<u64>(), 0..4), prop::option::of(any::<u32>()));
        let applied = applied.prop_map(|(groups, database)| Applied {
            dropped_groups: groups.into_iter().map(ShardGroupId).collect(),
            dropped_database: database.map(DatabaseId),
        });
        prop_oneof![
            Just(RemoteReply::Done(Ok(()))),
            call_error().prop_map(|error| RemoteReply::Done(Err(error))),
            (any::<u64>(), applied)
                .prop_map(|(index, applied)| RemoteReply::MetaChanged(Ok((LogIndex(index), applied)))),
            Just(RemoteReply::MetaChanged(Err(MetaError::PolicyExists.into()))),
            ".{0,20}".prop_map(|name| RemoteReply::MetaChanged(Err(MetaError::DatabaseNotFound(name).into()))),
            call_error().prop_map(|error| RemoteReply::MetaChanged(Err(error.into()))),
            data().prop_map(RemoteReply::Description),
            data().prop_map(RemoteReply::Pool),
        ]
    }

    fn answered() -> impl Strategy<Value = Answered> {
        prop_oneof![
            6 => reply().prop_map(Answered::Reply),
            1 => prop_oneof![Just(Ok(())), ".{0,20}".prop_map(Err)].prop_map(Answered::File),
            1 => (data(), any::<bool>()).prop_map(|(bytes, is_last)| Answered::Read { bytes, is_last }),
            1 => Just(Answered::NotUnderstood),
        ]
    }

    proptest! {
        #[test]
        fn questions_come_back(asked in asked()) {
            prop_assert_eq!(decode_asked(SHAPE, &encode_asked(SHAPE, &asked)), Ok(asked));
        }

        #[test]
        fn answers_come_back(answered in answered()) {
            let back = decode_answered(SHAPE, &encode_answered(SHAPE, &answered)).unwrap();
            prop_assert_eq!(format!("{back:?}"), format!("{answered:?}"));
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = (decode_asked(SHAPE, &bytes), decode_answered(SHAPE, &bytes));
        }

        #[test]
        fn damage_is_refused_or_read(asked in asked(), answered in answered(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let (mut asked, mut answered) = (encode_asked(SHAPE, &asked).to_vec(), encode_answered(SHAPE, &answered).to_vec());
            for bytes in [&mut asked, &mut answered] {
                let at = at.index(bytes.len());
                bytes[at] ^= 1u8 << bit;
            }
            let _ = (decode_asked(SHAPE, &asked.into()), decode_answered(SHAPE, &answered.into()));
        }
    }

    #[test]
    fn what_has_no_payload_is_refused_with_one() {
        for call in [RemoteCall::OutwaitWrites, RemoteCall::Describe, RemoteCall::AwaitAll] {
            let asked = Asked::Call(call);
            let mut bytes = b"more".to_vec();
            bytes.extend_from_slice(&encode_asked(SHAPE, &asked));
            assert_eq!(decode_asked(SHAPE, &bytes.into()), Err(DecodeError::Payload));
        }
    }
}
