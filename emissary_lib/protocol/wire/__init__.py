"""What stands in a message: frames, payloads, and the numbers and text they are written in."""
