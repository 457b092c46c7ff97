"""One changelog-backed table per file: profiles, pending, monitors."""
