//! Memory that every request takes and gives back.
//!
//! A worker takes up dozens of requests before it answers the first, and the C library keeps seven blocks of a size ready for a thread, and none of the
//! size of hyper's read buffers and rustls' records: it looks for the others anew, and hands out memory that has gone cold. Here a worker keeps those
//! it was given back, the last on top. Everything else is the C library's.
//!
//! The second of the two places with `unsafe`: an allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr::null_mut;

/// The allocator of the program. Only threads that called `keep` keep anything.
#[derive(Debug)]
pub struct Heap;

/// Blocks up to this size are as large as the C library would make them anyway: eight bytes more than a multiple of sixteen.
const SMALL: usize = 1032;
const SMALL_STEP: usize = 16;
const SMALL_CLASSES: usize = SMALL / SMALL_STEP + 1;
/// Larger ones are rounded up to multiples of this.
const STEP: usize = 512;
/// What a connection's task keeps of it is some 10 KiB.
const LARGEST: usize = 12 << 10;
const CLASSES: usize = SMALL_CLASSES + (LARGEST - 1) / STEP - 1;
/// Blocks of one class that a thread keeps, and of one that is larger than hyper's buffers; at most 7.6 MiB of all classes together, 512 KiB of any.
const MOST: usize = 64;
const MOST_LARGE: usize = 16;
const LARGE: usize = 8192;

/// Blocks of one size.
struct Stack {
    blocks: [*mut u8; MOST],
    count: usize,
}

thread_local! {
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    // Without a destructor, which an allocator could not run: `let_go` empties it.
    static KEPT: UnsafeCell<[Stack; CLASSES]> =
        const { UnsafeCell::new([const { Stack { blocks: [null_mut(); MOST], count: 0 } }; CLASSES]) };
}

/// From now on this thread keeps blocks. To be undone by `let_go` before it ends.
pub fn keep() {
    KEEPS.set(true);
}

/// Returns what this thread kept.
pub fn let_go() {
    KEEPS.set(false);
    for class in 0..CLASSES {
        while let Some(block) = with_stack(class, |stack| stack.pop()) {
            // SAFETY: `dealloc` put it there, allocated by `System` with the layout of its class.
            #[allow(unsafe_code)]
            unsafe {
                System.dealloc(block, layout(class));
            }
        }
    }
}

impl Stack {
    fn pop(&mut self) -> Option<*mut u8> {
        self.count = self.count.checked_sub(1)?;
        self.blocks.get(self.count).copied()
    }

    fn push(&mut self, block: *mut u8, most: usize) -> bool {
        let Some(slot) = self.blocks.get_mut(self.count).filter(|_| self.count < most) else { return false };
        *slot = block;
        self.count += 1;
        true
    }
}

/// The class of a layout, the same whether its thread keeps blocks or not; `None`: the C library's affair.
fn class(layout: &Layout) -> Option<usize> {
    match layout.size() {
        _ if layout.align() > 16 => None,
        size @ 1..=SMALL => Some((size + 7) / SMALL_STEP),
        size @ 1..=LARGEST => Some(SMALL_CLASSES + (size - 1) / STEP - 2),
        _ => None,
    }
}

/// What blocks of a class are allocated with.
fn layout(class: usize) -> Layout {
    let size = if class < SMALL_CLASSES { class * SMALL_STEP + 8 } else { (class - SMALL_CLASSES + 3) * STEP };
    Layout::from_size_align(size, 16).unwrap_or(Layout::new::<u128>())
}

fn most(class: usize) -> usize {
    if layout(class).size() > LARGE { MOST_LARGE } else { MOST }
}

fn with_stack<T>(class: usize, use_it: impl FnOnce(&mut Stack) -> Option<T>) -> Option<T> {
    let with = |kept: &UnsafeCell<[Stack; CLASSES]>| {
        // SAFETY: only this thread has it, and nobody who uses it allocates or comes here again meanwhile: `push`, `pop` and nothing else run in here.
        #[allow(unsafe_code)]
        let kept = unsafe { &mut *kept.get() };
        kept.get_mut(class).and_then(use_it)
    };
    KEPT.try_with(with).ok().flatten()
}

fn kept(class: usize) -> Option<*mut u8> {
    if !KEEPS.try_with(Cell::get).unwrap_or(false) {
        return None;
    }
    with_stack(class, Stack::pop)
}

// SAFETY: every block comes from `System`, with the caller's layout or with that of its class, which is at least as large and as aligned, and goes
// back with the same one: `class` depends on the layout alone. A block is in one stack or in use, never both.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, wanted: Layout) -> *mut u8 {
        match class(&wanted) {
            // SAFETY: the caller's duties are passed on.
            None => unsafe { System.alloc(wanted) },
            Some(class) => match kept(class) {
                Some(block) => block,
                // SAFETY: a class has a size.
                None => unsafe { System.alloc(layout(class)) },
            },
        }
    }

    unsafe fn alloc_zeroed(&self, wanted: Layout) -> *mut u8 {
        if class(&wanted).is_none() {
            // SAFETY: the caller's duties are passed on.
            return unsafe { System.alloc_zeroed(wanted) };
        }
        // SAFETY: the block is at least so large.
        unsafe {
            let block = self.alloc(wanted);
            if !block.is_null() {
                block.write_bytes(0, wanted.size());
            }
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, had: Layout) {
        let Some(class) = class(&had) else {
            // SAFETY: the caller's duties are passed on.
            return unsafe { System.dealloc(block, had) };
        };
        let keeps = KEEPS.try_with(Cell::get).unwrap_or(false);
        if !keeps || with_stack(class, |stack| stack.push(block, most(class)).then_some(())).is_none() {
            // SAFETY: allocated by `alloc` above with this layout.
            unsafe { System.dealloc(block, layout(class)) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, had: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller vouches that the size, rounded up to the alignment, is no overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, had.align()) };
        match (class(&had), class(&wanted)) {
            // SAFETY: the caller's duties are passed on.
            (None, None) => unsafe { System.realloc(block, had, size) },
            (had, wanted) if had == wanted => block,
            _ => {
                // SAFETY: two blocks, each at least as large as what is copied; the old one goes back once.
                unsafe {
                    let new = self.alloc(wanted);
                    if !new.is_null() {
                        std::ptr::copy_nonoverlapping(block, new, had.size().min(size));
                        self.dealloc(block, had);
                    }
                    new
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    #[allow(unsafe_code)]
    fn take(size: usize) -> *mut u8 {
        // SAFETY: not of size zero; `give` gives it back with the same layout.
        unsafe { Heap.alloc(of(size)) }
    }

    #[allow(unsafe_code)]
    fn give(block: *mut u8, size: usize) {
        // SAFETY: it came from `take` with this size.
        unsafe { Heap.dealloc(block, of(size)) }
    }

    #[test]
    fn every_size_has_room_in_its_class() {
        for size in 1..20_000 {
            match class(&of(size)) {
                None => assert!(size > LARGEST),
                Some(class) => {
                    let step = if size <= SMALL { SMALL_STEP } else { STEP };
                    assert!(layout(class).size() >= size && layout(class).size() < size + step && class < CLASSES, "{size}");
                }
            }
        }
        let sizes: Vec<_> = (0..CLASSES).map(|class| layout(class).size()).collect();
        assert!(sizes.is_sorted_by(|one, next| one < next) && sizes.contains(&8192) && sizes.last() == Some(&LARGEST), "{sizes:?}");
        assert_eq!(class(&Layout::from_size_align(0, 1).unwrap()), None);
        assert_eq!(class(&Layout::from_size_align(4096, 4096).unwrap()), None);
    }

    #[test]
    fn what_was_given_back_last_is_taken_first_and_a_stack_is_bounded() {
        keep();
        let (one, two) = (take(8192), take(8192));
        give(one, 8192);
        give(two, 8192);
        assert_eq!((take(8000), take(8192)), (two, one));
        give(one, 8192);
        give(two, 8000);
        let many: Vec<_> = (0..3 * MOST).map(|_| take(2000)).collect();
        many.into_iter().for_each(|block| give(block, 2000));
        let count = |size: usize| with_stack(class(&of(size)).unwrap(), |stack| Some(stack.count)).unwrap();
        assert_eq!((count(2000), count(8192)), (MOST, 2));
        let large: Vec<_> = (0..3 * MOST).map(|_| take(10_000)).collect();
        large.into_iter().for_each(|block| give(block, 10_000));
        assert_eq!(count(10_000), MOST_LARGE);
        let kept = (0..CLASSES).map(|class| most(class) * layout(class).size()).sum::<usize>();
        assert!(kept <= 7780 << 10, "{kept}");
        let_go();
        assert_eq!((count(2000), count(8192), count(10_000)), (0, 0, 0));
        give(take(2000), 2000);
        assert_eq!(count(2000), 0, "who does not keep keeps nothing");
    }

    #[test]
    #[allow(unsafe_code)]
    fn what_grows_and_shrinks_keeps_its_content() {
        for (from, to) in [
            (1, 24),
            (24, 25),
            (25, 30),
            (100, 1025),
            (1032, 1033),
            (1033, 1032),
            (1025, 1500),
            (1500, 8192),
            (8192, 9000),
            (9000, 2000),
            (2000, 10),
            (5000, 5001),
        ] {
            let block = take(from);
            // SAFETY: within the block, and then within the new one.
            unsafe {
                block.write_bytes(7, from);
                let new = Heap.realloc(block, of(from), to);
                assert!((0..from.min(to)).all(|at| *new.add(at) == 7), "{from} to {to}");
                give(new, to);
            }
        }
    }
}
