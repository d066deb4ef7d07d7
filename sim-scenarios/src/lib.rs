//! Scenario language, workloads and oracles of the simulator.
