"""Stream processors, one per file: receive a chunk, call the pure room, buffer, emit."""
