//! The waiting rooms after Redis has forgotten them, all or some of it: rebuilt by whoever knows, never with too many.
