//! The contracts between the services: gRPC calls and event bodies, generated
//! at build from the `.proto` files beside this crate.

pub mod events;

pub mod user {
    pub mod v1 {
        tonic::include_proto!("dockside.user.v1");
    }
}

pub mod product {
    pub mod v1 {
        tonic::include_proto!("dockside.product.v1");
    }
}

pub mod order {
    pub mod v1 {
        tonic::include_proto!("dockside.order.v1");
    }
}

/// All of it as an encoded `FileDescriptorSet`, for servers' reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
