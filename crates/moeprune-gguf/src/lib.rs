//! stub
use std::ops::Range;
use moeprune_core::Dtype;
use moeprune_files::ReadAt;
#[derive(Debug)] pub struct Error;
impl std::fmt::Display for Error { fn fmt(&self, f:&mut std::fmt::Formatter<'_>)->std::fmt::Result{f.write_str("x")} }
#[derive(Debug,Clone,Default)] pub struct Entries;
impl Entries {
 pub fn text(&self,_:&str)->Result<Option<String>,Error>{todo!()}
 pub fn number(&self,_:&str)->Result<Option<u64>,Error>{todo!()}
 pub fn numbers(&self,_:&str)->Result<Option<Vec<u64>>,Error>{todo!()}
 pub fn set(&mut self,_:&str,_:u64)->Result<(),Error>{todo!()}
}
#[derive(Debug,Clone)] pub struct TensorInfo { pub name:String, pub dtype:Dtype, pub shape:Vec<usize>, pub range:Range<u64> }
#[derive(Debug,Clone)] pub struct Header { pub version:u32, pub alignment:u64, pub entries:Entries, pub tensors:Vec<TensorInfo>, pub data_start:u64 }
impl Header { pub fn read(_:&dyn ReadAt)->Result<Self,Error>{todo!()} pub fn to_bytes(&self)->Vec<u8>{todo!()} }
pub struct SplitName { pub number: usize, pub count: usize }
impl SplitName { pub fn parse(_:&str)->Option<Self>{todo!()} pub fn at(&self,_:usize)->String{todo!()} }
