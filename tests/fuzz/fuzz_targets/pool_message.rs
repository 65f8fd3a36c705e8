//! Bytes that another node sends to a pool master or slave.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidemill_pool::{MasterCall, MasterReply, StoreCall, StoreReply};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(call) = MasterCall::decode(bytes) {
        assert_eq!(MasterCall::decode(&call.encode()), Ok(call));
    }
    if let Ok(reply) = MasterReply::decode(bytes) {
        assert_eq!(MasterReply::decode(&reply.encode()), Ok(reply));
    }
    if let Ok(call) = StoreCall::decode(bytes) {
        assert_eq!(StoreCall::decode(&call.encode()), Ok(call));
    }
    if let Ok(reply) = StoreReply::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(StoreReply::decode(&reply.encode()), Ok(reply));
    }
});
