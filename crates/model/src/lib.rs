//! Vocabulary: ids, units, resources, topologies.
