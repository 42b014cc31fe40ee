//! Draws that wait for a beacon.
