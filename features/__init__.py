"""Pure: windowed aggregates, profiles and the feature vector. No Kafka, no clock, no I/O."""
