//! What a node has to do with the storage pool.
//!
//! Owns: what the masters agree on ([`machine`]) and their part ([`master`]), the slaves' ([`slave`]), the hand-over of a
//! partition's files by its leader ([`shipping`]) and the reading of files that are in the pool ([`reader`]). A node is
//! asked as what it is: what comes to one that is none is refused.

mod ask;
pub mod machine;
pub mod master;
mod masters;
pub mod reader;
pub mod shipping;
pub mod slave;

use crate::{
    data::{DataCore, Founding, META_CORE, StartFailure, message::Message},
    links::Duty,
};
use master::Master;
use reader::PoolReader;
use shipping::ShippingFigures;
use slave::Slave;
use std::rc::Rc;
use tidemill_pool::{MasterCall, MasterReply, StoreCall, StoreReply, Stored};
use tidemill_raft::NodeId;
use tidemill_reactor::CoreContext;

/// What a core has of the pool: on core 0 of a master or a slave, and on all cores of a data node.
#[derive(Default)]
pub struct PoolParts {
    /// None without other nodes.
    pub reader: Option<PoolReader>,
    pub shipping: ShippingFigures,
    pub master: Option<Rc<Master>>,
    pub slave: Option<Rc<Slave>>,
}

impl PoolParts {
    pub async fn open(
        context: &CoreContext<Message>,
        founding: &Founding,
        reader: Option<PoolReader>,
    ) -> Result<PoolParts, StartFailure> {
        let duty = founding.membership.as_ref().and_then(|of| Some(of.options.nodes.get(&of.options.node)?.duty));
        let is_first = context.core == META_CORE;
        Ok(PoolParts {
            reader,
            shipping: ShippingFigures::default(),
            master: match duty {
                Some(Duty::PoolMaster) if is_first => Some(Master::open(context, founding).await?),
                _ => None,
            },
            slave: match duty {
                Some(Duty::PoolSlave) if is_first => Some(Slave::open(context, founding).await?),
                _ => None,
            },
        })
    }

    /// Begins what goes on until the core stops.
    pub fn start(&self, core: &Rc<DataCore>) {
        self.master.iter().for_each(|master| master.start(core));
        self.slave.iter().for_each(|slave| slave.start(core));
    }
}

/// What another node asks of a master.
pub async fn answer_as_master(core: &Rc<DataCore>, from: NodeId, call: &[u8]) -> MasterReply {
    match (&core.pool.master, MasterCall::decode(call)) {
        (Some(master), Ok(call)) => master.answer(core, from, call).await,
        (None, _) => MasterReply::Refused("this node is no pool master".to_owned()),
        (_, Err(error)) => MasterReply::Refused(error.to_string()),
    }
}

/// What another node asks of a slave.
pub async fn answer_as_slave(core: &Rc<DataCore>, from: NodeId, call: &[u8]) -> StoreReply {
    let failed = |why: String| StoreReply::Told(Stored::Failed { why });
    match (&core.pool.slave, StoreCall::decode(call)) {
        (Some(slave), Ok(call)) => slave.answer(core, from, call).await,
        (None, _) => failed("this node is no pool slave".to_owned()),
        (_, Err(error)) => failed(error.to_string()),
    }
}
