"""Pure: scoring, label join, learner, metrics, drift. No Kafka, no clock, no I/O."""
