//! The tests of the product service from outside, in one program, as each more is linked by itself. What needs the machine, or looks at its
//! process's memory, is apart.

mod audit;
mod categories;
mod common;
mod events;
mod grpc;
mod http;
mod images;
mod import_files;
mod import_stock;
mod imports;
mod openapi;
mod races;
mod real_s3;
mod refusals;
mod repeats;
mod retention;
mod search;
mod skus;
