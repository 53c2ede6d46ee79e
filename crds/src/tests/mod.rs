//! Tests of what is generated from the types.

mod cel;
mod schema;
