//! Lists as text.

/// A JSON array that is written element by element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonArray {
    /// The elements with commas between them.
    elements: String,
    len: usize,
}

impl JsonArray {
    /// No elements, with room for some.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { elements: String::with_capacity(bytes), len: 0 }
    }

    /// Adds the element that `write` appends as JSON.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut String)) {
        if self.len > 0 {
            self.elements.push(',');
        }
        write(&mut self.elements);
        self.len += 1;
    }

    /// Appends the array to a text.
    pub fn write(&self, out: &mut String) {
        out.reserve(self.elements.len() + 2);
        out.push('[');
        out.push_str(&self.elements);
        out.push(']');
    }

    /// The array as a text of its own.
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        self.write(&mut json);
        json
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
