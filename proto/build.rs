//! Compiles the contracts in `dockside/` with protox, so that no `protoc` is needed.

const FILES: [&str; 6] = [
    "dockside/user/v1/service.proto",
    "dockside/user/v1/events.proto",
    "dockside/product/v1/types.proto",
    "dockside/product/v1/service.proto",
    "dockside/product/v1/events.proto",
    "dockside/order/v1/events.proto",
];

use prost::Message;

#[expect(clippy::disallowed_methods, reason = "where cargo wants generated files")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=dockside");
    let descriptors = protox::compile(FILES, ["."])?;
    let file = std::path::Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(file, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
