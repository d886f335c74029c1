//! The tests of the product service from outside, in one program, as each more is linked by itself. `import_at_size`
//! looks at its own process's memory.

mod at_size;
mod common;
mod events;
mod grpc;
mod hot_stock;
mod http;
mod images;
mod imports;
mod openapi;
mod races;
mod real_s3;
mod refusals;
mod repeats;
mod retention;
mod search;
