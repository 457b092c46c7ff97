"""The engine under Faust: batch transport, units, checkpoint, recovery, training-log follower, brokers.

Called by agents and app. It knows Kafka and no pipeline: what is learned is decided in the pure rooms.
"""
