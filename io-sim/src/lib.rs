//! The discrete-event world of the simulator.
