//! A pool slave.

use crate::data::{DataCore, Founding, StartFailure, message::Message};
use std::rc::Rc;
use tidemill_pool::{StoreCall, StoreReply, Stored};
use tidemill_raft::NodeId;
use tidemill_reactor::CoreContext;

/// Of core 0, the only one that a slave has.
pub struct Slave;

impl Slave {
    pub async fn open(_: &CoreContext<Message>, _: &Founding) -> Result<Rc<Slave>, StartFailure> {
        Ok(Rc::new(Slave))
    }

    /// Begins what goes on until the core stops.
    pub fn start(self: &Rc<Self>, _: &Rc<DataCore>) {}

    /// What a master, a data node or another slave asks.
    pub async fn answer(self: &Rc<Self>, _: &Rc<DataCore>, _: NodeId, _: StoreCall) -> StoreReply {
        StoreReply::Told(Stored::Failed { why: "this slave has not begun".to_owned() })
    }
}
