//! Names of the tensors in an observation file.

use std::fmt;

use moeprune_core::{
    InputMoments, LinearId, RoutingSums,
    observation::{Statistic, Statistics},
};

/// A group of statistics in a file; its rows are those of the group's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) layer: usize,
    pub(super) of: Of,
}

/// What a group is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    /// [`RoutingSums`].
    Routing,
    /// [`InputMoments`].
    Input(LinearId),
}

/// A row of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) group: Group,
    row: &'static str,
}

impl Group {
    pub(super) fn name<S>(self, row: &Statistic<S>) -> Name {
        Name { group: self, row: row.name }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, of } = self;
        match of {
            Of::Routing => write!(f, "layer.{layer}.routing"),
            Of::Input(site) => write!(f, "layer.{layer}.input.{site}"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, row } = self;
        write!(f, "{group}.{row}")
    }
}

impl Name {
    /// Not after any row of the group.
    pub(super) fn first_of(group: Group) -> Self {
        Self { group, row: "" }
    }

    /// Only the one spelling that [`Display`](fmt::Display) gives.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (layer, rest) = name.strip_prefix("layer.")?.split_once('.')?;
        let (part, rest) = rest.split_once('.')?;
        let (of, row) = match part {
            "routing" => (Of::Routing, row::<RoutingSums>(rest)?),
            "input" => {
                let (site, rest) = rest.rsplit_once('.')?;
                (Of::Input(site.parse().ok()?), row::<InputMoments>(rest)?)
            }
            _ => return None,
        };
        let parsed = Self { group: Group { layer: layer.parse().ok()?, of }, row };
        (parsed.to_string() == name).then_some(parsed)
    }
}

fn row<S: Statistics>(name: &str) -> Option<&'static str> {
    S::ROWS.iter().map(|row| row.name).find(|row| *row == name)
}
