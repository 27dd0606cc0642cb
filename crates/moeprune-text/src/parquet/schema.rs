//! The columns of a file as a tree, with the levels at which its branches are there.

use super::thrift::Broken;

/// One element of the schema as it is stored: the tree in depth-first order.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) physical: Option<Physical>,
    pub(super) repetition: Repetition,
    pub(super) children: u64,
    pub(super) converted: Option<i64>,
    /// Which of the logical types, by its number in the union.
    pub(super) logical: Option<i16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Physical {
    Boolean,
    Int32,
    Int64,
    Float,
    Double,
    Bytes,
    /// Times of twelve bytes and arrays of fixed length, which text has none of.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Repetition {
    #[default]
    Required,
    Optional,
    Repeated,
}

impl Physical {
    pub(super) fn of(number: i64) -> Result<Self, Broken> {
        Ok(match number {
            0 => Self::Boolean,
            1 => Self::Int32,
            2 => Self::Int64,
            4 => Self::Float,
            5 => Self::Double,
            6 => Self::Bytes,
            3 | 7 => Self::Other,
            _ => return Err(Broken::because(format!("a column of the unknown type {number}"))),
        })
    }
}

impl Repetition {
    pub(super) fn of(number: i64) -> Result<Self, Broken> {
        Ok(match number {
            0 => Self::Required,
            1 => Self::Optional,
            2 => Self::Repeated,
            _ => return Err(Broken::because(format!("a repetition of {number}"))),
        })
    }
}

/// A column, or a branch of several.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) repetition: Repetition,
    /// From which definition level on it is there.
    pub(super) definition: u32,
    /// The repetition level of what repeats it.
    pub(super) depth: u32,
    pub(super) kind: Kind,
    /// The leaves below it: the first one and how many.
    pub(super) leaves: (usize, usize),
}

impl Field {
    /// Whether all that it holds is of types that are read.
    pub(super) fn is_plain(&self) -> bool {
        match &self.kind {
            Kind::Leaf { physical, .. } => *physical != Physical::Other,
            Kind::Structure(fields) => fields.iter().all(Self::is_plain),
            Kind::List { repeated, .. } | Kind::Map(repeated) => repeated.is_plain(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Leaf {
        physical: Physical,
        unsigned: bool,
    },
    Structure(Vec<Field>),
    /// What repeats, in the group that is annotated as a list. `inner` if items are the single field of what repeats.
    List {
        repeated: Box<Field>,
        inner: bool,
    },
    /// Pairs of a key and a value, which repeat.
    Map(Box<Field>),
}

const DEEPEST: usize = 24;
const LIST: (i64, i16) = (3, 3);
const MAP: [i64; 2] = [1, 2];
const UNSIGNED: std::ops::RangeInclusive<i64> = 11..=14;

/// The fields of a file, and how many leaves they have.
pub(super) fn tree(elements: &[Element]) -> Result<(Vec<Field>, usize), Broken> {
    let mut builder = Builder { elements, at: 1, leaves: 0 };
    let root = elements.first().ok_or_else(|| Broken::because("a schema without a root"))?;
    let fields = builder.fields(root.children, Levels::default())?;
    match builder.at == elements.len() {
        true => Ok((fields, builder.leaves)),
        false => Err(Broken::because("a schema with elements beside its root")),
    }
}

#[derive(Clone, Copy, Default)]
struct Levels {
    definition: u32,
    depth: u32,
    nested: usize,
}

struct Builder<'a> {
    elements: &'a [Element],
    at: usize,
    leaves: usize,
}

impl Builder<'_> {
    fn fields(&mut self, count: u64, levels: Levels) -> Result<Vec<Field>, Broken> {
        if levels.nested == DEEPEST {
            return Err(Broken::because("columns within columns without end"));
        }
        if count == 0 || count > (self.elements.len() - self.at) as u64 {
            return Err(Broken::because(format!("a schema with a branch of {count} columns")));
        }
        (0..count).map(|_| self.field(levels)).collect()
    }

    fn field(&mut self, above: Levels) -> Result<Field, Broken> {
        let element = self.elements.get(self.at).ok_or(Broken::End)?;
        self.at += 1;
        let first = self.leaves;
        let levels = Levels {
            definition: above.definition + u32::from(element.repetition != Repetition::Required),
            depth: above.depth + u32::from(element.repetition == Repetition::Repeated),
            nested: above.nested + 1,
        };
        let kind = match element.physical {
            Some(physical) if element.children == 0 => {
                self.leaves += 1;
                let unsigned = element.converted.is_some_and(|c| UNSIGNED.contains(&c));
                Kind::Leaf { physical, unsigned }
            }
            _ => branch(element, self.fields(element.children, levels)?),
        };
        Ok(Field {
            name: element.name.clone(),
            repetition: element.repetition,
            definition: levels.definition,
            depth: levels.depth,
            kind,
            leaves: (first, self.leaves - first),
        })
    }
}

fn branch(element: &Element, mut fields: Vec<Field>) -> Kind {
    let is_list = element.converted == Some(LIST.0) || element.logical == Some(LIST.1);
    let is_map = element.converted.is_some_and(|c| MAP.contains(&c)) || element.logical == Some(2);
    let repeats = fields.len() == 1 && fields[0].repetition == Repetition::Repeated;
    if !repeats || !(is_list || is_map) {
        return Kind::Structure(fields);
    }
    let repeated = Box::new(fields.remove(0));
    if is_map {
        return Kind::Map(repeated);
    }
    // Older writers repeat the item itself.
    let inner = match &repeated.kind {
        Kind::Structure(inner) => {
            inner.len() == 1
                && repeated.name != "array"
                && repeated.name != format!("{}_tuple", element.name)
        }
        _ => false,
    };
    Kind::List { repeated, inner }
}
