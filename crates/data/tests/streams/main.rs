//! Data sets from end to end, through the public interface only.

mod assets;
mod folder;
mod parts;
mod sources;
