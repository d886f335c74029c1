//! Compiles the contracts in `dockside/` with protox, so that no `protoc` is needed.

const FILES: [&str; 6] = [
    "dockside/user/v1/service.proto",
    "dockside/user/v1/events.proto",
    "dockside/product/v1/types.proto",
    "dockside/product/v1/service.proto",
    "dockside/product/v1/events.proto",
    "dockside/order/v1/events.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=dockside");
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
