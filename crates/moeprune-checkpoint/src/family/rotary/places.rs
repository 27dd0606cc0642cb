//! Where configs say something of rotary positions.

use crate::family::key::Key;

/// Objects of a config in which a scaling may stand, unless a descriptor names another.
const HOLDERS: [&str; 2] = ["rope_scaling", "rope_parameters"];

/// Where keys of rotary positions stand.
pub(super) struct Places {
    /// Objects of the config.
    pub(super) holders: Vec<String>,
    /// Whether some stand alone too.
    alone: bool,
}

impl Places {
    /// In the object `within`, or, without one, wherever configs have them.
    pub(super) fn of(within: Option<&str>) -> Self {
        match within {
            Some(object) => Self { holders: vec![object.to_owned()], alone: false },
            None => Self { holders: HOLDERS.map(str::to_owned).to_vec(), alone: true },
        }
    }

    /// A key that may stand alone or in one of the objects.
    pub(super) fn everywhere<T>(&self, name: &str) -> Key<T> {
        let mut key = self.scaled(&[name]);
        if self.alone {
            key.keys.insert(0, name.to_owned());
        }
        key
    }

    /// A key of one of the objects.
    pub(super) fn scaled<T>(&self, names: &[&str]) -> Key<T> {
        let key = |holder| names.iter().map(move |name| format!("{holder}.{name}"));
        Key { keys: self.holders.iter().flat_map(key).collect(), default: None }
    }
}
