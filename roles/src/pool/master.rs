//! A pool master.

use crate::data::{DataCore, Founding, StartFailure, message::Message};
use std::rc::Rc;
use tidemill_pool::{MasterCall, MasterReply};
use tidemill_raft::NodeId;
use tidemill_reactor::CoreContext;

/// Of core 0.
pub struct Master;

impl Master {
    pub async fn open(_: &CoreContext<Message>, _: &Founding) -> Result<Rc<Master>, StartFailure> {
        Ok(Rc::new(Master))
    }

    /// Begins what goes on until the core stops.
    pub fn start(self: &Rc<Self>, _: &Rc<DataCore>) {}

    /// What a data node, a slave or an operator asks.
    pub async fn answer(self: &Rc<Self>, _: &Rc<DataCore>, _: NodeId, _: MasterCall) -> MasterReply {
        MasterReply::Failed("this master has not begun".to_owned())
    }
}
