//! A map read by its shape: an absent key has the default that the table documents, so that code and reference cannot disagree.
//!
//! The walk over the shapes has reported every mistake of form already. A value that it refused reads as its default here, or as nothing
//! where there is none, and no second error is made of it.

use std::time::Duration;

use super::report::{Findings, Place};
use super::shape::{Need, Shape};
use super::yaml::{Entry, Node, Value};
use super::{units, walk};

#[derive(Clone, Copy, Debug)]
pub struct Obj<'a> {
    shape: &'static Shape,
    /// `None`: the map itself is absent, and all its keys with it.
    node: Option<&'a Node>,
    pub place: Place,
}

impl<'a> Obj<'a> {
    pub fn new(node: &'a Node, shape: &'static Shape) -> Self {
        Self { shape, node: Some(node), place: node.place }
    }

    /// All defaults.
    pub fn absent(shape: &'static Shape) -> Self {
        Self { shape, node: None, place: Place::of_file(0) }
    }

    /// Whether the map itself stands in the file.
    pub fn present(&self) -> bool {
        self.node.is_some()
    }

    pub fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(self.shape.key(key).is_some(), "{} has no key {key}", self.shape.name);
        self.node.and_then(|node| node.entry(key)).map(|entry| &entry.value)
    }

    /// Where the key's value stands, or where the map does.
    pub fn place_of(&self, key: &str) -> Place {
        self.get(key).map_or(self.place, |node| node.place)
    }

    /// Where the key stands.
    pub fn place_of_key(&self, key: &str) -> Place {
        self.node.and_then(|node| node.entry(key)).map_or(self.place, |entry| entry.key_place)
    }

    /// A map below, absent or not.
    pub fn object(&self, key: &str, shape: &'static Shape) -> Self {
        let node = self.get(key);
        Self { shape, node, place: node.map_or(self.place, |node| node.place) }
    }

    pub fn objects(&self, key: &str, shape: &'static Shape) -> impl Iterator<Item = Self> + use<'a> {
        self.items(key).iter().map(move |node| Self::new(node, shape))
    }

    pub fn items(&self, key: &str) -> &'a [Node] {
        self.get(key).map(Node::items).unwrap_or_default()
    }

    /// The entries of a map of free names.
    pub fn entries(&self, key: &str) -> &'a [Entry] {
        self.get(key).map(Node::entries).unwrap_or_default()
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        match self.get(key) {
            Some(node) => node.text(),
            None => self.default(key),
        }
    }

    /// Text of a required key. `None` only after the walk has reported it.
    pub fn need(&self, key: &str, out: &mut Findings) -> Option<&'a str> {
        self.text(key).or_else(|| out.left_out())
    }

    pub fn flag(&self, key: &str) -> bool {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Bool(value)) => *value,
            _ => self.default(key) == Some("true"),
        }
    }

    pub fn duration(&self, key: &str) -> Duration {
        self.get(key)
            .and_then(Node::text)
            .and_then(units::duration)
            .or_else(|| self.default(key).and_then(units::duration))
            .unwrap_or_default()
    }

    pub fn size(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(walk::bytes).or_else(|| self.default(key).and_then(units::size))
    }

    /// Bytes a second.
    pub fn bandwidth(&self, key: &str) -> u64 {
        let text = self.get(key).and_then(Node::text);
        text.and_then(units::bandwidth).or_else(|| self.default(key).and_then(units::bandwidth)).unwrap_or_default()
    }

    /// A whole number; the shape's range is inside every type that asks.
    pub fn count<T: TryFrom<u64> + Default>(&self, key: &str) -> T {
        self.number(key).or_else(|| self.default(key)?.parse().ok()).and_then(|number| T::try_from(number).ok()).unwrap_or_default()
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)?.value {
            Value::Integer { value, .. } => u64::try_from(value).ok(),
            _ => None,
        }
    }

    fn default(&self, key: &str) -> Option<&'static str> {
        match self.shape.key(key)?.need {
            Need::Default(text) => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::Kind;
    use super::super::shapes;
    use super::*;

    #[test]
    fn every_documented_default_and_bound_can_be_read() {
        for shape in shapes::ALL {
            for key in shape.keys {
                match (&key.kind, &key.need) {
                    (Kind::Duration(min, max), need) => {
                        let (min, max) = (units::duration(min).unwrap(), units::duration(max).unwrap());
                        if let Need::Default(text) = need {
                            assert!((min..=max).contains(&units::duration(text).unwrap()), "{}.{}", shape.name, key.name);
                        }
                    }
                    (Kind::Size(min, max), need) => {
                        let (min, max) = (units::size(min).unwrap(), units::size(max).unwrap());
                        if let Need::Default(text) = need {
                            assert!((min..=max).contains(&units::size(text).unwrap()), "{}.{}", shape.name, key.name);
                        }
                    }
                    (Kind::Count { min, max }, Need::Default(text)) => {
                        assert!((*min..=*max).contains(&text.parse().unwrap()), "{}.{}", shape.name, key.name);
                    }
                    (Kind::Word(words), Need::Default(text)) => assert!(words.contains(text), "{}.{}", shape.name, key.name),
                    _ => {}
                }
            }
        }
    }
}
