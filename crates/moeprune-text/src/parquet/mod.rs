//! Parquet files, a row at a time.
//!
//! Columns that are not read cost nothing, and of those that are a page each is in memory. Nothing that a file says is believed:
//! sizes are held against the file's, and what pages unpack to against what their packing can give.

mod assemble;
mod bits;
mod codec;
mod column;
mod footer;
mod page;
mod schema;
mod thrift;
mod values;

use std::{
    fs::File,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::{error::Error, record::Place};
use column::{Column, Levels};
use footer::{Footer, Group};
use schema::{Field, Kind};
use thrift::Broken;

/// The rows of a file, of some of its columns.
pub(crate) struct Parquet {
    path: PathBuf,
    file: Rc<File>,
    fields: Vec<Field>,
    /// Whether each of `fields` is read.
    chosen: Vec<bool>,
    /// Whether values that are no text are left out.
    lenient: bool,
    groups: std::vec::IntoIter<Group>,
    columns: Vec<Option<Column>>,
    left: u64,
    row: u64,
}

impl Parquet {
    /// Opens a file; of its columns those are read whose names `is_read`.
    pub(crate) fn open(path: &Path, is_read: &dyn Fn(&str) -> bool) -> Result<Self, Error> {
        let file =
            File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let footer = Footer::read(&file).map_err(|broken| unreadable(path, &broken))?;
        let chosen: Vec<bool> = footer.fields.iter().map(|field| is_read(&field.name)).collect();
        Ok(Self {
            path: path.to_owned(),
            file: Rc::new(file),
            fields: footer.fields,
            chosen,
            lenient: false,
            groups: footer.groups.into_iter(),
            columns: Vec::new(),
            left: 0,
            row: 0,
        })
    }

    /// Opens a file of which all columns are read, but those of types that neither texts nor numbers have. Bytes that are no UTF-8, such as
    /// those of a picture, are left out of their row or structure.
    pub(crate) fn open_whole(path: &Path) -> Result<Self, Error> {
        let mut parquet = Self::open(path, &|_| true)?;
        parquet.lenient = true;
        parquet.chosen = parquet.fields.iter().map(Field::is_plain).collect();
        Ok(parquet)
    }

    /// The names of all columns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// The next row as a JSON object of the columns that are read.
    pub(crate) fn next_row(&mut self) -> Result<Option<(Place, Vec<u8>)>, Error> {
        self.next().map_err(|broken| {
            let broken = match self.row {
                0 => broken,
                row => Broken::because(format!("{broken}, at row {row}")),
            };
            unreadable(&self.path, &broken)
        })
    }

    fn next(&mut self) -> Result<Option<(Place, Vec<u8>)>, Broken> {
        while self.left == 0 {
            let Some(group) = self.groups.next() else { return Ok(None) };
            self.columns = self.columns_of(&group)?;
            self.left = group.rows;
        }
        self.left -= 1;
        self.row += 1;
        let mut object = vec![b'{'];
        for (field, _) in self.fields.iter().zip(&self.chosen).filter(|(_, chosen)| **chosen) {
            assemble::write_named(field, &mut self.columns, &mut object)?;
        }
        object.push(b'}');
        Ok(Some((Place::Row(self.row), object)))
    }

    fn columns_of(&self, group: &Group) -> Result<Vec<Option<Column>>, Broken> {
        let mut columns: Vec<Option<Column>> = group.chunks.iter().map(|_| None).collect();
        for (field, _) in self.fields.iter().zip(&self.chosen).filter(|(_, chosen)| **chosen) {
            self.open_leaves(field, group, &mut columns)?;
        }
        Ok(columns)
    }

    fn open_leaves(
        &self,
        field: &Field,
        group: &Group,
        columns: &mut [Option<Column>],
    ) -> Result<(), Broken> {
        match &field.kind {
            Kind::Leaf { physical, unsigned } => {
                let deepest = Levels { repetition: field.depth, definition: field.definition };
                let (Some(chunk), Some(column)) =
                    (group.chunks.get(field.leaves.0), columns.get_mut(field.leaves.0))
                else {
                    return Err(Broken::because("a column without its place"));
                };
                let file = Rc::clone(&self.file);
                let mut opened = Column::new(file, chunk, (*physical, *unsigned), deepest)?;
                opened.lenient = self.lenient;
                *column = Some(opened);
                Ok(())
            }
            Kind::Structure(fields) => {
                fields.iter().try_for_each(|inner| self.open_leaves(inner, group, columns))
            }
            Kind::List { repeated, .. } | Kind::Map(repeated) => {
                self.open_leaves(repeated, group, columns)
            }
        }
    }
}

fn unreadable(path: &Path, broken: &Broken) -> Error {
    Error::Parquet { path: path.to_owned(), reason: broken.to_string() }
}
