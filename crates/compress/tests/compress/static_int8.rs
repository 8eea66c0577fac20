//! Static quantisation of small graphs.
