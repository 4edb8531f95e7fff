//! One value or a list of them.

use std::ops::Deref;

use super::Parse;
use crate::{
    document::{Node, Value},
    fault::Findings,
    section::Shape,
};

/// A list that may be written as its only element: `events: worker1` and `events: [worker1]` mean the same.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Parse> Parse for OneOrMany<T> {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::List(_) => Vec::parse(node, findings).map(Self),
            _ => T::parse(node, findings).map(|value| Self(vec![value])),
        }
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}
