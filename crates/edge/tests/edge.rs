//! The edge from outside: real sockets, small real servers behind it, and clients that count bytes.

mod support;

mod keep_alive;
