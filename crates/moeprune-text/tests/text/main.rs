//! What files of text are read as.

mod made;

mod broken;
mod chats;
mod foreign;
mod parquet;
mod properties;
mod recognised;
mod rows;
mod sets;
mod tables;
