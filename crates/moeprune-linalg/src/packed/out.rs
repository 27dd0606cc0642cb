//! Memory that several threads write to.
#![expect(unsafe_code, reason = "threads write to parts of the same rows")]

/// Where threads write, each to elements of its own.
#[derive(Clone, Copy)]
pub(super) struct Out(pub(super) *mut f32);

// SAFETY: the tasks of a product write to different elements.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// The place of an element. (A method, so that closures capture the whole.)
    pub(super) fn at(self, element: usize) -> *mut f32 {
        self.0.wrapping_add(element)
    }
}
