//! stub
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub const DEFAULT_MEMORY: u64 = 256 << 20;
pub struct Options {
    pub memory: u64,
    pub spill_dir: Option<PathBuf>,
    pub seal_memory: bool,
}
impl Options {
    pub fn detect() -> Self {
        todo!()
    }
}
#[derive(Debug)]
pub struct Store;
impl Store {
    pub fn new(_: Options) -> io::Result<Arc<Self>> {
        todo!()
    }
    pub fn at_rest(&self) -> &'static str {
        todo!()
    }
    pub fn spill_dir(&self) -> &Path {
        todo!()
    }
}
#[derive(Debug)]
pub struct Quota;
impl Quota {
    pub fn new(_: u64) -> Arc<Self> {
        todo!()
    }
    pub fn limit(&self) -> u64 {
        todo!()
    }
    pub fn used(&self) -> u64 {
        todo!()
    }
    pub fn charge(self: &Arc<Self>, _: u64) -> Result<Charge, Full> {
        todo!()
    }
}
#[derive(Debug)]
pub struct Charge;
#[derive(Debug)]
pub struct Full;
#[derive(Debug)]
pub enum BlobError {
    Full,
    TooLarge,
    Io(io::Error),
}
#[derive(Debug, Clone)]
pub struct Content;
impl Content {
    pub fn new(_: &Arc<Store>, _: &Arc<Quota>) -> Self {
        todo!()
    }
    pub fn len(&self) -> u64 {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    pub fn allocated(&self) -> u64 {
        todo!()
    }
    pub fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
    pub fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), BlobError> {
        todo!()
    }
    pub fn set_len(&mut self, _: u64) -> Result<(), BlobError> {
        todo!()
    }
    pub fn punch(&mut self, _: u64, _: u64) -> Result<(), BlobError> {
        todo!()
    }
    pub fn next_data(&self, _: u64) -> Option<u64> {
        todo!()
    }
    pub fn next_hole(&self, _: u64) -> Option<u64> {
        todo!()
    }
    pub fn is_in_memory_unsealed(&self) -> bool {
        todo!()
    }
}
pub struct Reading;
impl Reading {
    pub fn new(_: Content) -> Self {
        todo!()
    }
}
impl crate::Source for Reading {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, crate::SourceError> {
        todo!()
    }
}
