//! Compiles the schema of the peer protocol.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (schema, root) = ("proto/clickmill/peer/v1/peer.proto", "proto");
    println!("cargo::rerun-if-changed={root}");
    let descriptors = protox::compile([schema], [root])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
